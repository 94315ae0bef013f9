"""The buddy system (Knowlton 1965; Knuth, TAOCP volume 1, section 2.5).

The length of every span is a power of two, and its address a multiple of its length.  A request
takes the shortest free span that is long enough, halved until it fits.  A freed span is merged
with its *buddy* (the other half of the span that both came from) if that is free as a whole.  This
limits fragmentation and makes every operation logarithmic, at the price of rounding requests up.

A pool whose size is not a power of two is a forest of such spans, the longest first: 15,729 blocks
are 8192 + 4096 + 2048 + 1024 + 256 + 64 + 32 + 16 + 1.  The root of a tree lies at a multiple of
its size, so the buddy of a root would be a span that no tree of the forest contains.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from allocators.compiled import mypyc_attr
from allocators.errors import CorruptionError
from allocators.placement import Placement, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Buddy(Placement):
    """Spans of 1, 2, 4, ... blocks; the lowest of several equally long ones is taken."""

    def __init__(self, blocks: int) -> None:
        """Cover `blocks` with the fewest aligned powers of two."""
        super().__init__(blocks)
        self._holes: list[list[int]] = [[] for _ in range(blocks.bit_length())]  # by order; starts ascending
        start = 0
        for order in reversed(range(blocks.bit_length())):
            if blocks >> order & 1:
                self._holes[order].append(start)
                start += 1 << order

    def size(self, need: int) -> int:
        """Round up to a power of two."""
        return 1 << _order(need)

    def take(self, need: int) -> Span | None:
        """Take the lowest of the shortest free spans that are long enough; what is cut off stays free."""
        order = _order(need)
        for found in range(order, len(self._holes)):
            if self._holes[found]:
                break
        else:
            return None
        start = self._holes[found].pop(0)
        for cut in range(order, found):
            insort(self._holes[cut], start + (1 << cut))
        self.free -= 1 << order
        return Span(start, 1 << order)

    def give(self, span: Span) -> None:
        """Free a span, and merge it with its buddy as long as that is free too."""
        start, size = span
        self.free += size
        order = _order(size)
        while True:
            peers = self._holes[order]
            buddy = start ^ (1 << order)
            index = bisect_left(peers, buddy)
            if index == len(peers) or peers[index] != buddy:
                insort(peers, start)
                return
            peers.pop(index)
            start = min(start, buddy)
            order += 1

    def holes(self) -> Iterator[Span]:
        """Yield the free spans, short ones first."""
        for order, starts in enumerate(self._holes):
            for start in starts:
                yield Span(start, 1 << order)

    def check(self, held: Iterable[Span]) -> None:
        """See `Placement.check`.  Also: spans are aligned, and no two buddies are both free."""
        held = list(held)
        super().check(held)
        for span in [*self.holes(), *held]:
            if span.size & (span.size - 1) or span.start % span.size:
                raise CorruptionError(f"blocks [{span.start}, {span.stop}) are no aligned power of two")
        for order, starts in enumerate(self._holes):
            pairs = {start for start in starts if start ^ (1 << order) in starts}
            if pairs:
                raise CorruptionError(f"free buddies of {1 << order} blocks at {sorted(pairs)} have not joined")


def _order(size: int) -> int:
    """Exponent of the smallest power of two that is at least `size`."""
    return (size - 1).bit_length()
