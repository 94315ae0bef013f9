"""Shapes to which steps are padded, so that one CUDA graph captured for each shape can run them all.

A step has some sequences that produce one token each and some chunks of prompts.  Its shape is the
number of both and the number of tokens in the chunks.  Real steps are padded to one of a few shapes,
and so are simulated ones where a calibration has measured how long each shape takes (`sim.costs.captured`).
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sim.limits import Limits
    from sim.models.geometry import Geometry

CHUNKS = 8
"""Most chunks of a padded step; few steps have more."""
MIXED_DECODES = (0, 16, 32, 64, 96, 128, 192, 256)
"""Decodes of padded steps with chunks; the most that the engine allows is added."""
MIXED_TOKENS = (*range(32, 256, 32), *range(256, 512, 64), *range(512, 1024, 128), *range(1024, 2049, 256))
"""Tokens of the chunks of padded steps, up to `captured_tokens` of the model."""
LAYER_FLOPS = 0.5e12
"""FLOPs of one layer's matrix products that take a fast GPU as long as a slow host needs to launch the layer kernel by
kernel: 0.9 ms.  (On machines with an H200 a host took 0.3 to 0.9 ms, and products ran at 0.4 to 0.65 PFLOP/s.)"""

WORTHWHILE = 0.03
"""Share of a step's time that a larger shape must save."""


class Shape(NamedTuple):
    """What fits in a padded step."""

    decodes: int
    """Sequences that decode one token."""
    tokens: int = 0
    """Tokens of chunks."""
    chunks: int = 0
    """Number of chunks."""

    @property
    def width(self) -> int:
        """Tokens in all, those of decodes first."""
        return self.decodes + self.tokens

    @property
    def rows(self) -> int:
        """Sequences in all."""
        return self.decodes + self.chunks


def padded_sizes(most: int) -> tuple[int, ...]:
    """Return the sizes to which steps of 1 to `most` decodes are padded: finer for small steps."""
    sizes = [1, 2, 4, *range(8, 128, 8), *range(128, 256, 16), *range(256, most, 32)]
    return (*(size for size in sizes if size < most), most)


class Shapes:
    """The shapes to which the steps of one engine are padded."""

    def __init__(
        self,
        most: int,
        tokens: int,
        periods: Mapping[Shape, int] = MappingProxyType({}),
        decodes: tuple[int, ...] = (),
    ) -> None:
        """Choose the shapes.

        Args:
            most: most sequences in a step.
            tokens: most tokens of chunks in a step.
            periods: nanoseconds of a step of each shape, as far as known.
            decodes: numbers of them up to `most`; as an engine has them, if not given.

        """
        self._most, self._longest, self._given = most, tokens, decodes
        self._decodes = decodes or padded_sizes(most)
        self._beside = decodes or (*(size for size in MIXED_DECODES if size < most), most)
        self._tokens = tuple(size for size in MIXED_TOKENS if size <= tokens)
        self._better = {shape: _fastest(shape, periods) for shape in periods}

    def timed(self, periods: Mapping[Shape, int]) -> Shapes:
        """Return the same shapes, each replaced by a larger one that is faster, if there is one."""
        return Shapes(self._most, self._longest, periods, self._given)

    @property
    def all(self) -> tuple[Shape, ...]:
        """Every shape, the largest first."""
        mixed = [Shape(decodes, tokens, CHUNKS) for decodes, tokens in product(self._beside, self._tokens)]
        return tuple(sorted([*map(Shape, self._decodes), *mixed], key=lambda shape: shape.width, reverse=True))

    def fit(self, decodes: int, tokens: int = 0, chunks: int = 0) -> Shape | None:
        """Return the smallest shape in which a step fits, or a larger one that is known to be faster, or None."""
        shape = self._smallest(decodes, tokens, chunks)
        return None if shape is None else self._better.get(shape, shape)

    def _smallest(self, decodes: int, tokens: int, chunks: int) -> Shape | None:
        if not chunks:
            at = bisect_left(self._decodes, decodes)
            return Shape(self._decodes[at]) if at < len(self._decodes) else None
        at, long = bisect_left(self._beside, decodes), bisect_left(self._tokens, tokens)
        if chunks > CHUNKS or at == len(self._beside) or long == len(self._tokens):
            return None
        return Shape(self._beside[at], self._tokens[long], CHUNKS)


def captured_tokens(geometry: Geometry) -> int:
    """Return up to how many tokens of chunks steps are captured; with more, computation takes longer than launches."""
    flops = 2 * geometry.weights.dense / geometry.layers
    found: int = max((size for size in MIXED_TOKENS if size * flops <= LAYER_FLOPS), default=MIXED_TOKENS[0])
    return found


def shapes_for(limits: Limits, captured: int) -> Shapes:
    """Choose shapes for an engine.

    Args:
        limits: of the engine.
        captured: tokens of chunks up to which a step is captured (`captured_tokens` of the runtime, or what the
            coefficient of that name says of it).

    """
    longest = limits.max_model_len  # a scheduler without a budget of tokens computes whole prompts
    return Shapes(limits.max_num_seqs, min(max(limits.max_num_batched_tokens, longest), CHUNKS * longest, captured))


def _fastest(shape: Shape, periods: Mapping[Shape, int]) -> Shape:
    """Return the fastest shape in which `shape` fits: matrix products of some sizes take longer than larger ones."""
    roomy = [each for each in periods if each.decodes >= shape.decodes and each.tokens >= shape.tokens]
    fastest = min((each for each in roomy if bool(each.chunks) == bool(shape.chunks)), key=periods.__getitem__)
    return fastest if periods[fastest] < (1 - WORTHWHILE) * periods[shape] else shape
