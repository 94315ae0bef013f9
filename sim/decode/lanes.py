"""A step in which every sequence says one token and nothing else happens: most steps of a busy engine.

Such a step has a shape, the number of its sequences, and that is padded to one of a few, so
that a CUDA graph captured for each can run them all.  Everything the device must be told is
laid out here, on the host, from the allocator's own block table: a row of numbers a lane and
the list of its blocks.  A lane that stands empty reads and writes the null block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def padded_sizes(most: int) -> tuple[int, ...]:
    """Sizes that steps of 1 to `most` sequences are padded to: finer where a lane costs relatively more."""
    sizes = [1, 2, 4, *range(8, 128, 8), *range(128, 256, 16), *range(256, most, 32)]
    return (*(size for size in sizes if size < most), most)


class Pages(NamedTuple):
    """Blocks of n sequences, one sequence after the other."""

    offsets: npt.NDArray[np.int32]
    """int32[n + 1]: where each begins."""
    blocks: npt.NDArray[np.int32]
    """int32[offsets[n]]: block ids."""
    last: npt.NDArray[np.int32]
    """int32[n]: tokens in the last block of each, at least 1."""


@dataclass(frozen=True)
class Lanes:
    """A padded step of decodes, on the host."""

    count: int
    """Sequences."""
    size: int
    """Lanes, `count` or more."""
    inputs: Ints
    """int64[4, size]: where in the transcript the input token stands, its position, the slot its K/V goes to, and
    where in the transcript the next token goes."""
    pages: Pages
    """Blocks of every lane, the one of the new token included."""
    targets: Ints
    """int64[count]: where in the transcript each sequence's next token belongs."""

    @property
    def picks(self) -> Ints:
        """int64[count]: the row of the logits each token is taken from."""
        return np.arange(self.count)

    @property
    def contexts(self) -> Ints:
        """int64[size]: tokens of each lane after the step."""
        contexts: Ints = self.inputs[1] + 1
        return contexts


def pages_of(table: npt.NDArray[np.int32], rows: Ints, contexts: Ints, block_size: int, size: int) -> Pages:
    """List the blocks of `rows` that hold their first `contexts` tokens; lanes up to `size` have the null block."""
    counts = np.ones(size, np.int64)
    counts[: len(rows)] = -(-contexts // block_size)
    offsets = np.zeros(size + 1, np.int32)
    counts.cumsum(out=offsets[1:])
    width = int(counts.max())
    blocks = np.zeros(int(offsets[-1]), np.int32)
    used = np.arange(width) < counts[: len(rows), None]
    blocks[: int(offsets[len(rows)])] = table[rows, :width][used]
    last = np.ones(size, np.int32)
    last[: len(rows)] = (contexts - 1) % block_size + 1
    return Pages(offsets, blocks, last)


def make_lanes(
    table: npt.NDArray[np.int32],
    block_size: int,
    rows: Ints,
    names: Ints,
    starts: Ints,
    said: Ints,
    size: int,
    spare: int,
) -> Lanes:
    """Lay out a step.

    Args:
        table: int32[rows, width], the block table.
        block_size: tokens a block.
        rows: int64[n], rows of the table.
        names: int64[n], where each sequence begins in the transcript.
        starts: int64[n], tokens in the cache.
        said: int64[n], where each new token is written: its place, or `spare` if that is decided already.
        size: lanes, n or more.
        spare: a place in the transcript that belongs to no sequence.

    """
    count = len(rows)
    inputs = np.zeros((4, size), np.int64)
    inputs[[0, 3]] = spare
    inputs[0, :count] = names + starts
    inputs[1, :count] = starts
    inputs[2, :count] = table[rows, starts // block_size].astype(np.int64) * block_size + starts % block_size
    inputs[3, :count] = said
    return Lanes(count, size, inputs, pages_of(table, rows, starts + 1, block_size, size), names + starts + 1)
