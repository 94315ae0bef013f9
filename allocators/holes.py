"""First fit and best fit: one list of holes, ordered by address (Knuth, TAOCP volume 1, section 2.5).

Requests are placed at the low end of a hole, to the block; nothing is rounded.  First fit takes
the lowest hole that is long enough; best fit the shortest, and of equally short ones the
lowest.  A freed span joins the holes that it touches.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING

from allocators.base import CorruptionError
from allocators.placement import Placement, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Holes(Placement):
    """Free spans by ascending address, in two parallel lists."""

    def __init__(self, blocks: int, *, best: bool) -> None:
        """Cover `blocks` with one hole; `best` chooses best fit over first fit."""
        super().__init__(blocks)
        self._best = best
        self._starts = [0]
        self._sizes = [blocks]

    def copy(self) -> Holes:
        """Return equal free space that changes apart from this one."""
        other = Holes(self.blocks, best=self._best)
        other.free = self.free
        other._starts, other._sizes = self._starts.copy(), self._sizes.copy()
        return other

    def take(self, need: int) -> Span | None:
        """Cut `need` blocks from the low end of the hole that the rule picks."""
        index = self._find(need)
        if index is None:
            return None
        start = self._starts[index]
        if self._sizes[index] == need:
            del self._starts[index], self._sizes[index]
        else:
            self._starts[index] += need
            self._sizes[index] -= need
        self.free -= need
        return Span(start, need)

    def _find(self, need: int) -> int | None:
        fits = (index for index, size in enumerate(self._sizes) if size >= need)
        if self._best:
            return min(fits, key=self._sizes.__getitem__, default=None)
        return next(fits, None)

    def give(self, span: Span) -> None:
        """Free a span and join it with the holes at either end."""
        start, size = span
        self.free += size
        index = bisect_left(self._starts, start)
        if index < len(self._starts) and self._starts[index] == span.stop:
            size += self._sizes.pop(index)
            del self._starts[index]
        if index and self._starts[index - 1] + self._sizes[index - 1] == start:
            self._sizes[index - 1] += size
        else:
            self._starts.insert(index, start)
            self._sizes.insert(index, size)

    def holes(self) -> Iterator[Span]:
        """Yield the holes by ascending address."""
        yield from map(Span, self._starts, self._sizes)

    def check(self, held: Iterable[Span]) -> None:
        """Also: holes ascend and no two touch."""
        super().check(held)
        holes = list(self.holes())
        for low, high in pairwise(holes):
            if low.stop >= high.start:
                raise CorruptionError(f"holes at {low.start} and {high.start} are out of order or have not joined")
