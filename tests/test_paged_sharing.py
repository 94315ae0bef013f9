"""Rows of a paged pool that share blocks, on the device and across to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from allocators.answers import Copy, Reason, Refusal, Swap
from tests.paged_pool import admit, blocks, grow, ints, pool, state, unique

if TYPE_CHECKING:
    from collections.abc import Callable

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


@pytest.mark.parametrize("prefix_cache", [False, True])
@pytest.mark.parametrize("asked", range(7))
def test_it_makes_no_difference_when_holders_of_blocks_are_first_asked_for(prefix_cache: bool, asked: int) -> None:
    allocator, content, rows = pool(blocks=16, prefix_cache=prefix_cache), unique(), list[int]()
    verbs: list[Callable[[], object]] = [
        lambda: rows.append(admit(allocator, 9, content)),
        lambda: rows.append(admit(allocator, 6)),
        lambda: grow(allocator, (rows[0], 13), (rows[1], 9)),
        lambda: allocator.release(rows.pop(0)),
        lambda: rows.append(admit(allocator, 10, content)),
        lambda: rows.append(allocator.fork(rows[0]).row),
        lambda: allocator.release(rows.pop(0)),
    ]
    for place, verb in enumerate(verbs):
        if place == asked:
            assert np.count_nonzero(allocator.pool.references) == allocator.pool.held
        verb()
    held = [block for row in rows for block in blocks(allocator, row)]
    assert allocator.pool.references.tolist() == np.bincount(held, minlength=17).tolist()
    allocator.check()
