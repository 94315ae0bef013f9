"""PyTorch's CUDA caching allocator, which decides where each tensor lies (c10/cuda/CUDACachingAllocator.cpp).

`cudaMalloc` and `cudaFree` are slow, so PyTorch asks for large *segments*, cuts *blocks* from
them, and keeps what is freed.  One stream is modelled, with default settings:

* Sizes are rounded up to 512 bytes.
* Tensors up to 1 MiB come from the small pool, whose segments are 2 MiB; others from the large
  pool, whose segments are 20 MiB for tensors below 10 MiB, else the tensor's size rounded up to 2 MiB.
* A request takes the smallest free block of its pool that is large enough, of equal ones the
  lowest (best fit).  What is left over is split off if it is at least 512 bytes (small pool)
  or more than 1 MiB (large pool); otherwise the block is handed out whole.
* A freed block joins its free neighbours in the segment.
* Where no block fits, a segment is requested from the device; if the device has no room, every
  wholly free segment is given back and the request repeated once; then it is out of memory.

With `expandable_segments` each pool grows inside one range of addresses instead
(`allocators.cuda_expandable`).

Where segments lie is up to the driver, and matters only for the choice between equally large blocks.
Agrees with PyTorch 2.11 on an H100, request by request (tests/test_cuda_caching.py).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from copy import copy
from typing import NamedTuple, Self

from allocators.errors import AllocatorError, CorruptionError

MIN_BLOCK = 512
SMALL_SIZE = 1 << 20
SMALL_SEGMENT = 2 << 20
LARGE_SEGMENT = 20 << 20
MIN_LARGE = 10 << 20
ROUND_LARGE = 2 << 20


class OutOfMemory(NamedTuple):
    """The answer no to a request for memory."""

    size: int
    """Bytes asked for, rounded up."""
    room: int
    """Bytes that the device had left after all that could be given back was."""


def round_size(size: int) -> int:
    """Bytes that a tensor of `size` bytes takes."""
    return max(MIN_BLOCK, -(-size // MIN_BLOCK) * MIN_BLOCK)


def segment_size(size: int) -> int:
    """Bytes asked of the device for a block of `size` (rounded) bytes."""
    if size <= SMALL_SIZE:
        return SMALL_SEGMENT
    if size < MIN_LARGE:
        return LARGE_SEGMENT
    return -(-size // ROUND_LARGE) * ROUND_LARGE


class Driver:
    """Where cudaMalloc puts a segment: at the lowest address where it fits."""

    def __init__(self) -> None:
        """Start with all addresses free."""
        self.segments: list[tuple[int, int]] = []  # (address, size), ascending

    def copy(self) -> Self:
        """Return an equal driver that changes apart from this one."""
        other = copy(self)
        other.segments = self.segments.copy()
        return other

    def malloc(self, size: int) -> int:
        """Return the address of a new segment."""
        address = 0
        for start, length in self.segments:
            if start - address >= size:
                break
            address = start + length
        insort(self.segments, (address, size))
        return address

    def free(self, address: int, size: int) -> None:
        """Take a segment back."""
        self.segments.remove((address, size))


class Pool:
    """Blocks cut from segments, of which free neighbours are always joined."""

    def __init__(self, smallest_rest: int) -> None:
        """Make an empty pool that splits off what is left over if it is at least `smallest_rest` bytes."""
        self.used: dict[int, int] = {}
        """Blocks in use: address -> size."""
        self.free: dict[int, int] = {}
        """Free blocks: address -> size."""
        self.segments: dict[int, int] = {}
        """Segments: address -> size.  Blocks of different ones never join."""
        self.reserved = 0
        """Bytes in segments."""
        self._smallest_rest = smallest_rest
        self._order: list[tuple[int, int]] = []  # free blocks by (size, address)
        self._free_end: dict[int, int] = {}  # free blocks: end -> address

    def copy(self) -> Self:
        """Return an equal pool that changes apart from this one."""
        other = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict | list):
                setattr(other, name, value.copy())
        return other

    def best(self, size: int) -> int | None:
        """Return the address of the smallest free block of at least `size` bytes, the lowest of equal ones."""
        index = bisect_left(self._order, (size, 0))
        return self._order[index][1] if index < len(self._order) else None

    def take(self, address: int, size: int) -> int:
        """Put a free block to use and return its size; split off what is beyond `size` if that is enough."""
        granted = self._remove(address)
        if granted - size >= self._smallest_rest:
            self._insert(address + size, granted - size)
            granted = size
        self.used[address] = granted
        return granted

    def give(self, address: int) -> int:
        """Free a block in use and return its size."""
        size = self.used.pop(address)
        self.put(address, size)
        return size

    def put(self, address: int, size: int) -> None:
        """Enter free memory, joined with the free blocks on both sides within its segment."""
        end = address + size
        if end in self.free and end not in self.segments:
            size += self._remove(end)
        left = self._free_end.get(address)
        if left is not None and address not in self.segments:
            size += self._remove(left)
            address = left
        self._insert(address, size)

    def extend(self, size: int, driver: Driver) -> int:
        """Make a segment for a block of `size` bytes; return where that is free now."""
        wanted = segment_size(size)
        address = driver.malloc(wanted)
        self.segments[address] = wanted
        self.reserved += wanted
        self._insert(address, wanted)
        return address

    def releasable(self) -> int:
        """Bytes of segments that are wholly free."""
        return sum(size for address, size in self.segments.items() if self.free.get(address) == size)

    def give_back(self, driver: Driver) -> None:
        """Return segments that are wholly free to the device."""
        for address, size in list(self.segments.items()):
            if self.free.get(address) == size:
                self.reserved -= self._remove(address)
                del self.segments[address]
                driver.free(address, size)

    def _insert(self, address: int, size: int) -> None:
        insort(self._order, (size, address))
        self.free[address] = size
        self._free_end[address + size] = address

    def _remove(self, address: int) -> int:
        size = self.free.pop(address)
        del self._free_end[address + size]
        del self._order[bisect_left(self._order, (size, address))]
        return size

    def check(self) -> None:
        """Raise `CorruptionError` unless the blocks tile the segments and no two free neighbours are apart."""
        if self._order != sorted((size, address) for address, size in self.free.items()):
            raise CorruptionError("the order of free blocks does not list them")
        if self._free_end != {address + size: address for address, size in self.free.items()}:
            raise CorruptionError("the ends of free blocks are not theirs")
        blocks = sorted([*self.used.items(), *self.free.items()])
        if sum(length for _, length in self.extents()) != self.reserved:
            raise CorruptionError(f"{self.reserved} bytes are counted reserved")
        for start, length in self.extents():
            address, was_free = start, False
            while blocks and blocks[0][0] < start + length:
                at, size = blocks.pop(0)
                if at != address:
                    raise CorruptionError(f"no block of segment {start} begins at {address}")
                if was_free and at in self.free:
                    raise CorruptionError(f"free blocks meet at {at} and have not joined")
                address, was_free = at + size, at in self.free
            if address != start + length:
                raise CorruptionError(f"the blocks of segment {start} end at {address}")
        if blocks:
            raise CorruptionError(f"the block at {blocks[0][0]} lies in no segment")

    def extents(self) -> list[tuple[int, int]]:
        """(address, size) of each range within which free neighbours join, ascending."""
        return sorted(self.segments.items())


class CudaCachingAllocator:
    """Two pools on a device that gives at most `capacity` bytes."""

    def __init__(
        self, capacity: int, *, small: Pool | None = None, large: Pool | None = None, driver: Driver | None = None
    ) -> None:
        """Make an allocator that has asked for nothing yet.

        Args:
            capacity: bytes that may be reserved (torch: the memory fraction of the process).
            small: pool for tensors up to 1 MiB, the usual one if None.
            large: pool for the others, likewise.
            driver: says where segments lie.

        """
        self.capacity = capacity
        self.small = small or Pool(MIN_BLOCK)
        self.large = large or Pool(SMALL_SIZE + MIN_BLOCK)
        self.driver = driver or Driver()
        self.allocated = self.peak_allocated = 0
        """Bytes in blocks that are in use (torch: allocated_bytes.all), now and at most."""
        self.peak_reserved = 0
        """Bytes in segments (torch: reserved_bytes.all) at most."""
        self.retries = 0
        """Times that segments were given back for want of room (torch: num_alloc_retries)."""

    @property
    def reserved(self) -> int:
        """Bytes in segments (torch: reserved_bytes.all)."""
        return self.small.reserved + self.large.reserved

    def copy(self) -> Self:
        """Return an equal allocator that changes apart from this one."""
        other = copy(self)
        other.small, other.large, other.driver = self.small.copy(), self.large.copy(), self.driver.copy()
        return other

    def malloc(self, size: int) -> int | OutOfMemory:
        """Return the address of a block of at least `size` bytes."""
        size = round_size(size)
        pool = self.small if size <= SMALL_SIZE else self.large
        address = pool.best(size)
        if address is None:
            address = self._extend(pool, size)
        if address is None:
            self.retries += 1
            self.small.give_back(self.driver)
            self.large.give_back(self.driver)
            address = self._extend(pool, size)
        if address is None:
            return OutOfMemory(size, self.capacity - self.reserved)
        self.allocated += pool.take(address, size)
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return address

    def _extend(self, pool: Pool, size: int) -> int | None:
        if segment_size(size) > self.capacity - self.reserved:
            return None
        address = pool.extend(size, self.driver)
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return address

    def free(self, address: int) -> None:
        """Give a block back."""
        for pool in (self.small, self.large):
            if address in pool.used:
                self.allocated -= pool.give(address)
                return
        raise AllocatorError(f"no block in use lies at address {address}")

    def releasable(self) -> int:
        """Bytes that would be given back to the device for want of room."""
        return self.small.releasable() + self.large.releasable()

    def check(self) -> None:
        """Raise `CorruptionError` unless blocks tile the segments and all sums are right."""
        for pool in (self.small, self.large):
            pool.check()
        used = sum(size for pool in (self.small, self.large) for size in pool.used.values())
        if used != self.allocated:
            raise CorruptionError(f"{used} bytes are in use, {self.allocated} are counted")
