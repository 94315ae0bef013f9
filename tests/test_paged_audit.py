"""`check` finds every corruption, and says which: each case breaks one thing in a pool where all is going on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from allocators.answers import Ask, Grant, Refusal
from allocators.content import Segments
from allocators.paged import PagedAllocator
from tests.audited import changes_nothing, finds


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
    for row in list(allocator.apart):
        allocator.rejoin(row)
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


def cached_first(allocator: PagedAllocator) -> None:
    queue = allocator.pool.queue
    last = queue.order()[-1:]
    queue.remove(last)
    queue.give_front(last)


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


CORRUPTIONS: dict[str, tuple[Callable[[PagedAllocator], Any], str]] = {
    "a block leaks out of the table": (lambda a: put(a.table.blocks, (0, 3), 0), "row 0 lacks a block"),
    "a block id out of range": (lambda a: put(a.table.blocks, (0, 3), 17), "outside 1 to 16"),
    "a negative block id": (lambda a: put(a.table.blocks, (0, 3), -1), "outside 1 to 16"),
    "a block twice in a row": (
        lambda a: put(a.table.blocks, (0, 3), int(a.table.blocks[0, 2])),
        "row 0 lists a block twice",
    ),
    "a block of another row": (
        lambda a: put(a.table.blocks, (0, 3), int(a.table.blocks[1, 0])),
        "block 4 has 4 holders, counted 3",
    ),
    "an entry beyond a row's blocks": (lambda a: put(a.table.blocks, (0, 9), 5), "no row uses"),
    "an entry in a closed row": (lambda a: put(a.table.blocks, (6, 0), 5), "no row uses"),
    "tokens in a closed row": (lambda a: put(a.table.length, 6, 5), "no row uses"),
    "too few blocks for the tokens": (lambda a: put(a.table.length, 0, 17), "row 0 of 17 tokens lists 4 blocks"),
    "too many blocks for the tokens": (lambda a: put(a.table.length, 0, 12), "row 0 of 12 tokens lists 4 blocks"),
    "an open row without tokens": (lambda a: a.table.open(), "of 0 tokens lists 0 blocks"),
    "slots that no block backs": (lambda a: put(a.table.slots, 0, 20), "row 0 of 4 blocks claims 20 slots"),
    "a block missing inside the window": (lambda a: put(a.table.blocks, (0, slice(0, 2)), 0), "row 0 lacks a block"),
    "a reference too many": (lambda a: put(a.pool.references, 3, 2), "block 3 has 1 holders, counted 2"),
    "a reference too few": (
        lambda a: put(a.pool.references, int(a.table.blocks[1, 0]), 1),
        "block 4 has 3 holders, counted 1",
    ),
    "the null block held": (lambda a: put(a.pool.references, 0, 1), "block 0 has 0 holders, counted 1"),
    "the null block cached": (lambda a: a.pool.cache.enter([5], np.array([0])), "the null block is cached"),
    "a key that a window has passed, uncounted": (lambda a: a.passed.update({5: 1}), "windows have passed"),
    "a key that its block does not carry": (lambda a: put(a.pool.cache.key, 2, 5), "carry a key, 5 are listed"),
    "a cached block at the front of the queue": (cached_first, "a cached block would be taken before one that is not"),
    "tokens of a row that nobody enters": (lambda a: a._entangled.clear(), "neither apart nor entangled"),
    "a last key of a row that is not apart": (lambda a: put(a.tips, 5, 0), "cannot be found by its last key"),
    "a hole in the free queue": (hole, "the free queue has 10 blocks, counted 11"),
    "a block twice in the free queue (a cycle)": (cycle, "in the free queue twice"),
    "free blocks in the wrong places": (swapped_places, "stands in cell"),
    "a block neither held nor free": (lost, "the free queue does not hold exactly"),
    "a block both held and free": (held_and_free, "the free queue does not hold exactly"),
    "a free queue longer than its array": (lambda a: setattr(a.pool.queue, "_tail", 1000), "the free queue runs from"),
    "free blocks miscounted": (lambda a: setattr(a.pool.queue, "size", 3), "the free queue has 11 blocks, counted 3"),
    "cached blocks miscounted": (lambda a: setattr(a.pool, "cached", 7), "3 blocks are cached, counted 7"),
    "shared blocks miscounted": (lambda a: setattr(a.pool, "shared", 7), "sharing avoids 4 blocks, counted 7"),
    "empty slots of shared blocks miscounted": (lambda a: setattr(a, "shared_slack", 7), "4 empty slots, counted 7"),
    "entries left behind miscounted": (lambda a: setattr(a, "left", 7), "1 table entries are left behind, counted 7"),
    "a key of other tokens": (wrong_key, "block 2 of row 0 has not the key"),
    "a full block without its key": (no_key, "block 2 of row 0 has not the key"),
    "a key on a block that is not full": (early_key, "block 5 has a key before it is full"),
    "a key without a block": (orphan_key, "a key is listed without a block"),
    "a block listed twice under its key": (key_twice, "6 blocks carry a key, 7 are listed"),
    "a key that the index does not know": (
        lambda a: put(a.pool.cache.key, int(a.pool.queue.order()[0]), 5),
        "7 blocks carry a key, 6 are listed",
    ),
    "tokens of a row that is closed": (
        lambda a: a.contents.update({6: Segments([], tail=1)}),
        "a row that is not open has tokens",
    ),
    "keys in a pool that caches nothing": (lambda a: setattr(a, "prefix_cache", False), "though nothing is cached"),
    "a writer into a shared block unnoticed": (lambda a: a.tails.clear(), "would write into block 5"),
    "a row noted for a last block it has not": (lambda a: a.tails.add(6), "a shared last block that it has not"),
    "a shared last block written by one holder": (private_tail, "block 5 is not full, but some of its holders go on"),
    "a half-full block in the middle of another row": (diverged, "sharing avoids 5 blocks, counted 4"),
    "a host reference too many": (lambda a: put(a.host.pool.references, 1, 5), "piece 1 has 1 holders, counted 5"),
    "a host block missing": (lambda a: put(a.host.table.blocks, (0, 0), 0), "row 0 lacks a block"),
    "a host block that has a key": (
        lambda a: a.host.pool.cache.enter([5], np.array([1])),
        "a piece on the host has a key",
    ),
    "twins that disagree": (lambda a: a.host.of_host.fill(0), "disagree on which pieces are twins"),
    "a twin of a free block": (
        lambda a: (
            a.host.of_device.fill(0),
            a.host.of_host.fill(0),
            put(a.host.of_device, 16, 1),
            put(a.host.of_host, 1, 16),
        ),
        "are twins, but one of them is free",
    ),
}


@pytest.mark.parametrize("case", CORRUPTIONS)
def test_check_finds_it(case: str) -> None:
    finds(busy(), *CORRUPTIONS[case])


def test_check_changes_nothing() -> None:
    changes_nothing(busy())
