"""Requests worth a look: which one waited longest, for what and behind how many; which was slowest, and so on.

Found over all requests of a run, also where the page keeps a part of them only; these are then among
that part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.metrics import normalized_latency_s
from analysis.numbers import short
from analysis.observed import Columns, Observed
from analysis.page.pack import Packed, pack
from analysis.page.timeline import BLOCKED

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Waits(NamedTuple):
    """How each request of a run waited until it started, refused ones not at all."""

    seconds: Floats
    """From its arrival until it started, or until the run ended; NaN of a refused request."""
    ahead: Counts
    """Requests that had arrived before it and not yet started when it came."""
    cause: Counts
    """Place in BLOCKED of what the head of the queue waited for during most of that time; 0 if for nothing."""
    share: Floats
    """Part of that time, 0 to 1, in which it did."""

    def packed(self, rows: Counts) -> dict[str, Packed]:
        """Pack what is told of the requests of some rows."""
        return {
            "ahead": pack(self.ahead[rows]),
            "wait_cause": pack(self.cause[rows]),
            "wait_percent": pack(np.rint(100 * self.share[rows]).astype(np.int64)),
        }


def waits(requests: Columns, steps: Columns) -> Waits:
    """Say of every request how long it waited, behind how many others, and for what.

    Args:
        requests: columns of requests.parquet.
        steps: columns of steps.parquet.

    """
    count = len(requests["request_id"])
    arrival, started = (np.asarray(requests[name], np.float64) for name in ("arrival_s", "scheduled_s"))
    refused = np.asarray(requests["status"] == "refused", np.bool_)
    begin = np.asarray(steps["start_s"], np.float64)
    ends = np.append(begin, begin[-1] + steps["duration_s"][-1]) if len(begin) else np.zeros(1)
    until = np.where(np.isnan(started), np.maximum(ends[-1], arrival), started)
    until[refused] = arrival[refused]
    order = np.lexsort((np.arange(count), arrival))
    came = np.empty(count, np.int64)
    came[order] = np.cumsum(~refused[order]) - ~refused[order]
    gone = np.searchsorted(np.sort(started[~np.isnan(started)]), arrival, side="right")
    spent = np.zeros((len(BLOCKED), count))
    seen = Observed(requests, steps, 1)
    for word, held in seen.blocked.items():
        so_far = np.append(0.0, np.cumsum(np.where(held, seen.durations, 0.0)))
        spent[BLOCKED.index(word)] = np.interp(until, ends, so_far) - np.interp(arrival, ends, so_far)
    seconds = until - arrival
    cause = spent.argmax(axis=0) if count else np.zeros(0, np.int64)
    most = spent.max(axis=0, initial=0.0)
    share = np.divide(most, seconds, out=np.zeros(count), where=seconds > 0).clip(0, 1)
    return Waits(np.where(refused, np.nan, seconds), np.maximum(came - gone, 0), np.where(share > 0, cause, 0), share)


class Notable(NamedTuple):
    """One request worth a look."""

    what: str
    """What it is the first in."""
    request_id: int
    told: str
    """By how much."""


def notable(requests: Columns, steps: Columns, waited: Waits) -> list[Notable]:
    """Find the request that waited longest, the slowest, the one preempted most, and that with the longest pause.

    A kind is left out where no request is like that.  Of equal ones the earliest is named.

    Args:
        requests: columns of requests.parquet.
        steps: columns of steps.parquet.
        waited: what `waits` says of them.

    """
    stalls = np.zeros(len(requests["request_id"]))
    np.maximum.at(stalls, np.repeat(np.arange(len(stalls)), requests["stall_count"]), requests["stall_s"])
    if stalls.max(initial=0.0) < np.max(steps["gap_s"], initial=0.0):
        stalls[:] = 0  # the longest pause was that of a whole batch
    lost = np.asarray(requests["preemptions"], np.float64)
    pace = 1e3 * np.asarray(normalized_latency_s(Observed(requests, steps, 1)), np.float64)
    kinds: tuple[tuple[str, Floats, Callable[[float], str]], ...] = (
        ("waited longest", waited.seconds, lambda value: f"{short(value)} s"),
        ("slowest per token", pace, lambda value: f"{short(value)} ms a token"),
        ("preempted most", lost, lambda value: "once" if value == 1 else f"{short(value)} times"),
        ("longest pause between tokens", stalls, lambda value: f"{short(value)} s"),
    )
    found = []
    for what, values, words in kinds:
        known = np.nan_to_num(values, nan=0.0)
        if len(known) and (most := float(known.max())) > 0:
            found.append(Notable(what, int(requests["request_id"][int(known.argmax())]), words(most)))
    return found
