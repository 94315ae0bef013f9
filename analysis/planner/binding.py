"""What limits a workload, read off its own run.

That is what kept the head of the queue waiting, and where that was the pace of the engine, which
term of the step times binds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.page.words import BATCHES, awaited
from analysis.planner.refusals import turned_away
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
            `saved` of the busy time by each resource, `idle`, `kept_up`; its `scheduler`; and what older directories
            do not say, its `pool_slots`, the share of the requests that are `refused`, and why, `refusals`.
        more_seats: False if more seats have been tried and gain nothing.

    Returns:
        `name`: refusal, memory, seats, batches, compute, bandwidth, overhead or arrivals; `text`: in words.

    """
    if limits.get("refused") == 1:
        return {"name": "refusal", "text": f"No request is served: all are {turned_away([limits])}."}
    waits, saved = limits["waits"], limits["saved"]
    term = max(saved, key=lambda name: float(saved[name]))
    cause = max(waits, key=lambda name: float(waits[name]), default="")
    if cause and waits[cause] > SOME:
        name, text = _waiting(limits, cause, term, more_seats=more_seats)
        return {"name": name, "text": text}
    if not limits["kept_up"]:
        return {
            "name": term,
            "text": f"{BINDING[term].capitalize()} limits this workload: {BEHIND}. {_pace(limits)}",
        }
    return {
        "name": "arrivals",
        "text": f"Nothing but the arrival rate limits this workload: hardly any request waits for memory, a seat or "
        f"room in a step. {_idle(limits)} {_pace(limits)} `capacity` finds how much higher the rate could be.",
    }


def _waiting(limits: Mapping[str, Any], cause: str, term: str, *, more_seats: bool) -> tuple[str, str]:
    """Name what limits a workload whose requests wait, most of them for `cause`."""
    scheduler = limits.get("scheduler", "")
    first = (
        f"For {percent(limits['waits'][cause])} of the time the next request waited for {awaited(cause, scheduler)}."
    )
    if cause == "order" and scheduler == BATCHES:
        return "batches", f"Batches that end together limit this workload. {first} {_pace(limits)}"
    if cause in ("memory", "order"):
        live, held = limits["ledger"]["live"], limits["held_peak"]
        pool = pool_of([limits["pool_slots"]] if "pool_slots" in limits else [])
        use = f"{percent(live)} of the {pool} is live K/V on average, and at most {percent(held)} of it was held."
        return "memory", f"KV memory limits this workload. {first} {use}"
    binds = f"{BINDING[term].capitalize()} limits this workload"
    if cause == "seats" and more_seats:
        return "seats", f"The number of seats limits this workload. {first} {_pace(limits)}"
    if cause == "seats":
        return term, f"{binds}: requests wait for a seat, but more gain nothing. {first} {_pace(limits)}"
    return term, f"{binds}: prompts wait for the steps before them. {first} {_pace(limits)} {_idle(limits)}"


def _pace(limits: Mapping[str, Any]) -> str:
    """Say how much less time steps would take without each of their terms."""
    saved = limits["saved"]
    return (
        f"{WHILE[limits['during']]}, steps would take {percent(saved['bandwidth'])} less time if reading memory took "
        f"none, {percent(saved['compute'])} less if arithmetic took none, and {percent(saved['overhead'])} less "
        "without overheads."
    )


def _idle(limits: Mapping[str, Any]) -> str:
    return f"The engine is idle {percent(limits['idle'])} of the time."


def percent(share: float) -> str:
    """Write a share as whole per cent."""
    return f"{100 * share:.0f} %"
