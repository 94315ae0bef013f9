"""Requests for the page: which ones are shown, their phases, and what happened to their memory.

Up to 5,000 requests are all shown.  Of more, the same selection is made for every allocator: those
that were preempted, refused or slowest anywhere, requests around the windows of detail, and an
even sample of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.metrics import ttft_s
from analysis.observed import Columns, Observed
from analysis.page.blockmap import blocks_held
from analysis.page.pack import Packed, pack
from analysis.phases import losses
from analysis.stats import distinct

LIMIT = 5000
STATUSES = ("finished", "refused", "unfinished")
Ids = npt.NDArray[np.int64]


def select(
    runs: Sequence[Columns], windows: Sequence[tuple[float, float]], always: Sequence[int] = (), limit: int = LIMIT
) -> Ids:
    """Choose the requests to show, the same for every run of one workload.

    Args:
        runs: columns of requests.parquet of each run.
        windows: (from, until) in seconds; requests in the system then are wanted.
        always: ids that must be among them.
        limit: how many at most.

    Returns:
        their ids, ascending.

    """
    ids = everyone(runs)
    if len(ids) <= limit:
        return ids
    wish = np.zeros(len(ids))
    for run in runs:
        rows = np.searchsorted(ids, run["request_id"])
        late = np.nan_to_num(ttft_s(Observed(run, {}, 1)), nan=np.inf)
        wish[rows[np.argsort(-late, kind="stable")[: limit // 10]]] += 1
        wish[rows[(run["preemptions"] > 0) | (run["status"] != "finished")]] += 1
        finish = np.nan_to_num(run["finish_s"], nan=np.inf)
        for begin, end in windows:
            wish[rows[(run["arrival_s"] <= end) & (finish >= begin)]] += 0.5
    wish[np.linspace(0, len(ids) - 1, limit // 3).astype(np.int64)] += 10
    wish[np.searchsorted(ids, list(always))] += 100
    return ids[np.sort(np.argsort(-wish, kind="stable")[:limit])]


def everyone(runs: Sequence[Columns]) -> Ids:
    """Return the ids of all requests that came in any run, ascending: in a closed loop not all come in each."""
    return distinct(np.concatenate([np.zeros(0, np.int64), *(run["request_id"] for run in runs)]))


def kept(requests: Columns, chosen: Ids) -> Ids:
    """Return the rows of the chosen requests in one run."""
    return np.flatnonzero(np.isin(requests["request_id"], chosen, assume_unique=True))


class Gantt(NamedTuple):
    """Requests of one run as packed columns."""

    data: dict[str, Packed]
    reasons: list[str]
    """Words of refusals; the column `reason` indexes them."""


def gantt(
    requests: Columns,
    chosen: Ids,
    blocks: Columns | None,
    events: Columns | None,
    missed: npt.NDArray[np.bool_],
    parts: Sequence[str] = (),
) -> Gantt:
    """Pack the chosen requests of one run.

    Args:
        requests: columns of requests.parquet.
        chosen: ids.
        blocks: columns of blocks.parquet, for the blocks held.
        events: columns of events.parquet, if recorded.
        missed: whether each request of the run missed the SLO.
        parts: names of the parts, if requests are a mix.

    """
    chosen = kept(requests, chosen)
    rows = {name: np.asarray(requests[name])[chosen] for name in requests if not name.startswith("stall")}
    held = np.zeros(len(chosen), np.int64)  # not seen in a snapshot: not known
    if blocks is not None:
        ids, most = blocks_held(blocks)
        known = np.isin(rows["request_id"], ids)
        held[known] = most[np.searchsorted(ids, rows["request_id"][known])]
    reasons = sorted(set(rows["reason"].tolist()))
    data = {name: pack(np.asarray(rows[name], np.int64)) for name in _COUNTS}
    data |= {name: pack(np.asarray(rows[f"{name}_s"], np.float64)) for name in _TIMES}
    data["status"] = pack(np.array([STATUSES.index(word) for word in rows["status"]], np.uint8))
    data["reason"] = pack(np.array([reasons.index(word) for word in rows["reason"]], np.uint16))
    data["held"] = pack(held)
    if parts:
        data["part"] = pack(numbered(rows["part"], parts))
    data["miss"] = pack(missed[chosen].astype(np.uint8))
    place = {request: index for index, request in enumerate(rows["request_id"].tolist())}
    lost = losses(rows, blocks, events)
    data["loss_of"] = pack(np.array([place[one.request_id] for one in lost], np.int64))
    data["loss_from"] = pack(np.array([one.begin_s for one in lost], np.float64))
    data["loss_until"] = pack(np.array([one.end_s for one in lost], np.float64))
    data["loss_ready"] = pack(np.array([one.ready_s for one in lost], np.float64))
    data["loss_swap"] = pack(np.array([one.swapped for one in lost], np.uint8))
    return Gantt(data, reasons)


def numbered(words: npt.NDArray[Any], names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Number words by their places among names."""
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[word] for word in words.tolist()], np.uint8)


def about_owners(owners: Ids, requests: Columns, parts: Sequence[str]) -> dict[str, Packed]:
    """What the block map's colours need to know of its owners."""
    place = np.searchsorted(requests["request_id"], owners)
    known = {
        "group": pack(np.asarray(requests["prefix_group"], np.int64)[place]),
        "born": pack(np.asarray(requests["arrival_s"], np.float32)[place]),
    }
    return known | {"part": pack(numbered(requests["part"][place], parts))} if parts else known


_COUNTS = (
    "request_id",
    "prompt_tokens",
    "output_tokens",
    "generated_tokens",
    "samples",
    "cached_tokens",
    "recomputed_tokens",
    "swapped_blocks",
    "preemptions",
    "prefix_group",
)
_TIMES = ("arrival", "scheduled", "first_token", "finish")
