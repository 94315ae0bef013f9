"""The paged allocator by example.  Everything it can do at random is in `test_paged_machine.py`."""

from __future__ import annotations

import pytest

from allocators.answers import Ask, Grant, Reason, Refusal
from tests.paged_pool import admit, blocks, grow, ints, pool, unique

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
