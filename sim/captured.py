"""How long padded steps take that an engine replays from CUDA graphs: looked up in what a calibration has measured.

Matrix products take a staircase of times over their rows, which no share of a peak follows, and
attention over a few long sequences is further from memory bandwidth than over many.  A
calibration therefore replays every shape (`sim.shapes`), its decodes reading more and more, its chunks
one or many.  Between contexts that were measured times are interpolated; what decodes read of shared blocks
out of a cache is off their context; what a chunk attends to before its own tokens is left to the roofline.
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
"""K/V tokens beyond which a chunk's attention may be split among the device's units, whose results are then merged: the
least part that FlashInfer makes."""


class CapturedStep(NamedTuple):
    """One measured step of a captured shape."""

    decodes: int
    """Lanes of decodes, all of them taken."""
    tokens: int
    """Tokens of chunks, from the beginning of their prompts ..."""
    chunks: int
    """... shared equally by so many chunks."""
    context: int
    """K/V tokens that the decodes attend to, their own included, all together."""
    seconds: float


class Curve(NamedTuple):
    """Seconds of a step over the K/V tokens that its decodes attend to: straight lines between measured points."""

    contexts: Sequence[int]
    """Ascending."""
    seconds: Sequence[float]
    slopes: Sequence[float]
    """From each point on, seconds a token."""

    def at(self, context: float, slower: float = 1.0) -> float:
        """Return the seconds at one context, reading which takes `slower` times as long as was measured."""
        part, least = self._part(context), self.seconds[0]
        seconds = self.seconds[part] + max(0, context - self.contexts[part]) * self.slopes[part]
        return seconds if slower == 1 else (seconds - least) * slower + least

    def at_each(self, contexts: Floats, slower: float = 1.0) -> Floats:
        """Return the same for each of several, to the last bit.

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
        """Look the shapes of an engine up.

        Args:
            shapes: of the engine.
            measured: where one of its shapes is missing, the next larger one stands in.

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
        """By the number of decodes."""

    def launches(self, decodes: int, tokens: int, chunks: int) -> bool:
        """Say whether no shape has room for a step with chunks, so that it is launched kernel by kernel."""
        return self._shapes.fit(decodes, tokens, chunks) is None

    def decoding(self, decodes: int) -> Curve | None:
        """Return how long a step of so many decodes takes; None if there are none, or that is not known."""
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
            attended: K/V tokens that these attend to; how long it takes beyond their own is not in the answer.
            slower: see `Curve.at`.

        """
        shape = self._shapes.fit(decodes, tokens, chunks)
        if shape is None or shape not in self._one:
            return None
        seconds = self._many[shape]
        if attended > SPLIT * chunks:
            filled = (tokens / shape.tokens) ** 2  # of the queries times keys that were measured
            seconds += (self._one[shape] - seconds) * filled
        curve = self._curves.get(shape.decodes)
        return seconds if curve is None else seconds + (curve.at(context, slower) - curve.seconds[0])


def _curve(points: list[CapturedStep]) -> Curve:
    """Join points of one shape, in order of their contexts, by lines; beyond the last the line before goes on."""
    last = {point.context: point.seconds for point in points}
    contexts, seconds = [*last], np.maximum.accumulate([*last.values()]).tolist()
    spans = zip(pairwise(contexts), pairwise(seconds), strict=True)
    slopes = [(after - before) / (end - begin) for (begin, end), (before, after) in spans]
    return Curve(contexts, seconds, [*slopes, slopes[-1] if slopes else 0.0])


def _at_least(shape: Shape, measured: dict[tuple[int, int], float]) -> float | None:
    """Return the time of a shape with chunks, or of the next wider one that has room for it."""
    roomy = [each for each in measured if each[0] >= shape.decodes and each[1] >= shape.tokens]
    return measured[min(roomy, key=sum)] if roomy and shape.chunks else None
