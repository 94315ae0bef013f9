"""Steps for the page: rows that are kept whole, and rates over equal bins.

A stacked area of sampled columns would no longer sum to the pool, so whole rows are
chosen: those that MinMaxLTTB (Van Der Donckt 2023) picks for the series that matter, and
every row in a few windows of detail.  Each kept row is a row that the engine wrote, so
what the cursor prints is exact.  Token counts are summed over bins, as sampling would lose
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.observed import CAUSES, HELD, SHARES, Columns
from analysis.page.pack import Packed, pack

BINS = 600
DETAIL = 0.01
"""Share of the run that a window of detail spans."""
BLOCKED = ("", *CAUSES)
Window = tuple[float, float]


class Timeline(NamedTuple):
    """Kept rows of steps.parquet and binned rates."""

    rows: npt.NDArray[np.int64]
    """Indices of the kept rows, ascending."""
    total: int
    """Rows there were."""
    until: float
    """End of the run in seconds."""
    data: dict[str, Packed]


def timeline(steps: Columns, points: int, windows: Sequence[Window]) -> Timeline:
    """Choose about `points` rows, plus all rows (at most a quarter as many each) of the windows, and bin rates.

    Args:
        steps: columns of steps.parquet.
        points: how many rows to keep for the overview.
        windows: (from, until) in seconds, kept in detail.

    """
    start = np.asarray(steps["start_s"], np.float64)
    rows = choose(steps, points, windows)
    words = np.asarray(steps["blocked"][rows])
    data = {
        "start": pack(start[rows]),
        "duration": pack(np.asarray(steps["duration_s"][rows], np.float64)),
        "blocked": pack(np.array([BLOCKED.index(word) for word in words], np.uint8)),
    }
    names = ("step", "running", "waiting", "prefill_tokens", "decode_tokens", *SHARES)
    for name in (*names, "shared_savings", "swapped", "largest_hole"):
        data[name] = pack(np.asarray(steps[name][rows], np.int64))
    for name, values in rates(steps).items():
        data[f"bin_{name}"] = pack(values)
    until = float(start[-1] + steps["duration_s"][-1]) if len(start) else 0.0
    return Timeline(rows, len(start), until, data)


def choose(steps: Columns, points: int, windows: Sequence[Window]) -> npt.NDArray[np.int64]:
    """Pick the rows to keep: first and last, peaks and troughs of the main series, and the windows."""
    start = np.asarray(steps["start_s"], np.float64)
    if len(start) <= points:
        return np.arange(len(start))
    from tsdownsample import MinMaxLTTBDownsampler  # noqa: PLC0415  (only for long runs)

    held = np.zeros(len(start))
    for name in HELD:
        held += steps[name]
    main = [held, *(np.asarray(steps[name], np.float64) for name in ("live", "running", "waiting"))]
    each = max(points // len(main), 3)
    sampler: Any = MinMaxLTTBDownsampler
    chosen = [sampler().downsample(start, series, n_out=each) for series in main]
    chosen.append(np.array([int(np.argmax(steps[name])) for name in (*SHARES, "running", "waiting")]))
    for begin, end in windows:
        first, last = np.searchsorted(start, (begin, end))
        inside = np.arange(max(first - 1, 0), last)
        chosen.append(inside[:: max(1, -(-len(inside) * 4 // points))])
    kept = np.zeros(len(start), np.bool_)
    kept[np.concatenate([*chosen, [0, len(start) - 1]]).astype(np.int64)] = True
    return np.flatnonzero(kept)  # what `np.unique` would say, which imports masked arrays


def rates(steps: Columns) -> dict[str, npt.NDArray[np.float32]]:
    """Prefill and decode tokens a second over equal bins of the run.

    A step's tokens are spread evenly over its time, so that the bins sum to the run.
    """
    start = np.asarray(steps["start_s"], np.float64)
    if not len(start):
        return {name: np.zeros(0, np.float32) for name in ("prefill_tps", "decode_tps")}
    edges = np.append(start, start[-1] + steps["duration_s"][-1])
    grid = np.linspace(0, edges[-1], BINS + 1)
    width = grid[1] - grid[0] if edges[-1] > 0 else 1.0
    result: dict[str, npt.NDArray[np.float32]] = {}
    for name, column in (("prefill_tps", "prefill_tokens"), ("decode_tps", "decode_tokens")):
        so_far = np.append(0, np.cumsum(steps[column], dtype=np.float64))
        result[name] = (np.diff(np.interp(grid, edges, so_far)) / width).astype(np.float32)
    return result


def detail_windows(steps: Columns, extra: Sequence[float] = ()) -> list[Window]:
    """Find instants worth seeing whole: the fullest pool, the longest queue, the first preemption, and `extra`.

    Each window spans `DETAIL` of the run.
    """
    start = np.asarray(steps["start_s"], np.float64)
    if not len(start):
        return []
    half = (start[-1] + float(steps["duration_s"][-1])) * DETAIL / 2
    live, queue, lost = (np.asarray(steps[name]) for name in ("live", "waiting", "preemptions"))
    centres = [float(start[int(np.argmax(live))]), float(start[int(np.argmax(queue))])]
    if lost.any():
        centres.append(float(start[int(np.argmax(lost > 0))]))
    return [(max(0.0, centre - half), centre + half) for centre in (*centres, *extra)]
