"""The index of cached blocks by key: which block answers, and what becomes of those that are taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocators.content import Segments
from allocators.prefix import PrefixCache
from allocators.runs import Run


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
