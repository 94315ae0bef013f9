"""The keys of blocks: what they stand for, and that they agree exactly as far as the tokens do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocators.content import Media, Segments, Tokens, _mixed, _mixed_one

tokens = st.lists(st.integers(0, 2), max_size=24)
pieces = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=5)


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
