"""What limits a workload, read off its own run.

That is what kept the head of the queue waiting, and where that was the pace of the engine, which
term of the step times binds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.page.words import BATCHES, awaited
from analysis.pools import pool_of

SOME = 0.05
"""Share of the time from which on waiting counts."""
BINDING = {"bandwidth": "memory bandwidth", "compute": "compute", "overhead": "the overhead of a step"}
BEHIND = "fewer requests leave than arrive, or the run is too short to tell"
WHILE = {"waiting": "While requests wait", "busy": "While the engine is busy"}


def bound(limits: Mapping[str, Any], *, more_seats: bool = True) -> dict[str, str]:
    """Name what limits a workload.

    Args:
        limits: of the run: shares of the time that the head of the queue `waits` for each cause, what would be
            `saved` of the busy time by each resource, `idle`, `kept_up`; its `scheduler`, and its `pool_slots`, which
            older directories do not say.
        more_seats: False if more seats have been tried and gain nothing.

    Returns:
        `name`: memory, seats, batches, compute, bandwidth, overhead or arrivals; `text`: in words.

    """
    waits = limits["waits"]
    term = max(limits["saved"], key=lambda name: float(limits["saved"][name]))
    cause = max(waits, key=lambda name: float(waits[name]), default="")
    pace = (
        f"{WHILE[limits['during']]}, steps would take {percent(limits['saved']['bandwidth'])} less time if reading "
        f"memory took none, {percent(limits['saved']['compute'])} less if arithmetic took none, and "
        f"{percent(limits['saved']['overhead'])} less without overheads."
    )
    idle = f"The engine is idle {percent(limits['idle'])} of the time."
    if cause and waits[cause] > SOME:
        scheduler = limits.get("scheduler", "")
        first = f"For {percent(waits[cause])} of the time the next request waited for {awaited(cause, scheduler)}."
        if cause == "order" and scheduler == BATCHES:
            return {"name": "batches", "text": f"Batches that end together limit this workload. {first} {pace}"}
        if cause in ("memory", "order"):
            live, held = limits["ledger"]["live"], limits["held_peak"]
            pool = pool_of([limits["pool_slots"]] if "pool_slots" in limits else [])
            use = f"{percent(live)} of the {pool} is live K/V on average, and at most {percent(held)} of it was held."
            return {"name": "memory", "text": f"KV memory limits this workload. {first} {use}"}
        if cause == "seats":
            vain = (
                f"{BINDING[term].capitalize()} limits this workload: requests wait for a seat, but more gain nothing."
            )
            name, what = ("seats", "The number of seats limits this workload.") if more_seats else (term, vain)
            return {"name": name, "text": f"{what} {first} {pace}"}
        return {
            "name": term,
            "text": f"{BINDING[term].capitalize()} limits this workload: prompts wait for the steps before them. "
            f"{first} {pace} {idle}",
        }
    if not limits["kept_up"]:
        return {"name": term, "text": f"{BINDING[term].capitalize()} limits this workload: {BEHIND}. {pace}"}
    return {
        "name": "arrivals",
        "text": f"Nothing but the arrival rate limits this workload: hardly any request waits for memory, a seat or "
        f"room in a step. {idle} {pace} `capacity` finds how much higher the rate could be.",
    }


def percent(share: float) -> str:
    """Write a share as whole per cent."""
    return f"{100 * share:.0f} %"
