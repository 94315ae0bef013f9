"""How long decodes of one shape take, by the K/V tokens that they attend to and the longest of their contexts.

Attention over a few long sequences is further from memory bandwidth than over many: where a GPU has no room to split
them, the longest decides.  So there is a line for lengths as in service, one for equal lengths, and one for lengths
as in service but for a single long one; where in between, the longest context says.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from sim.costs.load import Maximum

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]


class Line(NamedTuple):
    """A function that is linear between points, and beyond the last one goes on as before it."""

    places: Sequence[float]
    """Ascending."""
    heights: Sequence[float]
    slopes: Sequence[float]
    """From each point on."""

    @classmethod
    def through(cls, points: Iterable[tuple[float, float]]) -> Line:
        """Join points by lines; a height below that of an earlier point is raised to it."""
        last = dict(sorted(points))
        places, heights = [*last], np.maximum.accumulate([*last.values()]).tolist()
        spans = zip(pairwise(places), pairwise(heights), strict=True)
        slopes = [(after - before) / (end - begin) for (begin, end), (before, after) in spans]
        return cls(places, heights, [*slopes, slopes[-1] if slopes else 0.0])

    def at(self, place: float) -> float:
        """Return the height at one place, or before the first point that of the first."""
        part = self._part(place)
        return self.heights[part] + max(0, place - self.places[part]) * self.slopes[part]

    def at_each(self, places: Floats) -> Floats:
        """Return `at` for each of several places, equal to the last bit.

        Args:
            places: ascending, at least one.

        """
        first, last = self._part(places[0]), self._part(places[-1])
        if first == last and places[0] >= self.places[first]:  # nearly always: a leap is short
            heights: Floats = places - self.places[first]
            heights *= self.slopes[first]
            heights += self.heights[first]
            return heights
        parts = np.maximum(np.searchsorted(self.places, places, "right") - 1, 0)
        begins, slopes, lows = (np.array(each)[parts] for each in (self.places, self.slopes, self.heights))
        found: Floats = lows + np.maximum(places - begins, 0) * slopes
        return found

    def _part(self, place: float) -> int:
        return max(0, bisect_right(self.places, place) - 1)


class Spread(NamedTuple):
    """What decodes of one shape take if all are equally long, to be compared with those of very different lengths."""

    even: Line
    """Seconds by the K/V tokens that all of them together attend to."""
    longest: Line
    """Tokens of the longest of those that were of different lengths, by the same."""
    lanes: int
    lone: Line | None = None
    """Seconds by the same, if one of them is much longer than the others; None if not measured."""
    most: int = 0
    """Tokens of that one."""

    def seconds(self, context: Any, usual: Any, longest: Any, at: Callable[[Line, Any], Any], maximum: Maximum) -> Any:
        """Return the seconds of decodes of any lengths.

        Args:
            context: tokens that all of them attend to.
            usual: seconds where lengths are as in service.
            longest: tokens of the longest.
            at: `Line.at`, or `Line.at_each`.
            maximum: of two numbers, or of two arrays.

        """
        even, served, mean = at(self.even, context), at(self.longest, context), context / self.lanes
        share = maximum(0.0, longest - mean) / maximum(1.0, served - mean)
        found = even + (usual - even) * share
        if self.lone is None:
            return found
        lone, more = maximum(usual, at(self.lone, context)), maximum(0.0, longest - self.most)
        between = (lone - usual) * maximum(0.0, longest - more - served) / maximum(1.0, self.most - served)
        beyond = maximum(0.0, lone - even) * more / maximum(1.0, self.most - mean)
        told = (longest > served) * (served < self.most)  # else the line between the other two goes on
        return found + told * (usual + between + beyond - found)


class Curve(NamedTuple):
    """Seconds of a step of decodes, by the K/V tokens that they attend to."""

    line: Line
    """For lengths as in service, a few of which are much longer than the others."""
    spread: Spread | None = None

    def at(self, context: float, longest: int = 0, slower: float = 1.0) -> float:
        """Return the seconds at one context.

        Args:
            context: tokens.
            longest: of these, those of the longest sequence; 0 if not known.
            slower: times as long as measured that reading takes.

        """
        seconds, spread = self.line.at(context), self.spread
        if longest and spread is not None:
            seconds = spread.seconds(context, seconds, longest, Line.at, max)
        least = self.line.heights[0]
        return seconds if slower == 1 else (seconds - least) * slower + least

    def at_each(self, contexts: Floats, longest: Ints | None = None, slower: float = 1.0) -> Floats:
        """Return `at` for each of several contexts, equal to the last bit.

        Args:
            contexts: ascending, at least one.
            longest: int64[contexts], or None if not known.
            slower: see `at`.

        """
        seconds, spread = self.line.at_each(contexts), self.spread
        if longest is not None and spread is not None:
            seconds = spread.seconds(contexts, seconds, longest, Line.at_each, np.maximum)
        least = self.line.heights[0]
        return seconds if slower == 1 else (seconds - least) * slower + least
