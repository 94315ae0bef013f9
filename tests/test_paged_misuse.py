"""Misuse of a paged pool: an error that names it, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest

from allocators.answers import Ask, Hit, Refusal, Swap
from allocators.errors import AllocatorError
from allocators.paged import PagedAllocator
from tests.paged_pool import admit, grow, ints, pool, state, unique


def closed(allocator: PagedAllocator) -> int:
    row = admit(allocator, 3)
    allocator.release(row)
    return row


def gone(allocator: PagedAllocator) -> int:
    swap = allocator.swap_out(row := admit(allocator, 3))
    assert isinstance(swap, Swap)
    return row


def stale(allocator: PagedAllocator) -> Hit:
    content = unique()
    row = admit(allocator, 9, content)
    allocator.release(row)
    hit = allocator.lookup(content, 9)
    assert hit.tokens == 8
    allocator.release(admit(allocator, 32))
    return Hit(hit.tokens, hit.blocks)


def hosted(allocator: PagedAllocator) -> int:
    swap = allocator.swap_out(admit(allocator, 3))
    assert isinstance(swap, Swap)
    return swap.row


def growing(allocator: PagedAllocator, *to: tuple[int, int]) -> partial[Any]:
    return partial(grow, allocator, *to)


MISUSE: dict[str, Callable[[PagedAllocator], Callable[[], Any]]] = {
    "double free": lambda a: partial(a.release, closed(a)),
    "growing a freed row": lambda a: growing(a, (closed(a), 4)),
    "growing a swapped row": lambda a: growing(a, (gone(a), 4)),
    "growing a row that never was": lambda a: growing(a, (99, 4)),
    "growing a row twice in a call": lambda a: growing(a, (row := admit(a, 4), 5), (row, 5)),
    "growing a good row and a freed one": lambda a: growing(a, (admit(a, 4), 5), (3, 4)),
    "shrinking": lambda a: growing(a, (admit(a, 4), 3)),
    "asking whether a freed row could grow": lambda a: partial(a.can_grow, ints([closed(a)]), ints([4])),
    "leaping with a freed row": lambda a: partial(a.advance, ints([closed(a)]), ints([4]), 2),
    "leaping from another length": lambda a: partial(a.advance, ints([admit(a, 3)]), ints([4]), 2),
    "forking a freed row": lambda a: partial(a.fork, closed(a)),
    "forking a swapped row": lambda a: partial(a.fork, gone(a)),
    "swapping out twice": lambda a: partial(a.swap_out, gone(a)),
    "swapping out one row twice in a group": lambda a: partial(a.swap_out_group, [admit(a, 3)] * 2),
    "swapping in what is not on the host": lambda a: partial(a.swap_in, admit(a, 3)),
    "swapping in one row twice in a group": lambda a: partial(a.swap_in_group, [hosted(a)] * 2),
    "discarding what is not on the host": lambda a: partial(a.discard, admit(a, 3)),
    "admitting nothing": lambda a: partial(a.admit, Ask(unique(), 0, 0)),
    "taking no more than the hit": lambda a: partial(a.admit, Ask(unique(), 4, 4, Hit(4, (1,)))),
    "a hit that is stale": lambda a: partial(a.admit, Ask(unique(), 9, 9, stale(a))),
}


@pytest.mark.parametrize("case", MISUSE)
@pytest.mark.parametrize("window", [None, 5])
def test_misuse_is_an_error_that_names_it_and_changes_nothing(case: str, window: int | None) -> None:
    allocator = pool(host_blocks=4, prefix_cache=True, sliding_window=window)
    call = MISUSE[case](allocator)
    before = deepcopy(state(allocator))
    with pytest.raises(AllocatorError, match=r"row|slots|leap|stale"):
        call()
    assert state(allocator) == before
    allocator.check()


def test_a_hit_without_a_cache_is_an_error() -> None:
    with pytest.raises(AllocatorError, match="no prefix cache"):
        pool().admit(Ask(unique(), 9, 9, Hit(4, (1,))))


def test_a_refused_admission_leaves_no_row_open() -> None:
    allocator = pool(blocks=1)
    before = state(allocator)
    assert isinstance(allocator.admit(Ask(unique(), 5, 5)), Refusal)
    assert state(allocator) == before


def test_the_row_that_cannot_shrink_is_named() -> None:
    allocator = pool()
    first, second = admit(allocator, 4), admit(allocator, 8)
    with pytest.raises(AllocatorError, match=rf"^row {second} is 8 tokens long and cannot shrink$"):
        grow(allocator, (first, 5), (second, 7))
