"""When a running request lost its memory, and when it got memory again.

Exact if memory events were recorded; otherwise found from snapshots of the block map, to the nearest snapshot.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.observed import Columns
from analysis.stats import distinct

RETURNS = {"preempt": "resume", "swap_out": "swap_in"}
"""The event that ends what each event begins."""


class Loss(NamedTuple):
    """A time without memory."""

    request_id: int
    begin_s: float
    end_s: float
    """Infinite if the request never came back."""
    swapped: bool
    """Whether its K/V was on the host meanwhile; otherwise it was recomputed."""
    ready_s: float = float("nan")
    """When its tokens were computed again; NaN if never, or not known."""


def losses(requests: Columns, blocks: Columns | None, events: Columns | None) -> list[Loss]:
    """Find every time without memory of the given requests.

    Args:
        requests: columns request_id, preemptions and swapped_blocks of the requests wanted.
        blocks: columns of blocks.parquet, used where there are no events.
        events: columns of events.parquet by time, if recorded.

    """
    if events is not None:
        return _paired(events, requests["request_id"])
    if blocks is None:
        return []
    lost = requests["preemptions"] > 0
    swapped = dict(zip(requests["request_id"].tolist(), (requests["swapped_blocks"] > 0).tolist(), strict=True))
    gaps = absences(blocks, requests["request_id"][lost])
    return [Loss(request, begin, end, swapped[request]) for request, begin, end in gaps]


def _paired(events: Columns, wanted: npt.NDArray[np.int64]) -> list[Loss]:
    found: list[tuple[int, float, float, bool]] = []
    ready: list[float] = []
    waiting: dict[int, tuple[float, str]] = {}
    last: dict[int, int] = {}
    mine = np.flatnonzero(np.isin(events["request_id"], wanted))
    columns = (np.asarray(events[name])[mine].tolist() for name in ("time_s", "request_id", "event"))
    for time, request, word in zip(*columns, strict=True):
        if word in RETURNS:
            waiting[request] = (time, RETURNS[word])
        elif word == "recomputed" and request in last:
            ready[last[request]] = time
        elif request in waiting and word == waiting[request][1]:
            last[request] = len(found)
            found.append((request, waiting.pop(request)[0], time, word == "swap_in"))
            ready.append(float("nan"))
    returned = [Loss(*times, at) for times, at in zip(found, ready, strict=True)]
    never = [Loss(request, begin, float("inf"), word == "swap_in") for request, (begin, word) in waiting.items()]
    return returned + never


def absences(blocks: Columns, request_ids: npt.NDArray[Any]) -> list[tuple[int, float, float]]:
    """Find (request, from, until) in which a request held no block between two snapshots in which it did."""
    ids, times = np.asarray(blocks["request_id"], np.int64), np.asarray(blocks["time_s"], np.float64)
    instants = distinct(times)
    order = np.argsort(ids, kind="stable")
    begin = np.searchsorted(ids, request_ids, sorter=order)
    end = np.searchsorted(ids, request_ids, side="right", sorter=order)
    found: list[tuple[int, float, float]] = []
    for request, first, last in zip(request_ids.tolist(), begin, end, strict=True):
        seen = distinct(np.searchsorted(instants, times[order[first:last]]))
        gaps = np.flatnonzero(np.diff(seen) > 1)
        found += [(request, float(instants[seen[gap] + 1]), float(instants[seen[gap + 1]])) for gap in gaps]
    return found
