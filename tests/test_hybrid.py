"""Hybrid models by hand: groups of layers, one group beside paging, what a prefix hit is, and the bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from allocators import registry
from allocators.answers import Ask, Grant, Reason, Refusal
from allocators.base import Allocator
from allocators.content import Segments
from allocators.groups import PAGINGS, Group, Piece, parse
from allocators.hybrid import HybridAllocator
from allocators.ideal import GroupedIdeal, IdealAllocator
from allocators.pieces import PiecePool
from allocators.runs import key_in
from sim.models.geometry import resolve_model
from sim.setup import facts_of
from tests.conformance.cases import audit
from tests.hybrid_pool import GEOMETRIES, grown, ints, made


@pytest.mark.parametrize("name", GEOMETRIES)
def test_groups_come_from_the_config_s_layer_types(name: str) -> None:
    assert facts_of(resolve_model(name))["kv_groups"] == GEOMETRIES[name]


def test_groups_are_read_as_they_are_spelled() -> None:
    groups = (Group("full", 8, 8192), Group("sliding", 40, 8192, 1024), Group("state", 28, 311296))
    assert parse(", ".join(map(str, groups))) == groups


def test_the_smallest_window_is_of_two_tokens() -> None:
    assert parse("sliding 2x8/2") == (Group("sliding", 2, 8, 2),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is not like full 8x8192"),
        ("full 8", "'full 8' is not like full 8x8192"),
        ("full 0x8", "'full 0x8': layers and bytes are at least 1"),
        ("sliding 2x8", "'sliding 2x8': a window, of at least 2 tokens, is what sliding attention has"),
        ("sliding 2x8/1", "'sliding 2x8/1': a window, of at least 2 tokens, is what sliding attention has"),
        ("full 2x8/4", "'full 2x8/4': a window, of at least 2 tokens, is what sliding attention has"),
        ("state 2x8", "no group is attention"),
    ],
)
def test_bad_groups_get_one_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"hybrid\.groups") as error:
        registry.create("hybrid", num_blocks=4, max_model_len=8, groups=text)
    assert words in str(error.value)


def play_alike(one: Allocator, other: Allocator, steps: int) -> None:
    """Drive both with the same verbs; they must answer alike, block ids included."""
    draw = np.random.default_rng(0)
    hosted: list[int] = []
    for step in range(steps):
        rows, roll = one.table.rows(), draw.random()
        if rows and roll < 0.2:
            row = int(draw.choice(rows))
            one.release(row)
            other.release(row)
        elif rows and roll < 0.3:
            row = int(draw.choice(rows))
            assert one.fork(row) == other.fork(row)
        elif rows and roll < 0.4:
            some = draw.permutation(rows)[: draw.integers(1, 3)].tolist()
            out = one.swap_out_group(some)
            assert out == other.swap_out_group(some)
            hosted += [] if isinstance(out, Refusal) else [swap.row for swap in out]
        elif hosted and roll < 0.5:
            back = one.swap_in_group(hosted[:1], 1)
            assert back == other.swap_in_group(hosted[:1], 1)
            hosted = hosted if isinstance(back, Refusal) else hosted[1:]
        elif rows and roll < 0.8:
            some = draw.permutation(rows)[: draw.integers(1, len(rows) + 1)]
            lengths = one.table.length[some] + draw.integers(0, 6, len(some))
            assert one.can_grow(some, lengths) == other.can_grow(some, lengths)
            mine, yours = one.grow(some, lengths), other.grow(some, lengths)
            assert mine._replace(copies=[]) == yours._replace(copies=[])
            assert list(mine.copies) == list(yours.copies)
        else:
            content, prompt = Segments([(-1, int(draw.integers(1, 20)))], step), int(draw.integers(2, 30))
            hit = one.lookup(content, prompt)
            assert hit == other.lookup(content, prompt)
            ask = Ask(content, prompt, hit.tokens + 1, hit, whole=int(draw.choice([0, prompt])))
            assert one.admit(ask) == other.admit(ask)
        assert one.table.rows() == other.table.rows()
        assert all((one.table.row(row) == other.table.row(row)).all() for row in one.table.rows())
        assert one.usage()._replace(states=0) == other.usage()
        assert one.evictions() == other.evictions()


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("caching", [False, True])
def test_one_group_is_paged_block_for_block(paging: str, caching: bool) -> None:
    options = {"max_model_len": 64, "block_size": 4, "prefix_cache": caching, "host_blocks": 12}
    hybrid = made("full 1x8", paging, pages=24, **options)
    play_alike(hybrid, registry.create("paged", num_blocks=24, max_rows=4, **options), steps=400)


@pytest.mark.parametrize("window", [5, 6, 13])
@pytest.mark.parametrize("caching", [False, True])
def test_one_group_with_a_window_is_paged_with_that_window(window: int, caching: bool) -> None:
    options = {"max_model_len": 64, "block_size": 4, "prefix_cache": caching, "host_blocks": 12}
    hybrid = made(f"sliding 1x8/{window}", "uniform", pages=24, **options)
    paged = registry.create("paged", num_blocks=24, max_rows=4, sliding_window=window, **options)
    play_alike(hybrid, paged, steps=400)


def test_tables_of_groups_are_views_of_one() -> None:
    allocator = made("full 2x8, sliding 4x8/7, state 2x24", "common-multiple", block_size=4)
    row = grown(allocator, 11)
    state, full, sliding = (table[row].tolist() for table in allocator.tables)
    assert all(np.shares_memory(table, allocator.table.blocks) for table in allocator.tables)
    assert state[0]
    assert [bool(block) for block in full[:4]] == [True, True, True, False]
    assert [bool(block) for block in sliding[:4]] == [False, True, True, False]  # tokens 4 to 9 are still seen
    listed = {block for table in (state, full, sliding) for block in table if block}
    assert len(listed) == 6
    held = [int(allocator.pieces[group].blocks) for group in (0, 1, 1, 1, 2, 2)]
    assert allocator.usage().held == sum(held) * allocator.block_size


# -- prefixes --------------------------------------------------------------------------------


def cached(groups: str, paging: str = "even", **options: Any) -> HybridAllocator:
    """Make a pool with a prefix cache that one sequence of 24 tokens has been through."""
    allocator = made(groups, paging, block_size=4, max_model_len=64, prefix_cache=True, checkpoint=8, **options)
    answer = allocator.admit(Ask(Segments([(-1, 24)], 9), 24, 24))
    assert isinstance(answer, Grant)
    allocator.release(answer.row)
    return allocator


@pytest.mark.parametrize("paging", PAGINGS)
def test_a_hit_is_what_all_groups_have(paging: str) -> None:
    allocator = cached("full 1x8, sliding 2x8/6", paging)
    assert allocator.lookup(Segments([(-1, 24)], 8), 25).tokens == 24
    lost = int(allocator.pool.cache.find(key_in(1, Segments([(-1, 24)], 8).key(4, 4))))
    allocator.pool.cache.forget(ints(lost))  # block 4 of the sliding layers: no hit of 5 or 6 blocks can do without it
    assert allocator.lookup(Segments([(-1, 24)], 8), 25).tokens == 16


def test_a_window_needs_only_its_last_blocks() -> None:
    allocator = cached("full 1x8, sliding 1x8/6")
    assert allocator.lookup(Segments([(-1, 24)], 8), 25).tokens == 24
    first = int(allocator.pool.cache.find(key_in(1, Segments([(-1, 24)], 8).key(4, 0))))
    allocator.pool.cache.forget(ints(first))
    hit = allocator.lookup(Segments([(-1, 24)], 8), 25)
    assert hit.tokens == 24
    assert np.array(hit.blocks).reshape(6, 2)[:, 1].tolist()[:4] == [0, 0, 0, 0], "a window of 6 reaches 2 blocks"
    allocator.pool.cache.forget(ints(hit.blocks[0]))  # full attention needs them all
    assert allocator.lookup(Segments([(-1, 24)], 8), 25).tokens == 0


@pytest.mark.parametrize("paging", PAGINGS)
def test_a_recurrent_group_resumes_at_its_checkpoints_only(paging: str) -> None:
    allocator = cached("full 1x8, state 1x8", paging)
    hits = [
        allocator.lookup(Segments([(-1, shared), (-2, 9)], 8), shared + 9).tokens for shared in (24, 23, 16, 15, 8, 7)
    ]
    assert hits == [24, 16, 16, 8, 8, 0]


def test_a_state_is_copied_before_forks_write_it() -> None:
    allocator = made("full 1x8, state 1x24", "even", block_size=4, max_model_len=64)
    row = grown(allocator, 8)
    child = allocator.fork(row).row
    held = allocator.usage().held
    growth = allocator.grow(ints(row, child), ints(9, 9))
    assert [copy.source for copy in growth.copies] == [int(allocator.tables[0][child, 0])]
    assert allocator.usage().held == held + 3 * allocator.block_size, "a state, and a block each"
    audit(allocator)


def test_pages_of_other_groups_are_no_room() -> None:
    """Free slots in pages that another group has are what a refused sequence cannot use."""
    allocator = made("full 1x8, sliding 4x8/32", "common-multiple", pages=3, block_size=4, max_model_len=64)
    first = allocator.admit(Ask(Segments([], 1), 4, 4))
    assert isinstance(first, Grant)  # one page each: of full attention's, three pieces are left
    refusal = allocator.admit(Ask(Segments([], 2), 8, 8))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.BLOCKS
    assert isinstance(allocator.admit(Ask(Segments([], 2), 4, 4)), Grant)
    refusal = allocator.admit(Ask(Segments([], 3), 4, 4))
    assert isinstance(refusal, Refusal)
    assert allocator.stranded(refusal.need) == 2 * 4


# -- the bound -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "tokens"),
    [("llama-3.1-8b", IdealAllocator, 1), ("gemma-3-12b", GroupedIdeal, 6), ("jamba-v0.1", GroupedIdeal, 1)],
)
def test_the_bound_keeps_what_each_group_needs_and_no_more(name: str, kind: type[Allocator], tokens: int) -> None:
    facts = facts_of(resolve_model(name))
    measure = registry.measure("ideal", {}, facts)
    assert measure.token_slots == tokens
    ideal = registry.create("ideal", num_blocks=40 * 532 * tokens, max_model_len=8192, max_rows=4, facts=facts)
    assert type(ideal) is kind
    answer = ideal.admit(Ask(Segments([], 1), 1999, 1999))
    assert isinstance(answer, Grant)
    ideal.grow(ints(answer.row), ints(2000))
    usage = ideal.usage()
    assert usage.held == 2000 * tokens - usage.dropped + usage.states
    assert usage.dropped == (5 * (1999 - 1023) if name == "gemma-3-12b" else 0)
    assert usage.rounding == 0
    swaps = ideal.swap_out_group([answer.row])
    assert not isinstance(swaps, Refusal)
    assert not swaps[0].moves
    assert ideal.usage().held == 0
    assert not isinstance(ideal.swap_in_group([swaps[0].row]), Refusal)
    assert ideal.usage().held == usage.held
    audit(ideal)


def test_a_window_as_long_as_the_context_is_none() -> None:
    facts = {"kv_groups": "sliding 32x4096/4096"}
    made = [registry.create("ideal", num_blocks=99, max_model_len=longest, facts=facts) for longest in (4096, 4097)]
    assert [type(each) for each in made] == [IdealAllocator, GroupedIdeal]


def test_cached_pieces_of_pages_in_use_are_spared_as_long_as_enough_pages_are_empty() -> None:
    """Pages of two pieces; more than one page shall stay empty before a cached piece is taken."""
    pool = PiecePool(8, 2, [Piece(Group("full", 1, 8), tokens=1, slots=1, blocks=1, pieces=2, padding=0)], 1)
    pool.take([2])
    pool.cache.enter([7], ints(2))
    pool.let_go(0, ints(2))
    taken = [int(pool.take([1])[0][0]) for _ in range(5)]
    assert taken == [3, 4, 5, 6, 2], "with one page left, the cached piece goes"
    assert pool.evicted == 1
    assert not pool.cache.find(7)


@pytest.mark.parametrize(("pages", "in_turns", "hit"), [(40, False, 32), (40, True, 0), (100, True, 32)])
def test_a_hit_that_lies_in_too_many_pages_for_the_pool_is_none(pages: int, in_turns: bool, hit: int) -> None:
    """Whoever takes part in it might not come to its end, although alone it would fill one page after the other."""
    groups = "full 1x8, sliding 3x8/7"
    allocator = made(groups, "common-multiple", pages, block_size=4, max_model_len=64, prefix_cache=True)
    rows = [allocator.admit(Ask(Segments([(-name, 40)], name), 4, 4)).row for name in (1, 2)]
    for some in [rows] * 28 if in_turns else [[row] for row in rows for _ in range(28)]:
        assert allocator.grow(ints(*some), allocator.table.length[some] + 1).refusal is None
    for row in rows:
        allocator.release(row)
    assert allocator.lookup(Segments([(-1, 40)], 3), 33).tokens == hit
