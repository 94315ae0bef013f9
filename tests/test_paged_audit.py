"""`check` finds every corruption: each case breaks one thing in a pool where everything is going on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from allocators.answers import Ask, Grant, Refusal
from allocators.content import Segments
from allocators.errors import CorruptionError
from allocators.paged import PagedAllocator


def busy() -> PagedAllocator:
    """A pool with held, shared, half-full, cached, evicted, left behind and swapped blocks.

    Row 0 has left its first block behind; rows 1 and 2 share a last block that is not full
    with row 0 of the host; blocks 12 and 13 are cached.
    """
    allocator = PagedAllocator(16, 4, 64, 8, prefix_cache=True, sliding_window=9, host_blocks=8)
    for name, tokens in enumerate((12, 6, 9)):
        assert isinstance(allocator.admit(Ask(Segments([], tail=name), tokens, tokens)), Grant)
    allocator.grow(np.array([0]), np.array([14]))
    allocator.fork(1)
    shared = allocator.fork(1).row
    assert not isinstance(allocator.swap_out(shared), Refusal)
    allocator.release(2)
    allocator.fork(1, content=Segments([], tail=1))
    allocator.check()
    assert all(allocator.usage()[at] for at in (0, 1, 3, 4, 5))
    assert allocator.host.of_device.any()
    assert allocator.tails
    return allocator


def put(array: Any, index: Any, value: int) -> None:
    array[index] = value


def hole(allocator: PagedAllocator) -> None:
    queue = allocator.pool.queue
    queue._cells[queue._head + 1] = 0


def cycle(allocator: PagedAllocator) -> None:
    queue = allocator.pool.queue
    queue._cells[queue._head + 1] = queue._cells[queue._head]


def swapped_places(allocator: PagedAllocator) -> None:
    queue = allocator.pool.queue
    cells = queue._cells[queue._head : queue._head + 2]
    cells[:] = cells[::-1].copy()


def lost(allocator: PagedAllocator) -> None:
    allocator.pool.queue.take(1)


def held_and_free(allocator: PagedAllocator) -> None:
    allocator.pool.queue.give_back(np.array([int(allocator.table.blocks[0, 1])]))


def wrong_key(allocator: PagedAllocator) -> None:
    cache = allocator.pool.cache
    block = allocator.table.held(0)[:1]
    cache.forget(block)
    cache.enter([12345], block)


def no_key(allocator: PagedAllocator) -> None:
    allocator.pool.cache.forget(allocator.table.held(0)[:1])


def early_key(allocator: PagedAllocator) -> None:
    allocator.pool.cache.enter([12345], allocator.table.held(1)[-1:])


def orphan_key(allocator: PagedAllocator) -> None:
    allocator.pool.cache._younger[12345] = []


def key_twice(allocator: PagedAllocator) -> None:
    cache = allocator.pool.cache
    block = int(allocator.table.held(0)[0])
    cache._younger.setdefault(int(cache.key[block]), []).append(block)


def private_tail(allocator: PagedAllocator) -> None:
    """One of the holders of a shared last block goes on writing into it."""
    allocator.table.length[1] += 1


def diverged(allocator: PagedAllocator) -> None:
    """A row holds a half-full block of another in its middle."""
    block = int(allocator.table.held(1)[-1])
    old = int(allocator.table.blocks[0, 2])
    allocator.table.blocks[0, 2] = block
    allocator.pool.references[block] += 1
    allocator.pool.let_go(np.array([old]))


CORRUPTIONS: dict[str, Callable[[PagedAllocator], Any]] = {
    "a block leaks out of the table": lambda a: put(a.table.blocks, (0, 3), 0),
    "a block id out of range": lambda a: put(a.table.blocks, (0, 3), 17),
    "a negative block id": lambda a: put(a.table.blocks, (0, 3), -1),
    "a block twice in a row": lambda a: put(a.table.blocks, (0, 3), int(a.table.blocks[0, 2])),
    "a block of another row": lambda a: put(a.table.blocks, (0, 3), int(a.table.blocks[1, 0])),
    "an entry beyond a row's blocks": lambda a: put(a.table.blocks, (0, 9), 5),
    "an entry in a closed row": lambda a: put(a.table.blocks, (6, 0), 5),
    "tokens in a closed row": lambda a: put(a.table.length, 6, 5),
    "too few blocks for the tokens": lambda a: put(a.table.length, 0, 17),
    "too many blocks for the tokens": lambda a: put(a.table.length, 0, 12),
    "an open row without tokens": lambda a: a.table.open(),
    "slots that no block backs": lambda a: put(a.table.slots, 0, 20),
    "a block missing inside the window": lambda a: put(a.table.blocks, (0, slice(0, 2)), 0),
    "a reference too many": lambda a: put(a.pool.references, 3, 2),
    "a reference too few": lambda a: put(a.pool.references, int(a.table.blocks[1, 0]), 1),
    "the null block held": lambda a: put(a.pool.references, 0, 1),
    "the null block cached": lambda a: put(a.pool.cache.key, 0, 5),
    "a hole in the free queue": hole,
    "a block twice in the free queue (a cycle)": cycle,
    "free blocks in the wrong places": swapped_places,
    "a block neither held nor free": lost,
    "a block both held and free": held_and_free,
    "a free queue longer than its array": lambda a: setattr(a.pool.queue, "_tail", 1000),
    "free blocks miscounted": lambda a: setattr(a.pool.queue, "size", 3),
    "cached blocks miscounted": lambda a: setattr(a.pool, "cached", 7),
    "shared blocks miscounted": lambda a: setattr(a.pool, "shared", 7),
    "empty slots of shared blocks miscounted": lambda a: setattr(a, "shared_slack", 7),
    "entries left behind miscounted": lambda a: setattr(a, "left", 7),
    "a key of other tokens": wrong_key,
    "a full block without its key": no_key,
    "a key on a block that is not full": early_key,
    "a key without a block": orphan_key,
    "a block listed twice under its key": key_twice,
    "a key that the index does not know": lambda a: put(a.pool.cache.key, int(a.pool.queue.order()[0]), 5),
    "tokens of a row that is closed": lambda a: a.contents.update({6: Segments([], tail=1)}),
    "keys in a pool that caches nothing": lambda a: setattr(a, "prefix_cache", False),
    "a writer into a shared block unnoticed": lambda a: a.tails.clear(),
    "a row noted for a last block it has not": lambda a: a.tails.add(6),
    "a shared last block written by one holder": private_tail,
    "a half-full block in the middle of another row": diverged,
    "a host reference too many": lambda a: put(a.host.pool.references, 1, 5),
    "a host block missing": lambda a: put(a.host.table.blocks, (0, 0), 0),
    "a host block that has a key": lambda a: a.host.pool.cache.enter([5], np.array([1])),
    "twins that disagree": lambda a: a.host.of_host.fill(0),
    "a twin of a free block": lambda a: (
        a.host.of_device.fill(0),
        a.host.of_host.fill(0),
        put(a.host.of_device, 16, 1),
        put(a.host.of_host, 1, 16),
    ),
}


@pytest.mark.parametrize("case", CORRUPTIONS)
def test_check_finds_it(case: str) -> None:
    allocator = busy()
    CORRUPTIONS[case](allocator)
    with pytest.raises(CorruptionError):
        allocator.check()


def test_check_changes_nothing() -> None:
    allocator = busy()
    before = (allocator.table.blocks.copy(), allocator.pool.queue.order(), allocator.usage())
    allocator.check()
    assert (allocator.table.blocks == before[0]).all()
    assert (allocator.pool.queue.order() == before[1]).all()
    assert allocator.usage() == before[2]
