"""Placement: where in the pool a run of consecutive blocks goes.

A contiguous allocator has two parts: a policy that decides how much to reserve, and a placement
that finds room for it.  External fragmentation is a matter of the placement alone: free blocks in
holes that are shorter than a request cannot serve it, however many there are.  Addresses here
count blocks from 0; block ids in the table are one higher.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from allocators.compiled import mypyc_attr
from allocators.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Span(NamedTuple):
    """Consecutive blocks, `[start, start + size)`."""

    start: int
    size: int

    @property
    def stop(self) -> int:
        """The first address after the span."""
        return self.start + self.size


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Placement(ABC):
    """The free space of a pool, and the rule by which it is given out."""

    def __init__(self, blocks: int) -> None:
        """Cover the addresses 0 to `blocks` - 1, all free."""
        self.blocks = blocks
        self.free = blocks
        """Free blocks, over all holes."""

    def size(self, need: int) -> int:
        """Blocks that a request for `need` blocks takes."""
        return need

    @abstractmethod
    def take(self, need: int) -> Span | None:
        """Take a span of `size(need)` blocks; return None, and change nothing, if no hole is long enough."""

    @abstractmethod
    def give(self, span: Span) -> None:
        """Give back a span that `take` returned."""

    @abstractmethod
    def holes(self) -> Iterator[Span]:
        """Yield every hole: a span of free blocks that placement treats as one."""

    def largest(self) -> int:
        """Length of the longest hole, 0 if there is none."""
        return max((hole.size for hole in self.holes()), default=0)

    def stranded(self, need: int) -> int:
        """Free blocks in holes too short for a request for `need` blocks."""
        size = self.size(need)
        return sum(hole.size for hole in self.holes() if hole.size < size)

    def check(self, held: Iterable[Span]) -> None:
        """Raise `CorruptionError` unless the holes and the `held` spans tile the pool."""
        holes = list(self.holes())
        free = sum(hole.size for hole in holes)
        if free != self.free:
            raise CorruptionError(f"{self.free} blocks are counted free, the holes hold {free}")
        end = 0
        for span in sorted([*holes, *held]):
            if span.size < 1 or span.start != end:
                raise CorruptionError(f"blocks [{span.start}, {span.stop}) follow upon block {end - 1}")
            end = span.stop
        if end != self.blocks:
            raise CorruptionError(f"holes and runs end at block {end}, the pool at {self.blocks}")
