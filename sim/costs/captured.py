"""Step times of padded steps that an engine replays from CUDA graphs, looked up in what a calibration has measured.

The time of matrix products is a staircase over their rows, which no share of a peak describes.  So a calibration
replays every shape (`sim.costs.shapes`), and times between those that it has measured are found as follows:

- Decodes were measured with contexts of very different lengths, as in service, of one length, and with a single long
  one besides.  Times are interpolated by the tokens of all contexts, and between the three by the longest context, for
  which the others wait.  What the cache serves of shared blocks is subtracted from the tokens.
- Chunks were measured in the number that there is room for.  Fewer have more query-key pairs, and some are split and
  merged (`sim.costs.splitting`); what a pair and a merged token take is known from single chunks, and from chunks that
  attend to earlier tokens, both measured without decodes, on which it does not depend.  What chunks attend to before
  their own tokens is left to the roofline.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.costs.curve import Curve, Line, Spread
from sim.costs.shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sim.costs.coefficients import Coefficients
    from sim.costs.shapes import Shapes
    from sim.costs.splitting import Splitting


NARROW = 24
"""Most tokens of a step for which matrix products use other kernels than for more: one H200 replayed such steps of the
8B 3 % slower than others did, and wider ones as fast."""

MANY = 96
"""Decodes of a step that draws so much power that chips differ more: of two H200s one replayed the 8B's steps of fewer
in 0.985 of the time that the other took, and those of more in 0.965 of it."""


class CapturedStep(NamedTuple):
    """One measured step of a captured shape."""

    decodes: int
    """Lanes of decodes, all of them in use."""
    tokens: int
    """Tokens of chunks ..."""
    chunks: int
    """... divided equally among this many."""
    context: int
    """K/V tokens that all decodes together attend to, their own included; in a step without decodes, what all chunks
    together attend to before their own."""
    seconds: float
    longest: int = 0
    """K/V tokens of the longest of the decodes; 0 if not known."""
    others: int = 0
    """K/V tokens of each other decode on average, where one is much longer; else 0."""

    @property
    def width(self) -> int:
        """Tokens in all, which are the rows of matrix products."""
        return self.decodes + self.tokens

    @property
    def plain(self) -> bool:
        """Whether no decode is longer than the others, and there are no chunks, or many with nothing before them."""
        return self.chunks != 1 and not self.others and (not self.tokens or self.context == self.decodes)


class CapturedSteps:
    """Times of the shapes of one engine."""

    def __init__(self, shapes: Shapes, measured: Iterable[CapturedStep], splitting: Splitting) -> None:
        """Prepare the look-up of an engine's shapes.

        Args:
            shapes: of the engine.
            measured: the steps; where a shape is missing, the next larger one stands in.
            splitting: which chunks were split and merged.

        """
        points = sorted(measured)
        decodes = {point.decodes for point in points if not point.tokens}
        curves = {size: _curve([p for p in points if p.decodes == size and not p.tokens]) for size in decodes}
        self.spreads = any(curve.spread is not None for curve in curves.values())
        """Whether it makes a difference how long the longest of some decodes is."""
        self._curves = {
            shape.decodes: curves[size]
            for shape in shapes.all
            if not shape.chunks and (size := min((size for size in decodes if size >= shape.decodes), default=0))
        }
        full = {(p.decodes, p.tokens): p for p in points if p.chunks and p.plain}
        self._full = {shape: step for shape in shapes.all if (step := _at_least(shape, full)) is not None}
        """Steps with as many chunks as there is room for."""
        periods = {Shape(size): curve.line.heights[0] for size, curve in self._curves.items()}
        periods |= {shape: step.seconds for shape, step in self._full.items()}
        self._shapes = shapes.timed({shape: round(seconds * 1e9) for shape, seconds in periods.items()})
        fitting = (self._shapes.fit(decodes) for decodes in range(1, max(self._curves, default=0) + 1))
        self._decoding = (None, *(self._curves.get(shape.decodes) if shape else None for shape in fitting))
        """Curves by the number of decodes."""
        self.splitting = splitting
        alone = [(point, full[0, point.tokens]) for point in points if (0, point.tokens) in full and not point.decodes]
        self._merging_s, self.behind_s = _merging(alone, splitting)
        """Seconds for each token that is merged; and those of a step whose chunks attend to earlier tokens at all."""
        self._pair_s = {
            one.tokens: max(0.0, one.seconds - many.seconds - self._merging_s * merged_of(one, splitting))
            / (pairs_of(one) - pairs_of(many))
            for one, many in alone
            if one.chunks == 1 and not one.context
        }
        """Seconds for each query-key pair beyond those of as many chunks as there is room for, by the step's tokens."""

    def launches(self, decodes: int, tokens: int, chunks: int) -> bool:
        """Return whether no shape has room for a step with chunks, so that it is launched kernel by kernel."""
        return self._shapes.fit(decodes, tokens, chunks) is None

    def decoding(self, decodes: int) -> Curve | None:
        """Return how long a step of this many decodes takes; None if that is unknown, or there are no decodes."""
        return self._decoding[decodes] if decodes < len(self._decoding) else None

    def mixed(
        self,
        decodes: int,
        context: float,
        tokens: int,
        chunks: int,
        *,
        pairs: float,
        merged: int,
        longest: int = 0,
        slower: float = 1.0,
    ) -> float | None:
        """Return how long a step with chunks takes, in seconds; None if that is not known.

        Args:
            decodes: sequences that decode.
            context: K/V tokens that they read.
            tokens: of the chunks.
            chunks: how many.
            pairs: query-key pairs of the chunks; those with tokens before the chunks are neither counted nor timed.
            merged: tokens of chunks that are split.
            longest: see `Curve.at`.
            slower: see `Curve.at`.

        """
        shape = self._shapes.fit(decodes, tokens, chunks)
        if shape is None or shape not in self._full:
            return None
        step = self._full[shape]
        most, least = tokens * (tokens + 1) / 2, tokens * (tokens / chunks + 1) / 2  # of one chunk, and of equal ones
        more = min(max(pairs, least), most) - pairs_of(step)
        seconds = step.seconds + more * self._pair_s.get(step.tokens, 0.0) + merged * self._merging_s
        curve = self._curves.get(shape.decodes)
        return seconds if curve is None else seconds + (curve.at(context, longest, slower) - curve.line.heights[0])


def on_machine(steps: Iterable[CapturedStep], coefficients: Coefficients, bound: float) -> Iterator[CapturedStep]:
    """Yield steps with the times that they take on a machine that is not as fast as the calibrated one at all widths.

    What holds for all steps, `step_factor`, is left out.

    Args:
        steps: of the calibrated machine.
        coefficients: `many_factor`, `wide_factor` and `compute_factor` tell of the machine.
        bound: tokens from which a step is bound by compute.

    """
    for step in steps:
        name = factor_of(step, bound)
        yield step if name is None else step._replace(seconds=step.seconds * getattr(coefficients, name))


def factor_of(step: CapturedStep, bound: float) -> str | None:
    """Return the coefficient that tells how much longer a step takes on a machine than narrow ones; None for these."""
    if step.width <= NARROW:
        return None
    if step.decodes >= MANY:
        return "many_factor"
    return "compute_factor" if step.width >= bound else "wide_factor"


def pairs_of(step: CapturedStep) -> float:
    """Return the query-key pairs of a step's chunks, with their own tokens."""
    return step.tokens * (step.tokens / step.chunks + 1) / 2


def merged_of(step: CapturedStep, splitting: Splitting) -> int:
    """Return how many tokens of a step's chunks are split and merged."""
    ends = [number * step.tokens // step.chunks for number in range(step.chunks + 1)]
    return splitting.merged((end - begin, step.context // step.chunks) for begin, end in pairwise(ends))


def _merging(steps: list[tuple[CapturedStep, CapturedStep]], splitting: Splitting) -> tuple[float, float]:
    """Return the seconds that merging takes for each token, and those of a step besides, of steps merged as a whole.

    Args:
        steps: each without decodes, and beside it the one of as many tokens and chunks that attend to nothing earlier.
            Where none of these attends to earlier tokens (in files from before that was measured), single chunks
            tell instead, a little too much, as they also have more query-key pairs.
        splitting: which of them are merged.

    """
    chosen = [pair for pair in steps if pair[0].context] or [pair for pair in steps if pair[0].chunks == 1]
    whole = [
        (step.tokens, step.seconds - plain.seconds)
        for step, plain in chosen
        if merged_of(step, splitting) == step.tokens
    ]
    if len(whole) < 2:  # points, of which a line needs two
        return 0.0, 0.0
    tokens, seconds = np.array(whole).T
    slope, start = np.polyfit(tokens, seconds, 1).tolist()
    return max(0.0, slope), max(0.0, start)


def _curve(points: list[CapturedStep]) -> Curve:
    """Join points of one shape."""
    lanes = points[0].decodes
    even = {point for point in points if point.longest * lanes == point.context} if lanes > 1 else set()
    lone = [point for point in points if point.others]
    ragged = [point for point in points if not point.others and (point not in even or point.context == lanes)]
    line = Line.through((point.context, point.seconds) for point in ragged)  # those that read one token are in both
    if len(even) < 2:  # such a one, and no other
        return Curve(line)
    longest = Line.through((point.context, point.longest) for point in ragged)
    spread = Spread(Line.through((point.context, point.seconds) for point in even), longest, lanes)
    if lone:
        most = lone[0].longest  # the same in all of them
        spread = spread._replace(lone=Line.through((point.context, point.seconds) for point in lone), most=most)
    return Curve(line, spread)


def _at_least(shape: Shape, measured: dict[tuple[int, int], CapturedStep]) -> CapturedStep | None:
    """Return the step of a shape with chunks, or of the next wider one that has room for it."""
    roomy = [each for each in measured if each[0] >= shape.decodes and each[1] >= shape.tokens]
    return measured[min(roomy, key=sum)] if roomy and shape.chunks else None
