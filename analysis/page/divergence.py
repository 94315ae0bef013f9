"""Where two allocators first treat a request differently.

With common random numbers every allocator sees the same requests, so until some decision
differs nothing does.  The first request, in order of time, whose fate differs is the place
to look: refused by one only, admitted later than a step by one, or preempted by one only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.observed import Columns, common
from analysis.stats import percentiles

LOOKED_AT = ("request_id", "arrival_s", "status", "scheduled_s", "preemptions")


class Divergence(NamedTuple):
    """The first request that two runs treat differently."""

    request_id: int
    time_s: float
    """When the difference shows, in the run where it shows first."""
    why: str


def diverge(first: Columns, second: Columns, tolerance_s: float) -> Divergence | None:
    """Find the first difference between two runs of the same requests; None if there is none.

    Args:
        first: columns of requests.parquet.
        second: the same of the other run.
        tolerance_s: admissions this far apart count as equal (the length of a step, say).

    """
    mine, theirs = common(first, second)
    first, second = ({name: run[name][rows] for name in LOOKED_AT} for run, rows in ((first, mine), (second, theirs)))
    found: list[Divergence] = []
    status = (first["status"] == "refused") != (second["status"] == "refused")
    _add(found, first["arrival_s"], status, first, "refused by one of the two")
    one, two = first["scheduled_s"], second["scheduled_s"]
    when = np.fmin(one, two)
    apart = np.where(np.isnan(one) == np.isnan(two), np.abs(one - two), np.inf)
    late = ~status & ~np.isnan(when) & ~(apart <= tolerance_s)
    _add(found, when, late, first, "admitted by one while the other lets it wait")
    lost = (first["preemptions"] > 0) != (second["preemptions"] > 0)
    _add(found, np.fmin(one, two), lost, first, "preempted by one of the two, after it was admitted here")
    return min(found, key=lambda one: one.time_s, default=None)


def divergences(
    requests: Sequence[Columns], steps: Sequence[Columns], served: Sequence[int]
) -> dict[tuple[int, int], Divergence]:
    """Find where each two runs of the same requests part; one run needs no looking at its steps.

    Args:
        requests: columns of requests.parquet of each run.
        steps: columns of steps.parquet of each run.
        served: for each run a number; runs of one number served the same requests.

    Returns:
        by the places of the two runs; nothing for two that treat every request alike.

    """
    found = {}
    step_lengths = [_step_length(each) for each in steps] if len(steps) > 1 else []
    for first, second in combinations(range(len(requests)), 2):
        if served[first] != served[second]:
            continue
        tolerance = 3 * max(step_lengths[first], step_lengths[second])
        one = diverge(requests[first], requests[second], tolerance)
        if one is not None:
            found[first, second] = one
    return found


def _step_length(steps: Columns) -> float:
    lengths = steps["duration_s"]
    return float(percentiles(lengths, [0.5])[0]) if len(lengths) else 0.0


def _add(
    found: list[Divergence], time_s: npt.NDArray[np.float64], which: npt.NDArray[np.bool_], run: Columns, why: str
) -> None:
    which = which & ~np.isnan(time_s)
    if which.any():
        place = int(np.argmin(np.where(which, time_s, np.inf)))
        found.append(Divergence(int(run["request_id"][place]), float(time_s[place]), why))
