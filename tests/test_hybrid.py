"""Hybrid models by hand: what pages are made of, what each paging wastes, and what a prefix hit is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from allocators import registry
from allocators.answers import Ask, Grant, Reason, Refusal
from allocators.base import Allocator
from allocators.content import Segments
from allocators.groups import PAGINGS, Group, Piece, cut, parse
from allocators.hybrid import HybridAllocator
from allocators.ideal import GroupedIdeal, IdealAllocator
from allocators.pieces import PiecePool
from allocators.runs import key_in
from allocators.table import Ints
from sim.models.geometry import resolve_model
from sim.setup import facts_of
from tests.conformance.cases import audit

GEMMA3 = "sliding 40x8192/1024, full 8x8192"
JAMBA = "state 28x311296, full 4x4096"
QWEN3_NEXT = "state 36x1097728, full 12x2048"
GEOMETRIES = {
    "gemma-2-9b": "sliding 21x8192/4096, full 21x8192",
    "gemma-3-12b": GEMMA3,
    "gpt-oss-20b": "sliding 12x2048/128, full 12x2048",
    "jamba-v0.1": JAMBA,
    "qwen3-next-80b": QWEN3_NEXT,
}


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


def made(groups: str, paging: str, pages: int = 64, **options: Any) -> HybridAllocator:
    """Make a pool of some pages for sequences of up to 8192 tokens."""
    measure = registry.measure("hybrid", {"groups": groups, "paging": paging})
    options = {"max_model_len": 8192, "max_rows": 4, **options}
    allocator = registry.create("hybrid", num_blocks=pages * measure.multiple, groups=groups, paging=paging, **options)
    assert isinstance(allocator, HybridAllocator)
    return allocator


def grown(allocator: HybridAllocator, tokens: int) -> int:
    """Admit a sequence one token shorter and let it grow, so that windows have been left; returns its row."""
    answer = allocator.admit(Ask(Segments([], 1), tokens - 1, tokens - 1))
    assert isinstance(answer, Grant)
    assert allocator.grow(ints(answer.row), ints(tokens)).refusal is None
    return answer.row


def ints(*values: int) -> Ints:
    return np.array(values, np.int64)


# A sequence of 2000 tokens holds, in blocks of 16: 125 of full attention; of a window of 1,024 the last 1,023 tokens
# and so 64 of blocks 61 to 124; of a window of 128 8 of blocks 117 to 124; of a window of 4,096 all 125.
MIB = 2**20
WASTE = [
    # Pages of 5 MiB, of which full attention's 1 MiB: 125 x 4 MiB are padding.
    ("gemma-3-12b", "uniform", 125 * 5 * MIB + 64 * 5 * MIB, 125 * 4 * MIB, 0),
    # Six groups of 8 layers in pages of 1 MiB.
    ("gemma-3-12b", "even", 125 * MIB + 5 * 64 * MIB, 0, 0),
    # Pages of 5 MiB that hold 5 blocks of full attention or one of the others.
    ("gemma-3-12b", "common-multiple", 125 * MIB + 64 * 5 * MIB, 0, 0),
    # 12 layers of either kind: 384 KiB a block.
    ("gpt-oss-20b", "uniform", (125 + 8) * 384 * 1024, 0, 0),
    ("gpt-oss-20b", "common-multiple", (125 + 8) * 384 * 1024, 0, 0),
    ("gemma-2-9b", "even", (125 + 125) * 21 * 8192 * 16, 0, 0),
    # A block grows to 544 tokens, 8.5 MiB, to be as large as the states' 8,716,288 B: 4 blocks, 176 tokens empty.
    ("jamba-v0.1", "uniform", (1 + 4) * 544 * 16384, 544 * 16384 - 8_716_288, 176 * 16384),
    # Seven groups of 4 recurrent layers, 1,245,184 B each; a block is 80 tokens: exactly 25 of them.
    ("jamba-v0.1", "even", (7 + 25) * 80 * 16384, 7 * (80 * 16384 - 1_245_184), 0),
    ("jamba-v0.1", "common-multiple", 8_716_288 + 125 * 16 * 16384, 0, 0),
    # 36 recurrent layers, 1,097,728 B each; blocks of 1,616 tokens, or of 544 with groups of 12 layers.
    ("qwen3-next-80b", "uniform", 3 * 1616 * 24576, 1616 * 24576 - 39_518_208, 1232 * 24576),
    ("qwen3-next-80b", "even", (3 + 4) * 544 * 24576, 3 * 544 * 24576 - 39_518_208, 176 * 24576),
    ("qwen3-next-80b", "common-multiple", 39_518_208 + 125 * 16 * 24576, 0, 0),
]


@pytest.mark.parametrize(("name", "paging", "held", "padding", "empty"), WASTE)
def test_what_a_sequence_of_2000_tokens_holds_and_wastes(
    name: str, paging: str, held: int, padding: int, empty: int
) -> None:
    allocator = made(GEOMETRIES[name], paging, pages=800)
    grown(allocator, 2000)
    usage, slot = allocator.usage(), allocator.cut.slot_bytes
    live = 2000 * allocator.token_slots + usage.states - usage.dropped
    assert usage.held * slot == held
    assert usage.rounding * slot == padding
    assert (usage.held - usage.rounding - live) * slot == empty
    audit(allocator)


def test_blocks_are_those_of_vllm_s_example() -> None:
    """As on the design page of vLLM: 10 full and 20 sliding layers, window 32, 112 tokens: blocks 0-6, 7-8 and 9-10."""
    allocator = made("full 10x64, sliding 20x64/32", "even")
    row = grown(allocator, 112)
    assert [int(np.count_nonzero(table[row])) for table in allocator.tables] == [7, 2, 2]
    assert allocator.usage().held == 11 * allocator.block_size


def test_layers_that_do_not_divide_evenly_make_a_last_group_of_fewer() -> None:
    pieces = cut(parse("full 5x64, sliding 2x64/32"), 16, "even").attention
    assert [(piece.group.kind, piece.group.layers) for piece in pieces] == [
        ("full", 2), ("full", 2), ("full", 1), ("sliding", 2)
    ]  # fmt: skip
    assert [piece.padding for piece in pieces] == [0, 0, 16, 0]  # slots of 64 bytes: one layer's of two


def test_a_block_of_the_largest_attention_is_no_smaller_than_the_largest_state() -> None:
    """300 bytes take five blocks of 4 tokens of 16 bytes; by the smaller attention they would take ten."""
    made = cut(parse("full 1x8, sliding 2x8/7, state 1x100, state 3x100"), 4, "uniform")
    assert (made.tokens, made.block_slots * made.slot_bytes) == (20, 320)


def test_a_page_of_jenga_s_is_the_least_common_multiple() -> None:
    """Jenga, figure 6: pieces of 2 KiB and of 3 KiB in pages of 6 KiB."""
    pages = cut(parse("full 2x64, sliding 3x64/8"), 16, "common-multiple")
    assert pages.page_blocks * pages.block_slots * pages.slot_bytes == 6 * 1024
    assert [piece.pieces for piece in pages.attention] == [3, 2]


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_sizes_are_whole_numbers_of_slots_and_blocks(name: str, paging: str) -> None:
    groups = parse(GEOMETRIES[name])
    pages = cut(groups, 16, paging)
    attention = sum(group.size for group in groups if group.kind != "state")
    assert pages.token_slots * pages.slot_bytes == attention == resolve_model(name).kv_bytes_per_token
    assert pages.state_slots * pages.slot_bytes == resolve_model(name).state_bytes
    for piece in [*pages.states, *pages.attention]:
        assert piece.full + piece.padding == piece.blocks * pages.block_slots
        assert piece.pieces * piece.blocks == pages.page_blocks


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
