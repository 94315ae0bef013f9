"""Which runs, and which of their requests, are compared in pairs: those with the same random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from analysis.errors import RunDirectoryError
from analysis.figures import Allocator, group
from analysis.metrics import PER_REQUEST
from analysis.observed import Columns, Floats, Observed, Rows, common
from analysis.reading import Run, RunDirectory

Metric = Callable[[Observed], Floats]
Places: TypeAlias = npt.NDArray[np.intp]
Side: TypeAlias = tuple[Columns, Places]
Matched: TypeAlias = tuple[Side, Side]

NEEDED = ("request_id", "arrival_s", "scheduled_s", "first_token_s", "finish_s", "generated_tokens")
"""Columns of requests from which figures of each follow."""


class Common(NamedTuple):
    """What two runs have in common."""

    means: dict[str, tuple[float, float]]
    """Of figures that some requests have in both: their means over these, in the one and in the other, by name."""
    lacks_some: bool
    """Whether a request of either run has a figure that it lacks in the other, where it was refused, say."""


def allocators_of(one: RunDirectory, two: RunDirectory) -> tuple[dict[str, Allocator], dict[str, Allocator]]:
    """Return the allocators of two directories by label.

    Raises:
        RunDirectoryError: no label is in both.  To find no difference then would be to find that nothing got worse.

    """
    mine, theirs = ({each.label: each for each in group(directory.summary())} for directory in (one, two))
    if mine.keys().isdisjoint(theirs):
        labels = f"{', '.join(mine)} in {one.path}, {', '.join(theirs)} in {two.path}"
        raise RunDirectoryError(f"no allocator has the same label in both: {labels}; `label` in a file gives it one")
    return mine, theirs


def allocators_of_one(directory: RunDirectory, against: str | None) -> tuple[dict[str, Allocator], str]:
    """Return the allocators of a directory by label, and that of the one that others are held against.

    Raises:
        RunDirectoryError: it has none of the label `against`, or no other.

    """
    found = {each.label: each for each in group(directory.summary())}
    base = next(iter(found), "") if against is None else against
    if base not in found:
        raise RunDirectoryError(f"{directory.path}: no allocator {base}; there are: {', '.join(found)}")
    if len(found) == 1:
        raise RunDirectoryError(f"{directory.path}: only {base} is in it; name a second directory to compare it with")
    return found, base


def requests_of(run: Run, part: str, columns: Iterable[str]) -> Columns:
    """Return columns of a run's requests, or of those of one part of its mix."""
    if not part:
        return run.requests(columns)
    found = run.requests((*columns, "part"))
    return Rows(found, np.asarray(found["part"] == part, np.bool_))


def draw_of(run: Run, part: str = "") -> tuple[bytes, ...]:
    """Return what tells the requests that a run served, or those of one part of its mix, from others.

    Requests of the same lengths of which the first arrives at the same time are the same: when the others of a closed
    loop arrive depends on how fast the first ones are answered.
    """
    columns = requests_of(run, part, ("arrival_s", "prompt_tokens", "output_tokens"))
    return columns["arrival_s"][:1].tobytes(), columns["prompt_tokens"].tobytes(), columns["output_tokens"].tobytes()


class Pair:
    """Two runs with the same random numbers, and what is known of the requests that came in both."""

    def __init__(self, first: Run, second: Run) -> None:
        """Pair a run with another one; nothing is read yet."""
        self.first, self.second = first, second
        self._found: dict[str, Common] = {}

    def common(self, part: str) -> Common:
        """Sum up the figures that requests (of a part) have in both runs.

        Both tables are read once, and then only a number for each figure is kept.
        """
        if part not in self._found:
            self._found[part] = self._common(part)
        return self._found[part]

    def _common(self, part: str) -> Common:
        matched, means, lacks_some = self._matched(part), {}, False
        for metric in PER_REQUEST:
            one, two, either = _both(matched, metric)
            lacks_some |= len(one) < either
            if len(one):
                means[metric.__name__] = float(one.mean()), float(two.mean())
        return Common(means, lacks_some)

    def both_have(self, metric: Metric, part: str) -> tuple[Floats, Floats]:
        """Return a figure of each request (of a part) that has it in both runs, in the one and in the other."""
        return _both(self._matched(part), metric)[:2]

    def same_requests(self, part: str = "") -> bool:
        """Whether both served the same requests (of a part)."""
        return draw_of(self.first, part) == draw_of(self.second, part)

    def _matched(self, part: str) -> Matched:
        """Return the requests of both runs, each with the rows of those that came in both, one beside the other."""
        first, second = (requests_of(run, part, NEEDED) for run in (self.first, self.second))
        if part and self.same_requests(part):  # their numbers differ where the other parts do, their order does not
            rows = np.arange(len(first["request_id"]))
            return (first, rows), (second, rows)
        mine, theirs = common(first, second)
        return (first, mine), (second, theirs)


def same_requests(pairs: Sequence[Pair], part: str = "") -> bool:
    """Whether both of every pair served the same requests (of a part), so that their random numbers are common."""
    return bool(pairs) and all(pair.same_requests(part) for pair in pairs)


def pairs_of(one: RunDirectory, two: RunDirectory, label: str, other: str = "") -> Iterator[Pair]:
    """Pair the replications of an allocator with those of the other directory, or of `other`."""
    theirs = {run.repeat: run for run in two.runs if run.label == (other or label)}
    return (Pair(run, theirs[run.repeat]) for run in one.runs if run.label == label and run.repeat in theirs)


def means_of_both(pairs: Iterable[Pair], name: str, part: str) -> tuple[Floats, Floats]:
    """Return means of a figure over the requests that have it in both runs of a pair, of the pairs that have any."""
    means = [found for pair in pairs if (found := pair.common(part).means.get(name)) is not None]
    return np.array([mean for mean, _ in means]), np.array([mean for _, mean in means])


def _both(matched: Matched, metric: Metric) -> tuple[Floats, Floats, int]:
    """Return a figure of each request that has it in both runs, and in how many it has it in the run with more."""
    (first, mine), (second, theirs) = matched
    all_of_one, all_of_two = metric(Observed(first, {}, 1)), metric(Observed(second, {}, 1))
    one, two = all_of_one[mine], all_of_two[theirs]
    known = ~np.isnan(one + two)
    either = max(np.count_nonzero(~np.isnan(figures)) for figures in (all_of_one, all_of_two))
    return one[known], two[known], int(either)
