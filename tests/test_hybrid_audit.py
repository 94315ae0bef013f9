"""`check` finds every corruption of a hybrid allocator, and says which it is: each case breaks one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from allocators.answers import Ask, Grant, Refusal
from allocators.content import Segments
from allocators.hybrid import HybridAllocator
from tests.audited import changes_nothing, finds

FULL, SLIDING = 1, 2
"""Groups; group 0 keeps states."""
ROW = {"state": slice(3), "full": slice(19, 23), "last full": slice(27, 31), "last sliding": slice(31, 35)}
"""Columns of row 0: a state of three blocks, then pieces of four for the full and the sliding layers in turn."""


def busy() -> HybridAllocator:
    """A pool with held, shared, half-full, cached, left behind and swapped pieces.

    Row 0, of 14 tokens, has left a piece behind; rows 1, 2 and 3 share pieces, of which two are not full,
    with row 0 of the host.
    """
    groups = "full 2x8, sliding 2x8/6, state 2x24"
    options = {"paging": "common-multiple", "prefix_cache": True, "checkpoint": 4, "host_blocks": 120, "groups": groups}
    allocator = HybridAllocator(360, 4, 64, 8, **options)
    for name, tokens in enumerate((12, 6, 9)):
        assert isinstance(allocator.admit(Ask(Segments([], tail=name), tokens, tokens)), Grant)
    allocator.grow(np.array([0]), np.array([14]))
    allocator.fork(1)
    assert not isinstance(allocator.swap_out(allocator.fork(1).row), Refusal)
    allocator.release(2)
    allocator.fork(1, content=Segments([], tail=1))
    allocator.check()
    usage = allocator.usage()
    assert all((usage.held, usage.cached, usage.saved, usage.dropped, usage.swapped, usage.states))
    assert allocator.host.of_device.any()
    assert allocator.forked == {1, 2, 3}
    assert all(allocator.pool.blank)
    assert all(allocator.pool.kept)
    return allocator


def put(array: Any, index: Any, value: Any) -> None:
    array[index] = value


def cells(allocator: HybridAllocator, name: str) -> np.ndarray:
    """The blocks of a piece of row 0."""
    return allocator.table.blocks[0, ROW[name]]


def cached_first(allocator: HybridAllocator) -> None:
    allocator.release(0)
    queue = allocator.pool.queue
    last = queue.order()[-1:]
    queue.remove(last)
    queue.give_front(last)


def wrong_key(allocator: HybridAllocator) -> None:
    cache, first = allocator.pool.cache, cells(allocator, "full")[:1].astype(np.int64)
    cache.forget(first)
    cache.enter([12345], first)


def free_twin(allocator: HybridAllocator) -> None:
    host, free = allocator.host, next(iter(allocator.pool.blank[FULL]))
    piece = int(np.flatnonzero(host.of_device)[0])
    twin = int(host.of_device[piece])
    host.of_device[piece], host.of_device[free], host.of_host[twin] = 0, twin, free


CORRUPTIONS: dict[str, tuple[Callable[[HybridAllocator], Any], str]] = {
    "an entry beyond a row's pieces": (lambda a: put(a.table.blocks, (0, 40), 5), "no row uses"),
    "an entry in a closed row": (lambda a: put(a.table.blocks, (6, 0), 5), "no row uses"),
    "tokens in a closed row": (lambda a: put(a.table.length, 6, 5), "no row uses"),
    "too few pieces for the tokens": (lambda a: put(a.table.length, 0, 17), "row 0 of 17 tokens lists"),
    "slots that no piece backs": (lambda a: put(a.table.slots, 0, 20), "row 0 of 14 tokens lists"),
    "an open row without tokens": (lambda a: a.table.open(), "of 0 tokens lists"),
    "a piece missing inside the window": (lambda a: put(cells(a, "last sliding"), ..., 0), "lacks a block of group 2"),
    "a piece twice in a row": (lambda a: put(cells(a, "last full"), ..., cells(a, "full")), "or lists one twice"),
    "a piece of another group": (
        lambda a: put(cells(a, "last full"), ..., cells(a, "last sliding")),
        "of another group as one of group 1",
    ),
    "a piece without its second block": (lambda a: put(cells(a, "full"), 1, 0), "a piece of group 1 in part"),
    "a state without its second block": (lambda a: put(cells(a, "state"), 1, 0), "a piece of group 0 in part"),
    "slots left behind miscounted": (lambda a: setattr(a, "left", 7), "left behind, counted 7"),
    "a reference too many": (lambda a: put(a.pool.references, cells(a, "full")[0], 2), "has 1 holders, counted 2"),
    "a reference too few": (lambda a: put(a.pool.references, a.table.blocks[1, 3], 1), "has 3 holders, counted 1"),
    "a page in use that is in the queue": (lambda a: a.pool.queue.give_back(np.array([1])), "pieces of page 1 are"),
    "a free page that is not in the queue": (lambda a: a.pool.queue.take(1), "0 pieces of page 8 are held"),
    "held pieces of a page miscounted": (lambda a: put(a.pool.inside, 2, 1), "of page 2 are held, counted 1"),
    "a key where no piece starts": (lambda a: a.pool.cache.enter([5], cells(a, "full")[1:2]), "does not start where"),
    "a cached page at the front of the queue": (cached_first, "would be taken before an empty one"),
    "cached pages miscounted": (lambda a: setattr(a.pool, "idle", 5), "pages are only cached, counted 5"),
    "held pieces miscounted": (lambda a: put(a.pool.held, FULL, 99), "group 1 counts"),
    "cached pieces miscounted": (lambda a: put(a.pool.cached, SLIDING, 99), "group 2 counts"),
    "shared pieces miscounted": (lambda a: put(a.pool.shared, FULL, 99), "group 1 counts"),
    "blank pieces not listed": (lambda a: a.pool.blank[SLIDING].clear(), "group 2 does not list the free pieces"),
    "cached pieces not listed": (lambda a: a.pool.kept[0].clear(), "group 0 does not list the free pieces"),
    "a host reference too many": (lambda a: put(a.host.pool.references, 1, 5), "piece 1 has 1 holders, counted 5"),
    "twins that disagree": (lambda a: a.host.of_host.fill(0), "disagree on which pieces are twins"),
    "a twin of a free piece": (free_twin, "are twins, but one of them is free"),
    "a writer into a shared piece unnoticed": (lambda a: a.forked.discard(2), "row 2 would write into a block"),
    "a row noted as forked that is closed": (lambda a: a.forked.add(6), "a row that is not open"),
    "tokens of a row that is closed": (lambda a: put(a.contents, 6, Segments([], tail=1)), "a row that is not open"),
    "a key on a piece that is not full": (
        lambda a: a.pool.cache.enter([5], cells(a, "last full")[:1]),
        "of row 0 has a key before it is full",
    ),
    "a key of other tokens": (wrong_key, "of row 0 has not the key of its tokens"),
    "a full piece without its key": (lambda a: a.pool.cache.forget(cells(a, "full")[:1]), "has not the key of"),
}


@pytest.mark.parametrize("case", CORRUPTIONS)
def test_check_finds_it(case: str) -> None:
    finds(busy(), *CORRUPTIONS[case])


def test_check_changes_nothing() -> None:
    changes_nothing(busy())
