"""Pages: the units in which attention kernels read the blocks that an allocator hands out.

A kernel divides the work on a long sequence by pages, so they should be small; it looks each one up in a list, so they
should not be too small.  Allocators choose the size of a block for other reasons: `virtual` hands out 2 MiB, allocators
that reserve count single slots.  Where possible, blocks are therefore read as pages of the usual 16 slots (vLLM calls
this the kernel block size): a block of a multiple of 16 slots is several pages, and in a run of consecutive blocks a
page may begin anywhere.  Pages are views of the same memory, and a page is identified by the slots before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from allocators.compiled import is_a
from allocators.reserving import RunAllocator
from sim.costs.model import USUAL_BLOCK

if TYPE_CHECKING:
    import torch

    from allocators.base import Allocator

    Ints = npt.NDArray[np.int64]
    Ints32 = npt.NDArray[np.int32]


class Paging(NamedTuple):
    """How the blocks of one allocator are read."""

    block_size: int
    """Token slots of a block."""
    size: int
    """Token slots of a page."""
    step: int
    """Token slots from the start of one page to the start of the next in memory; less than `size` if they overlap."""

    @property
    def blocks_are_pages(self) -> bool:
        """Whether a page is a block."""
        return self.block_size == self.size == self.step

    def pages(self, table: Any, rows: Any, nth: Any) -> Any:
        """Return the ids of pages of sequences.

        Args:
            table: int32[rows, width], the block table: a NumPy array, or a tensor.
            rows: whole numbers, of the table.
            nth: likewise, of the same shape: which page of the sequence.

        """
        if self.blocks_are_pages:
            return table[rows, nth]
        first = nth * self.size
        return (table[rows, first // self.block_size] * self.block_size + first % self.block_size) // self.step

    def view(self, cache: torch.Tensor) -> torch.Tensor:
        """See blocks as pages: [blocks, block_size, heads, size] as [pages, page size, heads, size].

        Pages that overlap reach up to `size` - 1 slots beyond the last block.
        """
        if self.blocks_are_pages:
            return cache
        blocks, size, *shape = cache.shape
        slot, *inner = cache.stride()[1:]
        return cache.as_strided((blocks * size // self.step, self.size, *shape), (self.step * slot, slot, *inner))


def paging_of(allocator: Allocator) -> Paging:
    """Choose the pages that an allocator's blocks are read as."""
    size = allocator.block_size
    if size % USUAL_BLOCK == 0:
        return Paging(size, USUAL_BLOCK, USUAL_BLOCK)
    if is_a(allocator, RunAllocator):  # whose blocks follow one another
        return Paging(size, USUAL_BLOCK, 1)
    return Paging(size, size, size)


class Pages(NamedTuple):
    """Pages of n sequences, one sequence after the other."""

    offsets: Ints32
    """int32[n + 1]: where each begins."""
    ids: Ints32
    """int32[offsets[n]]"""
    last: Ints32
    """int32[n]: tokens in the last page of each, at least 1."""


def pages_of(table: Ints32, rows: Ints, contexts: Ints, paging: Paging, size: int) -> Pages:
    """List the pages of `rows` that hold their first `contexts` tokens; lanes up to `size` have the null block's."""
    many = len(rows)
    counts = np.ones(size, np.int64)
    counts[:many] = -(-contexts // paging.size)
    offsets = np.zeros(size + 1, np.int32)
    counts.cumsum(out=offsets[1:])
    ids = np.zeros(int(offsets[-1]), np.int32)
    if paging.blocks_are_pages:  # a shortcut in fewer passes
        begins = rows * table.shape[1] - offsets[:many]
        places = np.arange(offsets[many]) + np.repeat(begins, counts[:many])
        table.reshape(-1).take(places, out=ids[: offsets[many]], mode="clip")  # none is out of bounds: just faster
    else:
        nth = np.arange(offsets[many]) - np.repeat(offsets[:many], counts[:many])
        ids[: offsets[many]] = paging.pages(table, np.repeat(rows, counts[:many]), nth)
    last = np.ones(size, np.int32)
    last[:many] = (contexts - 1) % paging.size + 1
    return Pages(offsets, ids, last)
