"""The paged allocator by example.  Everything it can do at random is in `test_paged_machine.py`."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest

from allocators.answers import Ask, Copy, Grant, Hit, Reason, Refusal, Swap
from allocators.content import Content, Segments
from allocators.errors import AllocatorError
from allocators.paged import PagedAllocator
from allocators.table import Ints

_names = count(1)


def pool(blocks: int = 8, size: int = 4, longest: int = 64, **options: Any) -> PagedAllocator:
    return PagedAllocator(blocks, size, longest, 4, **options)


def unique() -> Content:
    return Segments([], tail=next(_names))


def admit(allocator: PagedAllocator, tokens: int, content: Content | None = None, prompt: int = 0) -> int:
    content = content or unique()
    hit = allocator.lookup(content, prompt or tokens)
    grant = allocator.admit(Ask(content, prompt or tokens, tokens, hit))
    assert isinstance(grant, Grant)
    return grant.row


def grow(allocator: PagedAllocator, *to: tuple[int, int]) -> Any:
    """Grow rows, given as (row, length), in one call."""
    rows, lengths = (ints(column) for column in zip(*to, strict=True))
    return allocator.grow(rows, lengths)


def ints(values: Any) -> Ints:
    return np.array(values, np.int64)


def blocks(allocator: PagedAllocator, row: int) -> list[int]:
    result: list[int] = allocator.table.row(row).tolist()
    return result


def state(allocator: PagedAllocator) -> tuple[Any, ...]:
    """All there is to know about an allocator."""
    sides = [
        (
            table.rows(),
            table.blocks.tolist(),
            table.length.tolist(),
            table.slots.tolist(),
            pool.queue.order().tolist(),
            pool.references.tolist(),
            pool.cache.key.tolist(),
        )
        for table, pool in ((allocator.table, allocator.pool), (allocator.host.table, allocator.host.pool))
    ]
    return (*sides, allocator.usage(), allocator.tails, allocator.host.of_device.tolist())


# -- blocks on demand ------------------------------------------------------------------------


def test_a_sequence_holds_just_the_blocks_its_tokens_need() -> None:
    allocator = pool(size=4)
    row = admit(allocator, 9)
    assert blocks(allocator, row) == [1, 2, 3]
    assert allocator.table.slots[row] == 12
    assert allocator.usage().held == 12
    grow(allocator, (row, 12))
    assert blocks(allocator, row) == [1, 2, 3]
    grow(allocator, (row, 13))
    assert blocks(allocator, row) == [1, 2, 3, 4]
    allocator.release(row)
    assert allocator.usage().held == 0
    allocator.check()


def test_blocks_go_back_tail_first_to_the_front() -> None:
    allocator = pool()
    first, _ = admit(allocator, 8), admit(allocator, 8)
    allocator.release(first)
    assert allocator.pool.queue.order().tolist() == [2, 1, 5, 6, 7, 8]
    assert blocks(allocator, admit(allocator, 12)) == [2, 1, 5]


@pytest.mark.parametrize("size", [1, 16, 256])
def test_every_block_size_from_token_attention_to_large_pages(size: int) -> None:
    allocator = pool(blocks=600 // size + 1, size=size, longest=600)
    row = admit(allocator, 1)
    for length in range(2, 601):
        assert grow(allocator, (row, length)).granted == 1
        assert allocator.table.count[row] == -(-length // size)
    assert allocator.usage().held - 600 < size
    allocator.check()


def test_growth_stops_at_the_first_row_that_does_not_fit() -> None:
    allocator = pool(blocks=4, size=4)
    rows = [admit(allocator, 4) for _ in range(3)]
    growth = grow(allocator, (rows[0], 5), (rows[1], 6), (rows[2], 4))
    assert growth.granted == 1
    assert growth.refusal == Refusal(Reason.BLOCKS, need=1, shortfall=1)
    assert allocator.table.length[rows].tolist() == [5, 4, 4]
    assert not allocator.can_grow(ints(rows), ints([5, 6, 4]))


def test_a_shortfall_is_what_must_become_free() -> None:
    allocator = pool(blocks=4, size=4)
    admit(allocator, 8)
    content = unique()
    refusal = allocator.admit(Ask(content, 13, 13))
    assert refusal == Refusal(Reason.BLOCKS, need=4, shortfall=2)
    assert allocator.admit(Ask(content, 13, 1, whole=13)) == refusal
    assert allocator.admit(Ask(content, 5, 5, spare=1)) == Refusal(Reason.BLOCKS, need=2, shortfall=1)
    assert allocator.admit(Ask(content, 17, 17)) == Refusal(Reason.NEVER, need=5, shortfall=3)
    assert isinstance(allocator.admit(Ask(content, 5, 5)), Grant)


@pytest.mark.parametrize(
    ("prompt", "final", "reason"),
    [(4, 32, None), (4, 33, Reason.NEVER), (32, 32, None), (4, 65, Reason.LENGTH), (65, 65, Reason.LENGTH)],
)
def test_what_can_never_run_is_said_beforehand(prompt: int, final: int, reason: Reason | None) -> None:
    answer = pool(blocks=8, size=4, longest=64).never(Ask(unique(), prompt, prompt), final)
    assert (answer and answer.reason) == reason


def test_the_watermark_counts_in_never() -> None:
    allocator = pool(blocks=8, size=4)
    assert allocator.never(Ask(unique(), 28, 28, spare=1), 28) is None
    assert allocator.never(Ask(unique(), 29, 29, spare=1), 29) == Refusal(Reason.NEVER, need=9, shortfall=1)


def test_no_sequence_outgrows_the_context() -> None:
    allocator = pool(blocks=8, size=4, longest=10)
    row, other = admit(allocator, 10), admit(allocator, 3)
    growth = grow(allocator, (other, 4), (row, 11))
    assert growth.granted == 1
    assert growth.refusal.reason is Reason.LENGTH
    assert not allocator.can_grow(ints([row]), ints([11]))
    assert allocator.advance(ints([other]), ints([4]), 100).steps == 6
    assert allocator.advance(ints([other]), ints([10]), 100).steps == 0


def test_a_sequence_that_is_too_long_is_told_so_even_if_memory_is_short_too() -> None:
    allocator = pool(blocks=2, size=4, longest=8)
    row = admit(allocator, 8)
    assert grow(allocator, (row, 9)).refusal.reason is Reason.LENGTH, "no release could help"


def test_growing_nothing_is_granted() -> None:
    allocator = pool()
    assert allocator.grow(ints([]), ints([])).granted == 0
    assert allocator.can_grow(ints([]), ints([]))
    assert allocator.advance(ints([]), ints([]), 3).steps == 3


# -- many steps at once ------------------------------------------------------------------------


def test_a_leap_tells_when_each_row_came_to_hold_more() -> None:
    allocator = pool(blocks=8, size=4)
    rows = ints([admit(allocator, 3), admit(allocator, 6)])
    leap = allocator.advance(rows, ints([3, 6]), 6)
    assert leap.steps == 6
    assert list(zip(leap.when.tolist(), leap.who.tolist(), leap.slots.tolist(), strict=True)) == [
        (1, 0, 8),
        (2, 1, 12),
        (5, 0, 12),
    ]
    assert (leap.held // 4).tolist() == [3, 4, 5, 5, 5, 6]
    assert [blocks(allocator, row) for row in rows.tolist()] == [[1, 4, 6], [2, 3, 5]]
    allocator.check()


def test_a_leap_ends_before_the_first_step_that_would_be_refused() -> None:
    allocator = pool(blocks=4, size=4)
    rows = ints([admit(allocator, 4), admit(allocator, 7)])
    assert allocator.advance(rows, ints([4, 7]), 10**9).steps == 1
    assert allocator.table.length[rows].tolist() == [5, 8]
    assert allocator.advance(rows, ints([5, 8]), 1).steps == 0
    allocator.check()


# -- forks ---------------------------------------------------------------------------------------


def test_a_fork_shares_until_one_writes_and_the_last_writer_needs_no_copy() -> None:
    allocator = pool(size=4)
    parent = admit(allocator, 6)
    children = [allocator.fork(parent).row for _ in range(2)]
    assert allocator.usage().held == 8
    assert allocator.usage().saved == 12
    growth = grow(allocator, (children[0], 7), (parent, 7), (children[1], 7))
    assert growth.copies == [Copy(2, 3), Copy(2, 4)]
    assert growth.copied == 4
    assert [blocks(allocator, row) for row in (children[0], parent, children[1])] == [[1, 3], [1, 4], [1, 2]]
    assert allocator.usage().saved == 8
    assert not grow(allocator, (parent, 8)).copies
    allocator.check()


def test_full_blocks_are_never_copied() -> None:
    allocator = pool(size=4)
    parent = admit(allocator, 8)
    child = allocator.fork(parent).row
    assert not grow(allocator, (parent, 9), (child, 9)).copies
    assert blocks(allocator, parent)[:2] == blocks(allocator, child)[:2]
    allocator.check()


def test_a_copy_needs_a_block_and_its_refusal_changes_nothing() -> None:
    allocator = pool(blocks=2, size=4)
    parent = admit(allocator, 6)
    child = allocator.fork(parent).row
    before = state(allocator)
    growth = grow(allocator, (child, 7))
    assert growth.refusal == Refusal(Reason.BLOCKS, need=1, shortfall=1)
    assert state(allocator) == before
    allocator.release(parent)
    assert not grow(allocator, (child, 7)).copies


def test_a_beam_forks_and_drops_at_every_step() -> None:
    allocator = pool(blocks=16, size=4)
    beams = [admit(allocator, 10)]
    beams += [allocator.fork(beams[0]).row for _ in range(3)]
    for length in range(11, 30):
        assert grow(allocator, *((row, length) for row in beams)).granted == 4
        beams[2:], dropped = [allocator.fork(row).row for row in beams[:2]], beams[2:]
        for row in dropped:
            allocator.release(row)
        allocator.check()
    for row in beams:
        allocator.release(row)
    assert allocator.usage().held == 0


def test_a_leap_over_a_fork_does_the_copying_step_alone() -> None:
    allocator = pool(blocks=16, size=4)
    parent = admit(allocator, 6)
    rows = ints([parent, allocator.fork(parent).row])
    leap = allocator.advance(rows, ints([6, 6]), 10)
    assert (leap.steps, leap.copies, leap.copied) == (1, [Copy(2, 3)], 2)
    assert allocator.advance(rows, ints([7, 7]), 10).steps == 10
    allocator.check()


# -- the host ------------------------------------------------------------------------------------


def test_what_is_shared_crosses_once_and_is_shared_again() -> None:
    allocator = pool(size=4, host_blocks=4)
    parent = admit(allocator, 6)
    child = allocator.fork(parent).row
    out = allocator.swap_out_group([parent, child])
    assert not isinstance(out, Refusal)
    assert [swap.moves for swap in out] == [[Copy(1, 1), Copy(2, 2)], []]
    assert (allocator.usage().held, allocator.usage().swapped) == (0, 8)
    back = [allocator.swap_in(swap.row) for swap in out]
    assert all(isinstance(swap, Swap) for swap in back)
    assert [len(swap.moves) for swap in back if isinstance(swap, Swap)] == [2, 0]
    assert (allocator.usage().held, allocator.usage().saved, allocator.usage().swapped) == (8, 6, 0)
    allocator.check()


def test_a_block_written_since_its_copy_was_made_is_another_block() -> None:
    allocator = pool(size=4, host_blocks=4)
    parent = admit(allocator, 6)
    child = allocator.fork(parent).row
    first = allocator.swap_out(parent)
    assert not grow(allocator, (child, 7)).copies, "nobody else on the device relies on it"
    second = allocator.swap_out(child)
    assert isinstance(first, Swap)
    assert isinstance(second, Swap)
    assert second.moves == [Copy(2, 3)], "the full block is there, the last one has changed"
    allocator.check()


def test_a_group_moves_whole_or_not_at_all() -> None:
    allocator = pool(size=4, host_blocks=3)
    rows = [admit(allocator, 8), admit(allocator, 8)]
    before = state(allocator)
    assert allocator.swap_out_group(rows) == Refusal(Reason.HOST, need=4, shortfall=1)
    assert state(allocator) == before
    swap = allocator.swap_out(rows[0])
    assert isinstance(swap, Swap)
    filler = admit(allocator, 20)
    before = state(allocator)
    assert allocator.swap_in(swap.row) == Refusal(Reason.BLOCKS, need=2, shortfall=1)
    assert state(allocator) == before
    allocator.release(filler)
    assert allocator.swap_in(swap.row, spare=5) == Refusal(Reason.BLOCKS, need=2, shortfall=1)
    assert isinstance(allocator.swap_in(swap.row, spare=4), Swap)
    allocator.check()


def test_a_swapped_sequence_may_end_on_the_host() -> None:
    allocator = pool(size=4, host_blocks=3)
    swap = allocator.swap_out(admit(allocator, 8))
    assert isinstance(swap, Swap)
    allocator.discard(swap.row)
    assert allocator.usage().swapped == 0
    allocator.check()


# -- sliding windows -------------------------------------------------------------------------------


def test_blocks_behind_the_window_go_back_when_the_sequence_grows() -> None:
    allocator = pool(size=4, sliding_window=6)
    row = admit(allocator, 12)
    grow(allocator, (row, 13))
    assert blocks(allocator, row) == [0, 2, 3, 1]
    assert allocator.usage().dropped == 4
    allocator.check()


def test_blocks_behind_the_window_go_back_even_if_the_growth_is_refused() -> None:
    allocator = pool(blocks=3, size=4, sliding_window=6)
    row = admit(allocator, 12)
    assert not allocator.can_grow(ints([row]), ints([20]))
    assert grow(allocator, (row, 20)).refusal == Refusal(Reason.BLOCKS, need=2, shortfall=1)
    assert blocks(allocator, row) == [0, 2, 3]
    assert allocator.can_grow(ints([row]), ints([16]))
    allocator.check()


def test_a_windowed_sequence_may_be_longer_than_the_pool() -> None:
    allocator = pool(blocks=3, size=4, longest=200, sliding_window=6)
    assert allocator.never(Ask(unique(), 4, 4), 200) is None
    assert pool(blocks=2, size=4, longest=200, sliding_window=6).never(Ask(unique(), 4, 4), 200) is not None
    row = admit(allocator, 4)
    for length in range(5, 201):
        assert grow(allocator, (row, length)).granted == 1
    allocator.check()


@pytest.mark.parametrize("window", range(1, 12))
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_never_knows_to_the_block_what_a_windowed_sequence_needs(size: int, window: int) -> None:
    def runs(blocks: int) -> bool:
        allocator = pool(blocks=blocks, size=size, longest=40, sliding_window=window)
        row = admit(allocator, 2)
        return all(grow(allocator, (row, length)).granted for length in range(3, 41))

    enough = next(blocks for blocks in range(-(-2 // size), 41) if runs(blocks))
    for blocks_, fits in ((enough - 1, False), (enough, True)):
        if blocks_:
            allocator = pool(blocks=blocks_, size=size, longest=40, sliding_window=window)
            assert (allocator.never(Ask(unique(), 2, 2), 40) is None) == fits


# -- misuse ----------------------------------------------------------------------------------------


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
