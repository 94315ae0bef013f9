"""Step times of padded steps that an engine replays from CUDA graphs, looked up in what a calibration has measured.

The time of matrix products is a staircase over their rows, which no share of a peak describes, and
attention over a few long sequences is further from memory bandwidth than over many.  So a calibration
replays every shape (`sim.shapes`) with decodes of growing context and with one or many chunks.  Times
are interpolated between measured contexts; what the cache serves of shared blocks is subtracted from
the context that decodes read; what a chunk attends to before its own tokens is left to the roofline.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from sim.shapes import Shapes

    Floats = npt.NDArray[np.float64]

SPLIT = 128
"""K/V tokens beyond which a chunk's attention may be split among the device's units and the results merged: the
smallest part that FlashInfer makes."""


class CapturedStep(NamedTuple):
    """One measured step of a captured shape."""

    decodes: int
    """Lanes of decodes, all of them in use."""
    tokens: int
    """Tokens of chunks, from the start of their prompts ..."""
    chunks: int
    """... divided equally among this many chunks."""
    context: int
    """K/V tokens that all decodes together attend to, their own included."""
    seconds: float


class Curve(NamedTuple):
    """Seconds of a step as a function of the K/V tokens its decodes attend to: linear between measured points."""

    contexts: Sequence[int]
    """Ascending."""
    seconds: Sequence[float]
    slopes: Sequence[float]
    """Seconds per token from each point on."""

    def at(self, context: float, slower: float = 1.0) -> float:
        """Return the seconds at one context, if reading it takes `slower` times as long as measured."""
        part, least = self._part(context), self.seconds[0]
        seconds = self.seconds[part] + max(0, context - self.contexts[part]) * self.slopes[part]
        return seconds if slower == 1 else (seconds - least) * slower + least

    def at_each(self, contexts: Floats, slower: float = 1.0) -> Floats:
        """Return `at` for each of several contexts, equal to the last bit.

        Args:
            contexts: ascending, at least one.
            slower: see `at`.

        """
        first, last = self._part(contexts[0]), self._part(contexts[-1])
        if first == last and contexts[0] >= self.contexts[first]:  # nearly always: a leap is short
            seconds: Floats = contexts - self.contexts[first]
            seconds *= self.slopes[first]
            seconds += self.seconds[first]
            return seconds if slower == 1 else (seconds - self.seconds[0]) * slower + self.seconds[0]
        return np.array([self.at(context, slower) for context in contexts.tolist()])

    def _part(self, context: float) -> int:
        return max(0, bisect_right(self.contexts, context) - 1)


class CapturedSteps:
    """Times of the shapes of one engine."""

    def __init__(self, shapes: Shapes, measured: Iterable[CapturedStep]) -> None:
        """Prepare the look-up of an engine's shapes.

        Args:
            shapes: of the engine.
            measured: the steps; where a shape is missing, the next larger one stands in.

        """
        points = sorted(measured)
        decodes = {point.decodes for point in points if not point.tokens}
        curves = {size: _curve([p for p in points if p.decodes == size and not p.tokens]) for size in decodes}
        self._curves = {
            shape.decodes: curves[size]
            for shape in shapes.all
            if not shape.chunks and (size := min((size for size in decodes if size >= shape.decodes), default=0))
        }
        one = {(point.decodes, point.tokens): point.seconds for point in points if point.chunks == 1}
        many = one | {(point.decodes, point.tokens): point.seconds for point in points if point.chunks > 1}
        self._one, self._many = (
            {shape: seconds for shape in shapes.all if (seconds := _at_least(shape, times)) is not None}
            for times in (one, many)
        )
        periods = {Shape(size): curve.seconds[0] for size, curve in self._curves.items()} | self._many
        self._shapes = shapes.timed({shape: round(seconds * 1e9) for shape, seconds in periods.items()})
        fitting = (self._shapes.fit(decodes) for decodes in range(1, max(self._curves, default=0) + 1))
        self._decoding = (None, *(self._curves.get(shape.decodes) if shape else None for shape in fitting))
        """Curves by the number of decodes."""

    def launches(self, decodes: int, tokens: int, chunks: int) -> bool:
        """Return whether no shape has room for a step with chunks, so that it is launched kernel by kernel."""
        return self._shapes.fit(decodes, tokens, chunks) is None

    def decoding(self, decodes: int) -> Curve | None:
        """Return how long a step of this many decodes takes; None if that is unknown, or there are no decodes."""
        return self._decoding[decodes] if decodes < len(self._decoding) else None

    def mixed(
        self, decodes: int, context: float, tokens: int, chunks: int, attended: int, slower: float = 1.0
    ) -> float | None:
        """Return how long a step with chunks takes, in seconds; None if that is not known.

        Args:
            decodes: sequences that decode.
            context: K/V tokens that they read.
            tokens: of the chunks.
            chunks: how many.
            attended: K/V tokens that the chunks attend to; time for those before the chunks themselves is not included.
            slower: see `Curve.at`.

        """
        shape = self._shapes.fit(decodes, tokens, chunks)
        if shape is None or shape not in self._one:
            return None
        seconds = self._many[shape]
        if attended > SPLIT * chunks:
            filled = (tokens / shape.tokens) ** 2  # share of the measured query-key pairs
            seconds += (self._one[shape] - seconds) * filled
        curve = self._curves.get(shape.decodes)
        return seconds if curve is None else seconds + (curve.at(context, slower) - curve.seconds[0])


def _curve(points: list[CapturedStep]) -> Curve:
    """Join points of one shape, sorted by context, by lines; the last line is extended beyond the last point."""
    last = {point.context: point.seconds for point in points}
    contexts, seconds = [*last], np.maximum.accumulate([*last.values()]).tolist()
    spans = zip(pairwise(contexts), pairwise(seconds), strict=True)
    slopes = [(after - before) / (end - begin) for (begin, end), (before, after) in spans]
    return Curve(contexts, seconds, [*slopes, slopes[-1] if slopes else 0.0])


def _at_least(shape: Shape, measured: dict[tuple[int, int], float]) -> float | None:
    """Return the time of a shape with chunks, or of the next wider one that has room for it."""
    roomy = [each for each in measured if each[0] >= shape.decodes and each[1] >= shape.tokens]
    return measured[min(roomy, key=sum)] if roomy and shape.chunks else None
