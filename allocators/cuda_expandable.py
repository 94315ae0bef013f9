"""Expandable segments of PyTorch's CUDA caching allocator (`expandable_segments:True`).

Each pool is one endless range of addresses.  Pages (2 MiB in the small pool, 20 MiB in the large
one) are mapped into it where memory is needed, at the lowest address at which a request fits
into a hole and the free blocks around it, and unmapped again from inside free blocks when the
device runs short.  Blocks know no page boundaries, so free neighbours always join.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from allocators.cuda_caching import LARGE_SEGMENT, MIN_BLOCK, SMALL_SEGMENT, CudaCachingAllocator, Driver, Pool
from allocators.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDLESS = 1 << 60


class ExpandablePool(Pool):
    """Blocks in pages mapped from address `base` on."""

    def __init__(self, page: int, base: int) -> None:
        """Make a pool without pages; both numbers are multiples of `page`."""
        super().__init__(MIN_BLOCK)
        self._page = page
        self._base = base
        self._pages: list[int] = []  # addresses of mapped pages, ascending

    def best(self, size: int) -> int | None:
        """Best fit, where a block in front of a hole counts as large as it could become."""
        index = bisect_left(self._order, (size, 0))
        if index == len(self._order):
            return None
        while index + 1 < len(self._order) and self._potential(index + 1) < self._potential(index):
            index += 1
        return self._order[index][1]

    def _potential(self, index: int) -> int:
        size, address = self._order[index]
        return size + self._hole(address + size)

    def _hole(self, address: int) -> int:
        """Bytes that are not mapped from `address` on."""
        if address % self._page:
            return 0
        index = bisect_left(self._pages, address)
        return self._pages[index] - address if index < len(self._pages) else ENDLESS

    def extend(self, size: int, driver: Driver) -> int:
        """Map pages until a block of `size` bytes is free; return where.

        As in PyTorch, the limit on what is reserved is held against the segment that would
        have been asked for, so whole pages may exceed it by less than one.
        """
        start = self._lowest(size)
        while (have := self.free.get(start, 0)) < size:
            hole = start + have
            mapped = -(-min(size - have, self._hole(hole)) // self._page) * self._page
            self.reserved += mapped
            for page in range(hole, hole + mapped, self._page):
                insort(self._pages, page)
            self.put(hole, mapped)
        return start

    def _lowest(self, size: int) -> int:
        """Return the lowest address from which a hole and free blocks, one after the other, are `size` bytes."""
        ends = [self._base, *(page + self._page for page in self._pages)]
        for hole in ends:
            if not self._hole(hole):
                continue
            start = self._free_end.get(hole, hole)
            end = hole
            while end - start < size and (step := self.free.get(end, 0) or self._hole(end)):
                end += step
            if end - start >= size:
                return start
        raise CorruptionError("the addresses behind the last page have run out")

    def releasable(self) -> int:
        """Bytes of pages that are wholly free."""
        return sum(stop - start for _, start, stop in self._idle())

    def give_back(self, driver: Driver) -> None:
        """Unmap pages that are wholly free."""
        for address, start, stop in list(self._idle()):
            end = address + self._remove(address)
            if address < start:
                self._insert(address, start - address)
            if stop < end:
                self._insert(stop, end - stop)
            del self._pages[bisect_left(self._pages, start) : bisect_left(self._pages, stop)]
            self.reserved -= stop - start

    def _idle(self) -> Iterator[tuple[int, int, int]]:
        """Yield (address of a free block, first page inside it, end of the last)."""
        for address, size in self.free.items():
            start = -(-address // self._page) * self._page
            stop = (address + size) // self._page * self._page
            if start < stop:
                yield address, start, stop

    def extents(self) -> list[tuple[int, int]]:
        """(address, size) of each range of mapped pages, ascending."""
        ranges: list[tuple[int, int]] = []
        for page in self._pages:
            if ranges and sum(ranges[-1]) == page:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + self._page)
            else:
                ranges.append((page, self._page))
        return ranges


def expandable(capacity: int) -> CudaCachingAllocator:
    """Make a caching allocator with expandable segments."""
    base = ENDLESS // LARGE_SEGMENT * LARGE_SEGMENT
    small, large = ExpandablePool(SMALL_SEGMENT, 0), ExpandablePool(LARGE_SEGMENT, base)
    return CudaCachingAllocator(capacity, small=small, large=large)
