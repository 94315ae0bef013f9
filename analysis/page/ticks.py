"""Memory events as ticks: what was taken from which request, when, for which other, and why.

Preemptions and refusals are recorded one by one, evictions as a number of blocks per step; of the
latter the page keeps the first in each of many equal bins, and the number of blocks in that bin.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.observed import Columns
from analysis.page.pack import Packed, pack

KINDS = ("preempt", "swap_out", "refuse", "evict")
LIMIT = 3000
BINS = 600


class Ticks(NamedTuple):
    """Events worth stepping to, by time."""

    data: dict[str, Packed]
    """time, kind (place in KINDS), request (-1 if none), amount (slots; blocks of an eviction), cause, reason."""
    reasons: list[str]
    counts: dict[str, int]
    """How many of each kind there were, evictions in blocks."""
    kept: int
    """How many are in `data`."""
    exact: bool
    """Whether events are recorded; if not, only the steps that preempted are known."""


def ticks(steps: Columns, requests: Columns, events: Columns | None) -> Ticks:
    """Gather the memory events of one run.

    Args:
        steps: columns of steps.parquet.
        requests: columns of requests.parquet.
        events: columns of events.parquet by time, if recorded.

    """
    rows = _recorded(events) if events is not None else _preempting(steps)
    taken = _evictions(steps, requests)
    counts = {kind: int(np.count_nonzero(rows["kind"] == place)) for place, kind in enumerate(KINDS)}
    counts["evict"] = int(np.sum(steps["evicted"]))
    step = max(1, -(-len(rows["time"]) // LIMIT))
    columns = {name: np.concatenate([rows[name][::step], taken[name]]) for name in taken}
    order = np.argsort(columns["time"], kind="stable")
    reasons = sorted(set(columns["reason"].tolist()))
    data = {name: pack(columns[name][order]) for name in ("time", "kind", "request", "amount", "cause")}
    data["reason"] = pack(np.array([reasons.index(word) for word in columns["reason"][order]], np.uint16))
    return Ticks(data, reasons, counts, len(order), exact=events is not None)


def _recorded(events: Columns) -> dict[str, npt.NDArray[Any]]:
    kinds = np.full(len(events["time_s"]), -1, np.int64)
    for place, kind in enumerate(KINDS):
        kinds[np.asarray(events["event"]) == kind] = place
    told = np.flatnonzero(kinds >= 0)
    return {
        "time": np.asarray(events["time_s"], np.float64)[told],
        "kind": kinds[told],
        "request": np.asarray(events["request_id"], np.int64)[told],
        "amount": np.asarray(events["slots"], np.int64)[told],
        "cause": np.asarray(events["cause"], np.int64)[told],
        "reason": np.asarray(events["reason"], object)[told],
    }


def _preempting(steps: Columns) -> dict[str, npt.NDArray[Any]]:
    """Steps that preempted, where nobody recorded whom."""
    time = np.asarray(steps["start_s"], np.float64)[np.asarray(steps["preemptions"]) > 0]
    none = np.full(len(time), -1, np.int64)
    empty = np.full(len(time), "", object)
    return {"time": time, "kind": none + 1, "request": none, "amount": none + 1, "cause": none, "reason": empty}


def _evictions(steps: Columns, requests: Columns) -> dict[str, npt.NDArray[Any]]:
    """The first step of each bin that evicts, with the blocks of the whole bin, and whom it admitted."""
    evicted = np.asarray(steps["evicted"], np.int64)
    rows = np.flatnonzero(evicted)
    time = np.asarray(steps["start_s"], np.float64)[rows]
    place = (time / max(float(time[-1]), 1e-9) * (BINS - 1)).astype(np.int64) if len(time) else rows
    bins, first = np.unique(place, return_index=True)
    amount = np.bincount(place, weights=evicted[rows], minlength=1)[bins] if len(time) else np.zeros(0)
    time = time[first]
    admitted = np.asarray(requests["scheduled_s"], np.float64)
    order = np.argsort(admitted, kind="stable")  # NaN comes last
    begin, end = (np.searchsorted(admitted[order], time, side) for side in ("left", "right"))
    cause = np.full(len(time), -1, np.int64)
    cause[end > begin] = np.asarray(requests["request_id"], np.int64)[order][begin[end > begin]]
    return {
        "time": time,
        "kind": np.full(len(time), KINDS.index("evict")),
        "request": np.full(len(time), -1, np.int64),
        "amount": amount.astype(np.int64),
        "cause": cause,
        "reason": np.full(len(time), "", object),
    }
