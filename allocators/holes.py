"""First fit and best fit: one list of holes, ordered by address (Knuth, TAOCP volume 1, section 2.5).

A request takes exactly the blocks that it needs from the low end of a hole.  First fit chooses the
lowest hole that is long enough; best fit chooses the shortest, and the lowest of several equally short
ones.  A freed span is merged with the holes next to it.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING

from allocators.compiled import mypyc_attr
from allocators.errors import CorruptionError
from allocators.placement import Placement, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class FirstFit(Placement):
    """Chooses the lowest hole that is long enough.  A subclass with another rule overrides `find`."""

    def __init__(self, blocks: int) -> None:
        """Cover `blocks` with one hole."""
        super().__init__(blocks)
        self.starts = [0]
        """First block of each hole, ascending."""
        self.sizes = [blocks]
        """Blocks of each hole, in the same order."""

    def find(self, need: int) -> int | None:
        """Return the index of the hole for `need` blocks, or None.  Changes nothing."""
        return next((index for index, size in enumerate(self.sizes) if size >= need), None)

    def take(self, need: int) -> Span | None:
        """Cut `need` blocks from the low end of the hole that `find` chooses."""
        index = self.find(need)
        if index is None:
            return None
        start = self.starts[index]
        if self.sizes[index] == need:
            del self.starts[index], self.sizes[index]
        else:
            self.starts[index] += need
            self.sizes[index] -= need
        self.free -= need
        return Span(start, need)

    def give(self, span: Span) -> None:
        """Free a span and merge it with the holes next to it."""
        start, size = span
        self.free += size
        index = bisect_left(self.starts, start)
        if index < len(self.starts) and self.starts[index] == span.stop:
            size += self.sizes.pop(index)
            del self.starts[index]
        if index and self.starts[index - 1] + self.sizes[index - 1] == start:
            self.sizes[index - 1] += size
        else:
            self.starts.insert(index, start)
            self.sizes.insert(index, size)

    def holes(self) -> Iterator[Span]:
        """Yield the holes by ascending address."""
        yield from map(Span, self.starts, self.sizes)

    def check(self, held: Iterable[Span]) -> None:
        """See `Placement.check`.  Also: holes are in ascending order and no two are adjacent."""
        super().check(held)
        holes = list(self.holes())
        for low, high in pairwise(holes):
            if low.stop >= high.start:
                raise CorruptionError(f"holes at {low.start} and {high.start} are out of order or have not joined")


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class BestFit(FirstFit):
    """Chooses the shortest hole that is long enough, the lowest of several."""

    def find(self, need: int) -> int | None:
        """Return the index of the hole for `need` blocks, or None.  Changes nothing."""
        fits = (index for index, size in enumerate(self.sizes) if size >= need)
        return min(fits, key=self.sizes.__getitem__, default=None)
