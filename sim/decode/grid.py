"""The grid that a calibration measures: decodes, prefills, both together, swaps, and steps without blocks.

Batches go from one sequence to the number asked for in powers of two, each at a few contexts, and prompts from
25 tokens up: enough to tell bytes, operations and overheads apart.  Prompt lengths are no powers of two, so that
steps are padded here as much as in service, and neither are contexts: these would just fill, or just exceed, the
tiles in which attention reads.  Some steps of decodes precede each prefill, as in service.  Large prefills are also
measured one after the other, the first few and many of them, as a GPU's clock may fall meanwhile; so are steps that
no graph holds and whose launches take longer than their computation.  Some decodes share most of their contexts, so
that what is read for one may still be in a cache for the next: all of them, or each quarter; with the 8B that is 3
or 12 MiB per layer.  What does not fit in the pool is left out.  (How long decodes take that read smaller blocks is
measured on captured steps, in `sim.decode.calibrate`.)
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.costs.shapes import CHUNKS
from sim.decode.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


class Extent(NamedTuple):
    """How far a grid reaches."""

    seats: int
    """Most sequences that decode at once."""
    tokens: int
    """Most prompt tokens in one step."""
    longest: int
    """Tokens of the longest sequence."""


SPACED = 8
"""Steps of decodes before each prefill."""


def block_scenes(extent: Extent) -> list[Scene]:
    """Return the steps to measure where K/V lies in blocks."""
    seats, tokens, longest = extent
    odd = tokens * 25 // 32
    contexts, usual = _parts(longest, 43, 9, 3), longest // 9
    scenes = [decode(count, context) for count, context in product(_doubling(1, seats), contexts)]
    scenes += [ragged(count, longest) for count in _parts(seats, 16, 4, 1)]
    scenes += [
        alike(count, longest * 15 // 64, count // prefixes)
        for count, prefixes in product(_parts(seats, 8, 4, 1), (1, 4))
        if count > prefixes
    ]
    scenes += [
        Scene(f"prefill {count} at {start}, in a row", chunks=((start, count),))
        for count, start in product(_parts(odd, 4, 2), (0, longest // 4))
        if start + count <= longest
    ]
    one = (usual,)
    scenes += [
        Scene(f"prefill {count} at {start}", one, ((start, count),), SPACED)
        for count, start in product(_doubling(25, odd // 4), (0, longest // 4))
        if start + count <= longest
    ]
    scenes += [
        Scene(f"prefill {chunks} x {count}", one, ((0, count),) * chunks, SPACED)
        for chunks, count in ((4, odd // 16), (4, odd // 64), (16, odd // 64), (2, odd // 2))
        if count and chunks < seats
    ]
    scenes += [
        Scene(f"prefill {count} at 0, {nth} in a row", one, ((0, count),), SPACED, nth)
        for count, nth in product(_parts(odd, 8, 4), (2, 3, 4))
        if count <= longest
    ]
    scenes += launch_scenes(extent)
    scenes += [
        Scene(f"decode {count} x {usual} + prefill {prefill}", one * count, ((0, prefill),), SPACED)
        for count, prefill in product(_parts(seats, 32, 8, 2), _parts(odd, 64, 32, 16, 10, 7, 4))
        if prefill <= longest
    ]
    beside = max(1, seats // 32)
    scenes += [
        Scene(f"decode {beside} x {usual} + prefill {prefill}", one * beside, ((0, prefill),), SPACED)
        for prefill in _parts(odd, 6, 5, 3)  # too long for a graph, where the model is large
        if prefill <= longest
    ]
    if seats >= 8:
        short = one * 8
        for blocks in (8, 64):
            scenes += [
                Scene(f"swap {blocks} blocks out", short, out=blocks),
                Scene(f"swap {blocks} blocks in", short, back=blocks),
            ]
    return scenes


def launch_scenes(extent: Extent) -> list[Scene]:
    """Return steps that no graph holds: of so few tokens that launching them takes longer, or one that begins late."""
    seats, tokens, longest = extent
    odd = tokens * 25 // 32
    many, few, beside = CHUNKS + 1, odd // 256, max(1, seats // 32)
    usual = longest // 9
    scenes = []
    if few and many < seats:
        scenes += [
            Scene(f"prefill {many} x {few}", (usual,), ((0, few),) * many, SPACED),
            Scene(f"prefill {many} x {few}, in a row", chunks=((0, few),) * many),
        ]
    if odd // 2 <= longest:
        scenes.append(
            Scene(f"decode {beside} x {usual} + prefill {odd // 2}", (usual,) * beside, ((0, odd // 2),), SPACED)
        )
    return scenes


def separate_scenes(extent: Extent, *, recomputes: bool) -> list[Scene]:
    """Return the steps to measure where there are no blocks; fewer, they are slow."""
    word = "recompute" if recomputes else "concatenate"
    counts, contexts = _parts(extent.seats, 256, 64, 16, 4), _parts(extent.longest, 32, 8)
    return [
        decode(count, context, word)
        for count, context in product(counts, contexts)
        if not recomputes or count * context <= extent.tokens
    ]


def decode(count: int, context: int, word: str = "decode") -> Scene:
    """Let `count` sequences of `context` tokens decode."""
    return Scene(f"{word} {count} x {context}", (context,) * count)


def alike(count: int, context: int, each: int) -> Scene:
    """Let `count` sequences decode, always `each` of which have three quarters of their `context` tokens in common."""
    return Scene(f"decode {count} x {context}, {each} alike", (context,) * count, alike=each, shared=context * 3 // 4)


def ragged(count: int, longest: int) -> Scene:
    """Let sequences of very different lengths decode, as in service."""
    lengths = np.minimum(served(count) * longest / 8, longest * 0.9).astype(int) + 1
    return Scene(f"decode {count} ragged", tuple(lengths.tolist()))


def served(count: int) -> npt.NDArray[np.float64]:
    """Return how long sequences are that are served together, float64[count], as shares of their mean.

    Each has a prompt and what it has said since, both exponential, and the one that came first has said the most: the
    standard deviation is 0.7 of the mean, the rank correlation of place and length 0.7.  (In seven workloads that were
    validated these are 0.35 to 0.86, and 0.2 to 0.9.)  Order matters: attention takes sequences one after the other,
    and is done later if the longest come last.
    """
    said = -np.log1p(-(np.arange(count)[::-1] + 0.5) / count)
    both = said + np.random.default_rng(0).permutation(said)
    shares: npt.NDArray[np.float64] = both / both.mean()
    return shares


def _doubling(first: int, last: int) -> Sequence[int]:
    """Return first, 2 x first, ... as far as `last`."""
    found = [first]
    while found[-1] * 2 <= last:
        found.append(found[-1] * 2)
    return found


def _parts(whole: int, *parts: int) -> Sequence[int]:
    """Return `whole` divided by each of some numbers, ascending, at least 1."""
    return sorted({max(1, whole // part) for part in parts})
