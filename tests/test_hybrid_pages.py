"""Pages of hybrid models: what they are made of, and what each paging wastes."""

from __future__ import annotations

import numpy as np
import pytest

from allocators.groups import PAGINGS, cut, parse
from sim.models.geometry import resolve_model
from tests.conformance.cases import audit
from tests.hybrid_pool import GEOMETRIES, grown, made

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
