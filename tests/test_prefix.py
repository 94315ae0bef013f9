"""Prefix caching: what the keys of blocks stand for, and which blocks a look-up finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocators.answers import MISS, Ask, Grant, Reason, Refusal
from allocators.content import Content, Media, Segments, Tokens, _mixed, _mixed_one
from allocators.paged import PagedAllocator
from allocators.prefix import PrefixCache
from allocators.runs import Run

tokens = st.lists(st.integers(0, 2), max_size=24)
pieces = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=5)


def pool(blocks: int = 8, size: int = 4, **options: Any) -> PagedAllocator:
    return PagedAllocator(blocks, size, 64, 4, prefix_cache=True, **options)


def serve(allocator: PagedAllocator, content: Content, length: int) -> tuple[int, list[int], int]:
    """Admit a prompt; returns its row, its blocks and the tokens hit."""
    hit = allocator.lookup(content, length)
    grant = allocator.admit(Ask(content, length, length, hit))
    assert isinstance(grant, Grant)
    return grant.row, allocator.table.row(grant.row).tolist(), hit.tokens


# -- keys ------------------------------------------------------------------------------------------


@given(first=tokens, second=tokens, size=st.integers(1, 5))
def test_keys_agree_exactly_as_far_as_the_tokens_do(first: list[int], second: list[int], size: int) -> None:
    ours, theirs = (Tokens(each).keys(size, len(each) // size) for each in (first, second))
    for index, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        end = (index + 1) * size
        assert (one == other) == (first[:end] == second[:end])


@given(first=pieces, second=pieces, size=st.integers(1, 5))
def test_segments_agree_as_the_tokens_they_stand_for_would(
    first: list[tuple[int, int]], second: list[tuple[int, int]], size: int
) -> None:
    def spelled(parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(name, place) for name, length in parts for place in range(length)]

    def keys(parts: list[tuple[int, int]]) -> list[int]:
        count = sum(length for _, length in parts) // size
        return Segments(parts, tail=9).keys(size, count)[:count]

    for index, (one, other) in enumerate(zip(keys(first), keys(second), strict=False)):
        end = (index + 1) * size
        assert (one == other) == (spelled(first)[:end] == spelled(second)[:end])


@given(parts=pieces, size=st.integers(1, 5), known=st.integers(0, 9), order=st.permutations(range(12)))
def test_a_key_alone_is_the_one_in_the_list(
    parts: list[tuple[int, int]], size: int, known: int, order: list[int]
) -> None:
    content, keys = Segments(parts, tail=9, root=7), Segments(parts, tail=9, root=7).keys(size, 12)
    content.keys(size, known)
    assert [content.key(size, index) for index in order] == [keys[index] for index in order]


def test_an_output_that_becomes_part_of_the_next_prompt_is_the_same_content() -> None:
    turn = Segments([(1, 6)], tail=2)
    following = Segments([(1, 6), (2, 10), (3, 4)], tail=4)
    assert turn.keys(4, 4)[:4] == following.keys(4, 4)[:4]
    assert turn.keys(4, 5)[4] != following.keys(4, 5)[4]


@given(parts=pieces, tail=st.integers(0, 3), at=st.integers(0, 24), size=st.integers(1, 5), known=st.integers(0, 6))
def test_a_branch_is_the_same_up_to_where_it_branches(
    parts: list[tuple[int, int]], tail: int, at: int, size: int, known: int
) -> None:
    parent = Segments(parts, tail, root=7)
    parent.keys(size, known)
    child = parent.branch(at, tail=99)
    alike = min(at // size, 8)
    assert child.keys(size, 8)[:alike] == parent.keys(size, 8)[:alike]
    assert not set(child.keys(size, 8)[at // size : 8]) & set(parent.keys(size, 8)[at // size : 8])


@given(before=tokens, one=tokens, other=tokens, size=st.integers(1, 5))
def test_tokens_branch_extend_and_forget(before: list[int], one: list[int], other: list[int], size: int) -> None:
    parent = Tokens(before)
    child = parent.branch(len(before))
    parent.extend(one)
    child.extend(other)
    for content, spelled in ((parent, before + one), (child, before + other)):
        assert content.keys(size, len(spelled) // size) == Tokens(spelled).keys(size, len(spelled) // size)
        content.truncate(len(before))
        content.extend(other)
    spelled = before + other
    assert parent.keys(size, len(spelled) // size) == Tokens(spelled).keys(size, len(spelled) // size)


def test_tokens_that_are_not_known_have_no_key() -> None:
    with pytest.raises(ValueError, match="only 5 are known"):
        Tokens(range(5)).keys(4, 2)


def test_a_root_keeps_namespaces_apart() -> None:
    keys = [Tokens(range(8), root).keys(4, 2) for root in (0, 1, 2)]
    assert len({key for each in keys for key in each}) == 6


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ([Media(5, 2, 4)], [Media(5, 2, 4)], [True, True, True]),
        ([Media(5, 2, 4)], [Media(6, 2, 4)], [False, False, False]),
        ([Media(5, 5, 2)], [Media(6, 5, 2)], [True, False, False]),
        ([Media(5, 5, 2)], [Media(5, 6, 2)], [True, False, False]),
        ([Media(5, 8, 2)], [], [True, True, False]),
        ([Media(5, 12, 2)], [], [True, True, True]),
    ],
)
def test_an_image_counts_in_the_blocks_its_placeholders_touch(
    first: list[Media], second: list[Media], alike: list[bool]
) -> None:
    ours, theirs = (Tokens([0] * 12, media=media).keys(4, 3) for media in (first, second))
    assert [one == other for one, other in zip(ours, theirs, strict=True)] == alike


def test_an_image_that_ends_where_a_block_begins_is_not_in_it() -> None:
    tokens = list(range(8))
    assert Tokens(tokens, media=[Media(5, 0, 4)]).piece(4, 8) == Tokens(tokens).piece(4, 8)
    assert Tokens(tokens, media=[Media(5, 0, 5)]).piece(4, 8) != Tokens(tokens).piece(4, 8)


def test_keys_inside_a_segment_are_scrambled_as_published() -> None:
    """The first numbers of SplitMix64 from the seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [key % 2**64 for key in _mixed(1234567, 0, 4)] == published
    assert [key % 2**64 for key in _mixed(1234567 - 2**64, 2, 4)] == published[2:]
    assert [_mixed_one(seed, 3) for seed in (1234567, 1234567 - 2**64)] == _mixed(1234567, 3, 4) * 2


# -- the index -----------------------------------------------------------------------------------------


def test_the_oldest_of_several_blocks_answers_until_it_is_forgotten() -> None:
    cache = PrefixCache(8)
    cache.enter([7, 7, 9], np.array([1, 2, 3]))
    cache.enter([7], np.array([4]))
    cache.check()
    assert (cache.find(7), cache.sole(7), cache.sole(9), cache.sole(5), len(cache)) == (1, False, True, False, 4)
    cache.forget(np.array([2]))  # one that is neither the oldest nor the youngest
    assert cache.find(7) == 1
    cache.enter([7], np.array([5]))
    cache.forget(np.array([1, 3]))
    assert (cache.find(7), cache.find(9), cache.sole(7), len(cache)) == (4, 0, False, 2)
    cache.forget(np.array([5]))
    assert (cache.find(7), cache.sole(7)) == (4, True)
    cache.check()
    cache.forget(np.array([4]))
    assert (cache.find(7), cache.sole(7), len(cache)) == (0, False, 0)
    cache.check()


def test_a_block_that_gets_its_key_again_is_the_youngest() -> None:
    cache = PrefixCache(8)
    cache.enter([7, 7], np.array([1, 2]))
    cache.forget(np.array([1]))
    cache.enter([7], np.array([1]))
    assert cache.run([7]) == [2]
    cache.forget(np.array([2]))
    assert (cache.run([7]), cache.sole(7)) == ([1], True)
    cache.check()


CHANGES = st.lists(st.tuples(st.booleans(), st.dictionaries(st.integers(1, 6), st.integers(1, 3), max_size=6)))


@given(changes=CHANGES)
def test_the_index_is_what_a_list_of_blocks_for_each_key_would_be(changes: list[tuple[bool, dict[int, int]]]) -> None:
    cache, listed, carried = PrefixCache(6), {key: list[int]() for key in (1, 2, 3)}, dict[int, int]()
    for enters, those in changes:
        some = [block for block in those if enters is (block not in carried)]
        if enters:
            cache.enter([those[block] for block in some], np.array(some, np.int64))
        else:
            cache.forget(np.array(some, np.int64))
        for block in some:
            if enters:
                carried[block] = those[block]
                listed[those[block]].append(block)
            else:
                listed[carried.pop(block)].remove(block)
        cache.check()
        for key in those.values():  # others are looked for later
            assert (cache.find(key), cache.sole(key)) == (next(iter(listed[key]), 0), len(listed[key]) == 1)
    assert cache.run([1, 2]) == [blocks[0] for blocks in (listed[1], listed[1] and listed[2]) if blocks]
    assert len(cache) == len(carried)


def test_what_lost_its_key_does_not_stay_in_the_index() -> None:
    cache = PrefixCache(4)
    for key in range(1, 100):
        cache.enter([key], np.array([key % 4 + 1]))
        assert cache.find(key)
        cache.forget(np.array([key % 4 + 1]))
    assert len(cache._oldest) < 10
    cache.check()


def test_what_is_folded_is_entered_as_far_as_it_is_there_when_somebody_comes_to_the_block_before_it() -> None:
    cache, content = PrefixCache(8), Segments([], 1)
    keys = content.keys(1, 4)[:4]
    cache.enter(keys[:1], np.array([1]))
    cache.fold(keys[0], Run(content, 1, 1, 4), np.array([2, 3, 4]))
    cache.check()
    assert (cache.find(keys[1]), len(cache)) == (0, 4)
    cache.forget(np.array([4]))  # tails go first
    cache.check()
    assert not cache.unfold(keys[1:2])
    assert cache.unfold([5, keys[0]])
    assert cache.run(keys) == [1, 2, 3]
    assert not cache.unfold(keys[:1])
    cache.check()


@pytest.mark.parametrize("steps", [[[3, 2, 1]], [[3, 2], [1]], [[1], [2, 3]]])
def test_nothing_is_left_of_what_is_folded_once_its_blocks_are_taken(steps: list[list[int]]) -> None:
    cache, content = PrefixCache(4), Segments([], 1)
    keys = content.keys(1, 3)[:3]
    cache.enter(keys[:1], np.array([1]))
    cache.fold(keys[0], Run(content, 1, 1, 3), np.array([2, 3]))
    for blocks in steps:
        cache.forget(np.array(blocks))
        cache.check()
    assert len(cache) == 0
    cache.enter(keys[:2], np.array([3, 2]))
    assert not cache.unfold(keys[:1])
    assert cache.run(keys) == [3, 2]


def test_a_block_that_comes_back_to_its_run_is_only_its_last_page() -> None:
    cache, content = PrefixCache(4), Segments([], 1)
    keys = content.keys(1, 4)[:4]
    cache.fold(keys[0], Run(content, 1, 1, 3), np.array([2, 3]))
    cache.forget(np.array([2]))
    behind = cache.behind(keys[0], 0, 3)
    assert behind is not None
    behind.append(2)
    cache.mark([2], [behind.mark])
    assert cache.behind(keys[0], 1, 4) is None, "of another group there is none"
    cache.check()
    assert cache.unfold(keys[:1])
    assert [cache.find(key) for key in keys] == [0, 0, 3, 2]
    cache.check()


def test_runs_are_entered_as_they_were_computed_and_those_that_are_gone_are_dropped() -> None:
    cache, content = PrefixCache(4), Segments([], 1)
    keys = content.keys(1, 4)[:4]
    cache.fold(keys[1], Run(content, 1, 3, 4), np.array([2]))
    cache.fold(keys[0], Run(content, 1, 3, 4), np.array([1]))
    assert cache.unfold(keys)
    assert cache.find(keys[3]) == 2
    cache.forget(np.array([1, 2]))
    for other in range(2, 20):
        cache.fold(other, Run(content, 1, 3, 4), np.array([1]))
        cache.check()
        cache.forget(np.array([1]))
    assert len(cache._runs) < 10


def test_runs_whose_blocks_have_been_taken_do_not_pile_up_behind_keys_that_nobody_comes_with() -> None:
    cache = PrefixCache(40)
    for key in range(1, 1000):
        blocks = np.arange(key % 4 * 10, key % 4 * 10 + 10) + 1
        cache.forget(blocks)
        cache.fold(key, Run(Segments([], key), 1, 1, 11), blocks)
        cache.check()
        assert len(cache._runs) <= 5


def test_two_runs_behind_one_key_are_entered_the_older_one_first() -> None:
    cache, content = PrefixCache(6), Segments([], 1)
    keys = content.keys(1, 4)[:4]
    cache.fold(keys[0], Run(content, 1, 1, 3), np.array([2, 3]))
    cache.fold(keys[0], Run(content, 1, 1, 4), np.array([4, 5, 6]))
    cache.check()
    assert cache.unfold(keys[:1])
    assert [cache.find(key) for key in keys] == [0, 2, 3, 6]
    cache.forget(np.array([2]))
    assert cache.find(keys[1]) == 4
    cache.check()


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
