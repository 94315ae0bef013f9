"""Which runs, and which of their requests, are compared in pairs: those with the same random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from analysis.metrics import PER_REQUEST
from analysis.observed import Columns, Floats, Observed, Rows, common
from analysis.reading import Run, RunDirectory

Pair = tuple[Run, Run]
Metric = Callable[[Observed], Floats]
Places: TypeAlias = npt.NDArray[np.intp]


def requests_of(run: Run, part: str = "", columns: Iterable[str] | None = None) -> Columns:
    """Return columns of a run's requests, or of those of one part of its mix."""
    if not part:
        return run.requests(columns)
    found = run.requests(None if columns is None else (*columns, "part"))
    return Rows(found, np.asarray(found["part"] == part, np.bool_))


def draw_of(run: Run, part: str = "") -> tuple[bytes, ...]:
    """Return what tells the requests that a run served, or those of one part of its mix, from others.

    Requests of the same lengths of which the first arrives at the same time are the same: when the others of a closed
    loop arrive depends on how fast the first ones are answered.
    """
    columns = requests_of(run, part, ("arrival_s", "prompt_tokens", "output_tokens"))
    return columns["arrival_s"][:1].tobytes(), columns["prompt_tokens"].tobytes(), columns["output_tokens"].tobytes()


def same_requests(pairs: Sequence[Pair], part: str = "") -> bool:
    """Whether both of every pair served the same requests (of a part), so that their random numbers are common."""
    return bool(pairs) and all(draw_of(one, part) == draw_of(two, part) for one, two in pairs)


def pairs_of(one: RunDirectory, two: RunDirectory, label: str, other: str = "") -> Iterator[Pair]:
    """Pair the replications of an allocator with those of the other directory, or of `other`."""
    theirs = {run.repeat: run for run in two.runs if run.label == (other or label)}
    return ((run, theirs[run.repeat]) for run in one.runs if run.label == label and run.repeat in theirs)


def both_have(pair: Pair, metric: Metric, part: str) -> tuple[Floats, Floats]:
    """Return a figure of each request (of a part) that has it in both runs, in the one and in the other."""
    (first, mine), (second, theirs) = _matched(pair, part)
    one, two = metric(Observed(first, {}, 1))[mine], metric(Observed(second, {}, 1))[theirs]
    known = ~np.isnan(one + two)
    return one[known], two[known]


def means_of_both(pairs: Iterable[Pair], metric: Metric, part: str) -> tuple[Floats, Floats]:
    """Return means of a figure over the requests that have it in both runs of a pair, of the pairs that have any."""
    sides = [both_have(pair, metric, part) for pair in pairs]
    means = [(one.mean(), two.mean()) for one, two in sides if len(one)]
    return np.array([mean for mean, _ in means]), np.array([mean for _, mean in means])


def lacks_some(pair: Pair, part: str) -> bool:
    """Whether a request of either run has a figure that it lacks in the other, where it was refused, say."""
    (first, mine), (second, theirs) = _matched(pair, part)
    for metric in PER_REQUEST:
        one, two = (~np.isnan(metric(Observed(columns, {}, 1))) for columns in (first, second))
        if np.count_nonzero(one[mine] & two[theirs]) < max(np.count_nonzero(one), np.count_nonzero(two)):
            return True
    return False


def _matched(pair: Pair, part: str) -> tuple[tuple[Columns, Places], tuple[Columns, Places]]:
    """Return the requests of both runs, each with the rows of those that came in both, one beside the other."""
    first, second = (requests_of(run, part) for run in pair)
    if part and same_requests([pair], part):  # their numbers differ where the other parts do, their order does not
        rows = np.arange(len(first["request_id"]))
        return (first, rows), (second, rows)
    mine, theirs = common(first, second)
    return (first, mine), (second, theirs)
