"""Prefix caching: which blocks a look-up finds, and how long they are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from allocators.answers import MISS, Ask, Grant, Reason, Refusal
from allocators.content import Content, Segments, Tokens
from allocators.paged import PagedAllocator
from allocators.prefix import PrefixCache


def pool(blocks: int = 8, size: int = 4, **options: Any) -> PagedAllocator:
    return PagedAllocator(blocks, size, 64, 4, prefix_cache=True, **options)


def serve(allocator: PagedAllocator, content: Content, length: int) -> tuple[int, list[int], int]:
    """Admit a prompt; returns its row, its blocks and the tokens hit."""
    hit = allocator.lookup(content, length)
    grant = allocator.admit(Ask(content, length, length, hit))
    assert isinstance(grant, Grant)
    return grant.row, allocator.table.row(grant.row).tolist(), hit.tokens


@pytest.mark.parametrize("window", [None, 7])
def test_tokens_that_only_one_content_has_need_no_keys_before_that_is_served(window: int | None) -> None:
    allocator, content = pool(sliding_window=window), Segments([], 1, sole=True)
    assert (allocator.lookup(content, 10), content.unheard) == (MISS, True)
    row = serve(allocator, content, 10)[0]
    assert not content.unheard
    allocator.release(row)
    assert allocator.lookup(content, 10).tokens == 8
    assert Segments([], 1).unheard is Tokens(range(4)).unheard is False


def test_a_prefix_outlives_the_sequence_that_computed_it() -> None:
    allocator = pool()
    row, first, hit = serve(allocator, Tokens(range(10)), 10)
    assert (first, hit) == ([1, 2, 3], 0)
    allocator.release(row)
    assert (allocator.usage().held, allocator.usage().cached) == (0, 8)
    _, second, hit = serve(allocator, Tokens([*range(8), 90, 91, 92, 93]), 12)
    assert (second, hit) == ([1, 2, 3], 8), "two blocks revived; the third was free and is taken first"
    allocator.check()


def test_a_block_that_is_taken_beside_empty_ones_loses_its_key() -> None:
    allocator = pool(blocks=4)
    allocator.release(serve(allocator, Tokens(range(9)), 9)[0])
    _, blocks, _ = serve(allocator, Tokens(range(50, 60)), 10)
    assert blocks == [3, 4, 2], "the last one, of which 2 slots are filled, was cached"
    assert allocator.evictions() == 1
    assert allocator.lookup(Tokens(range(9)), 9).tokens == 4
    allocator.check()


def test_a_hit_never_covers_the_last_token() -> None:
    allocator = pool()
    serve(allocator, Tokens(range(8)), 8)
    assert allocator.lookup(Tokens(range(8)), 8).tokens == 4
    assert allocator.lookup(Tokens(range(9)), 9).tokens == 8


def test_two_requests_of_one_step_share_what_the_first_is_about_to_compute() -> None:
    allocator = pool()
    _, first, _ = serve(allocator, Tokens(range(9)), 9)
    _, second, hit = serve(allocator, Tokens(range(9)), 9)
    assert (first[:2], hit) == (second[:2], 8)
    assert allocator.usage().saved == 8


def test_only_tokens_promised_so_far_have_keys() -> None:
    allocator = pool()
    content = Tokens(range(16))
    row = allocator.admit(Ask(content, 16, 6, whole=16))
    assert isinstance(row, Grant)
    assert allocator.lookup(Tokens(range(16)), 16).tokens == 4
    allocator.grow(np.array([row.row]), np.array([8]))
    assert allocator.lookup(Tokens(range(16)), 16).tokens == 8


def test_generated_tokens_are_cached_too() -> None:
    allocator = pool()
    content = Tokens(range(6))
    row, _, _ = serve(allocator, content, 6)
    content.extend([80, 81])
    allocator.grow(np.array([row]), np.array([8]))
    assert allocator.lookup(Tokens([*range(6), 80, 81, 1]), 9).tokens == 8


def test_of_two_blocks_with_one_key_the_oldest_answers_and_neither_table_changes() -> None:
    allocator = pool()
    _, first, _ = serve(allocator, Tokens(range(8)), 8)
    _, second, _ = serve(allocator, Tokens(range(8)), 8)
    assert first == [1, 2]
    assert second == [1, 3], "the last token is computed again, in a block of its own"
    assert allocator.lookup(Tokens(range(9)), 9).blocks == (1, 2)
    allocator.release(0)
    assert allocator.lookup(Tokens(range(9)), 9).blocks == (1, 2)
    allocator.check()


def test_the_least_recently_released_goes_first_and_tails_before_heads() -> None:
    allocator = pool(blocks=4)
    first, _, _ = serve(allocator, Tokens([1] * 8), 8)
    second, _, _ = serve(allocator, Tokens([2] * 8), 8)
    allocator.release(second)
    allocator.release(first)
    third, taken, _ = serve(allocator, Tokens([3] * 12), 12)
    assert taken == [4, 3, 2]
    allocator.release(third)
    assert allocator.lookup(Tokens([1] * 9), 9).tokens == 4
    assert allocator.lookup(Tokens([2] * 9), 9) == MISS


def test_a_hit_counts_against_the_free_blocks_only_if_nobody_held_it() -> None:
    allocator = pool(blocks=3)
    row, _, _ = serve(allocator, Tokens(range(8)), 8)
    assert serve(allocator, Tokens(range(9)), 9)[1] == [1, 2, 3]
    allocator.release(1)
    allocator.release(row)
    content = Tokens(range(16))
    refusal = allocator.admit(Ask(content, 16, 16, allocator.lookup(content, 16)))
    assert isinstance(refusal, Refusal)
    assert (refusal.need, refusal.shortfall) == (4, 1)


def test_a_stale_hit_cannot_be_used_but_a_fresh_one_can() -> None:
    allocator = pool(blocks=3)
    row, _, _ = serve(allocator, Tokens(range(9)), 9)
    allocator.release(row)
    before = allocator.pool.queue.order().tolist()
    assert allocator.lookup(Tokens(range(9)), 9) == allocator.lookup(Tokens(range(9)), 9)
    assert allocator.pool.queue.order().tolist() == before, "looking changes nothing"


def test_reset_forgets_everything_once_nothing_is_held() -> None:
    allocator = pool()
    row, _, _ = serve(allocator, Tokens(range(9)), 9)
    assert allocator.reset() == Refusal(Reason.BLOCKS, need=8, shortfall=3)
    allocator.release(row)
    order = allocator.pool.queue.order().tolist()
    assert allocator.reset() is None
    assert allocator.usage().cached == 0
    assert allocator.pool.queue.order().tolist() == order
    assert allocator.lookup(Tokens(range(9)), 9) == MISS
    allocator.check()


def test_a_fork_caches_only_what_it_is_known_to_be() -> None:
    allocator = pool(blocks=16)
    content = Segments([(1, 6)], tail=2)
    row, _, _ = serve(allocator, content, 6)
    silent = allocator.fork(row).row
    known = allocator.fork(row, content=content.branch(6, tail=3)).row
    allocator.grow(np.array([row, silent, known]), np.array([8, 8, 8]))
    for tail, hit in ((2, 8), (3, 8), (4, 4)):
        assert allocator.lookup(Segments([(1, 6)], tail), 9).tokens == hit
    assert np.count_nonzero(allocator.pool.cache.key) == 3
    allocator.check()


def test_a_sequence_back_from_the_host_can_be_hit_again() -> None:
    allocator = pool(blocks=4, host_blocks=4)
    content = Tokens(range(9))
    row, _, _ = serve(allocator, content, 9)
    swap = allocator.swap_out(row)
    assert not isinstance(swap, Refusal)
    allocator.release(serve(allocator, Tokens([7] * 16), 16)[0])
    assert allocator.lookup(content, 9) == MISS
    allocator.swap_in(swap.row)
    assert allocator.lookup(content, 9).tokens == 8
    allocator.check()


@pytest.mark.parametrize("taken", [4, 12], ids=["its old blocks are still there", "they are not"])
def test_a_sequence_that_nobody_came_to_enters_no_more_blocks_when_it_is_back_until_somebody_does(taken: int) -> None:
    allocator = pool(blocks=12, host_blocks=4)
    content = Tokens(range(14))
    row, _, _ = serve(allocator, content, 14)
    swap = allocator.swap_out(row)
    assert not isinstance(swap, Refusal)
    allocator.release(serve(allocator, Tokens([7] * 4 * taken), 4 * taken)[0])
    back = allocator.swap_in(swap.row)
    assert not isinstance(back, Refusal)
    assert allocator.apart == {back.row: 1}
    other = Tokens([*range(8), 90, 91])
    hit = allocator.lookup(other, 10)
    assert hit.tokens == 8
    assert allocator.apart == {back.row: 3}, "what it has filled has been entered now"
    held = set(allocator.table.row(back.row).tolist())
    assert held.isdisjoint(hit.blocks) is (taken == 4), "the older of two blocks answers"
    allocator.check()


def test_a_sequence_that_is_back_beside_another_with_the_same_tokens_enters_all_of_its_blocks() -> None:
    allocator = pool(blocks=12, host_blocks=4)
    content = Tokens(range(14))
    row, _, _ = serve(allocator, content, 14)
    swap = allocator.swap_out(row)
    assert not isinstance(swap, Refusal)
    serve(allocator, Tokens([*range(4), 90, 91]), 6)
    back = allocator.swap_in(swap.row)
    assert not isinstance(back, Refusal)
    assert back.row in allocator.entangled or allocator.apart[back.row] == 3
    assert allocator.lookup(content, 14).tokens == 12
    allocator.check()


def test_a_sequence_that_comes_back_behind_its_nameless_fork_can_be_hit_again() -> None:
    allocator = pool(host_blocks=4)
    content = Tokens(range(9))
    row, _, _ = serve(allocator, content, 9)
    swaps = allocator.swap_out_group([row, allocator.fork(row).row])
    assert not isinstance(swaps, Refusal)
    allocator.release(serve(allocator, Tokens([7] * 32), 32)[0])
    for swap in reversed(swaps):
        allocator.swap_in(swap.row)
    assert allocator.lookup(content, 9).tokens == 8
    allocator.check()


# -- sliding windows -----------------------------------------------------------------------------------


def test_in_a_window_only_the_last_blocks_of_a_prefix_are_needed() -> None:
    allocator = pool(blocks=12, sliding_window=8)
    row, _, _ = serve(allocator, Tokens(range(21)), 20)
    allocator.grow(np.array([row]), np.array([21]))
    assert allocator.lookup(Tokens(range(21)), 21).blocks == (0, 0, 0, 4, 5)
    assert serve(allocator, Tokens(range(21)), 21)[1] == [0, 0, 0, 4, 5, 7]
    assert allocator.usage().dropped == (3 + 3) * 4
    allocator.check()


def test_in_a_window_a_short_run_at_the_start_still_counts() -> None:
    cache = PrefixCache(8)
    cache.enter([10, 11, 13], np.array([1, 2, 3]))
    assert cache.window([10, 11, 12, 13], 2) == [1, 2]
    assert cache.window([10, 12, 11, 13], 2) == [0, 0, 2, 3]
    assert cache.window([10, 12, 13, 12], 2) == [1]
    assert cache.window([12, 10], 2) == []
    assert cache.window([10, 11, 13], 4) == [1, 2, 3]
    assert cache.run([10, 12, 13]) == [1]


def test_a_token_that_attends_to_itself_alone_has_no_use_for_a_cache() -> None:
    allocator = pool(blocks=12, sliding_window=1)
    row, _, _ = serve(allocator, Tokens(range(20)), 20)
    allocator.release(row)
    assert allocator.usage().cached == 0
    assert allocator.lookup(Tokens(range(21)), 21).tokens == 0


def test_tokens_are_known_before_a_row_grows_by_them() -> None:
    allocator, content = pool(), Tokens(range(3))
    row, _, _ = serve(allocator, content, 3)
    with pytest.raises(
        ValueError, match="tokens up to 4 are asked for, but only 3 are known: extend before a row grows"
    ):
        allocator.grow(np.array([row]), np.array([4]))
    content.extend([3])
    assert allocator.grow(np.array([row]), np.array([4])).granted == 1
    assert allocator.lookup(Tokens(range(5)), 5).tokens == 4
