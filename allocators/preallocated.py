"""One slot of `max_model_len` tokens per sequence, laid out in advance (FasterTransformer; transformers' StaticCache).

The pool is a row of equal slots, like a tensor of shape [batch, max_model_len, ...]; what
remains at its end is a hole that is too small for any sequence.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from types import MappingProxyType
from typing import TYPE_CHECKING

from allocators.compiled import mypyc_attr
from allocators.options import BLOCK_SIZE
from allocators.placement import Placement, Span
from allocators.reserving import RunAllocator

if TYPE_CHECKING:
    from collections.abc import Iterator


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Slots(Placement):
    """Equal spans at fixed addresses; the lowest free one is taken."""

    def __init__(self, blocks: int, length: int) -> None:
        """Cover `blocks` with slots of `length` blocks."""
        super().__init__(blocks)
        self._length = length
        self._starts = list(range(0, blocks - length + 1, length))  # a heap of free slots
        heapify(self._starts)

    def size(self, need: int) -> int:
        """Return the length of a slot, or of the request if no slot is long enough."""
        return max(need, self._length)

    def take(self, need: int) -> Span | None:
        """Take the lowest free slot."""
        if need > self._length or not self._starts:
            return None
        self.free -= self._length
        return Span(heappop(self._starts), self._length)

    def give(self, span: Span) -> None:
        """Free a slot."""
        self.free += self._length
        heappush(self._starts, span.start)

    def holes(self) -> Iterator[Span]:
        """Yield the free slots, and the remainder of the pool if there is one."""
        for start in sorted(self._starts):
            yield Span(start, self._length)
        if remainder := self.blocks % self._length:
            yield Span(self.blocks - remainder, remainder)

    def largest(self) -> int:
        """Return the length of a slot while one is free; nothing can be given from the remainder."""
        return self._length if self._starts else 0


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PreallocatedAllocator(RunAllocator):
    """Every sequence holds memory for the longest one."""

    kind = "preallocated"
    options = MappingProxyType({"block_size": BLOCK_SIZE._replace(default=1)})

    def __init__(self, num_blocks: int, block_size: int, max_model_len: int, max_rows: int = 256) -> None:
        """Cut a pool into slots of `max_model_len` tokens, rounded up to blocks."""
        slots = Slots(num_blocks, -(-max_model_len // max(block_size, 1)))
        super().__init__(slots, num_blocks, block_size, max_model_len, max_rows)

    def reservation(self, prompt: int, output: int | None) -> int:
        """See `RunAllocator.reservation`: always `max_model_len`."""
        return self.max_model_len
