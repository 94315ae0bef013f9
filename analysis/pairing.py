"""Which runs, and which of their requests, are compared in pairs: those with the same random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from analysis.metrics import PER_REQUEST
from analysis.observed import Floats, Observed, common
from analysis.reading import Run, RunDirectory

Pair = tuple[Run, Run]
Metric = Callable[[Observed], Floats]


def draw_of(run: Run) -> tuple[bytes, ...]:
    """Return what tells the requests that a run served from others.

    Requests of the same lengths of which the first arrives at the same time are the same: when the others of a closed
    loop arrive depends on how fast the first ones are answered.
    """
    columns = run.requests(("arrival_s", "prompt_tokens", "output_tokens"))
    return columns["arrival_s"][:1].tobytes(), columns["prompt_tokens"].tobytes(), columns["output_tokens"].tobytes()


def same_requests(pairs: Sequence[Pair]) -> bool:
    """Whether both of every pair served the same requests, so that their random numbers are common."""
    return bool(pairs) and all(draw_of(one) == draw_of(two) for one, two in pairs)


def pairs_of(one: RunDirectory, two: RunDirectory, label: str, other: str = "") -> Iterator[Pair]:
    """Pair the replications of an allocator with those of the other directory, or of `other`."""
    theirs = {run.repeat: run for run in two.runs if run.label == (other or label)}
    return ((run, theirs[run.repeat]) for run in one.runs if run.label == label and run.repeat in theirs)


def both_have(pair: Pair, metric: Metric) -> tuple[Floats, Floats]:
    """Return a figure of each request that has it in both runs, in the one and in the other."""
    first, second = (run.requests() for run in pair)
    mine, theirs = common(first, second)
    one, two = metric(Observed(first, {}, 1))[mine], metric(Observed(second, {}, 1))[theirs]
    known = ~np.isnan(one + two)
    return one[known], two[known]


def lacks_some(pair: Pair) -> bool:
    """Whether a request of either run has a figure that it lacks in the other, where it was refused, say."""
    first, second = (run.requests() for run in pair)
    mine, theirs = common(first, second)
    for metric in PER_REQUEST:
        one, two = (~np.isnan(metric(Observed(columns, {}, 1))) for columns in (first, second))
        if np.count_nonzero(one[mine] & two[theirs]) < max(np.count_nonzero(one), np.count_nonzero(two)):
            return True
    return False
