"""Virtual contiguity: page groups, what is mapped when, and what a finished sequence leaves to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allocators import registry
from allocators.answers import Grant, Mappings, Reason, Refusal
from allocators.errors import CorruptionError
from allocators.virtual import VirtualAllocator
from analysis.figures import group
from analysis.remarks import page_calls
from sim.runner import run
from tests.conformance.cases import ask, audit, ints
from workloads.loader import load

if TYPE_CHECKING:
    from pathlib import Path

LLAMA_3_8B = {"kv_tensors": 64, "tensor_token_bytes": 2048}


def make(groups: int = 8, *, deferred: bool = True, overlap: bool = False) -> VirtualAllocator:
    """Groups of 4 tokens, 10 pages each."""
    return VirtualAllocator(groups, 4, 40, 4, deferred=deferred, overlap=overlap, kv_tensors=10)


def admit(allocator: VirtualAllocator, tokens: int) -> int:
    answer = allocator.admit(ask(tokens))
    assert isinstance(answer, Grant), answer
    return answer.row


@pytest.mark.parametrize(("page_kib", "tokens"), [(64, 32), (128, 64), (256, 128), (2048, 1024)])
def test_a_block_is_as_many_tokens_as_a_page_of_one_tensor_holds(page_kib: int, tokens: int) -> None:
    """The figures of vAttention for Llama-3-8B."""
    assert registry.measure("virtual", {"page_kib": page_kib}, LLAMA_3_8B).block_size == tokens


def test_a_page_smaller_than_a_token_is_an_error() -> None:
    with pytest.raises(ValueError, match="a page of 65536 bytes is smaller than a token's 70000 bytes"):
        registry.measure("virtual", {"page_kib": 64}, {"tensor_token_bytes": 70_000})


def test_pages_are_mapped_at_their_boundaries_only() -> None:
    allocator = make()
    row = admit(allocator, 6)
    assert allocator.mappings() == Mappings(20)
    for length, mapped in ((7, 20), (8, 20), (9, 30), (12, 30), (13, 40)):
        allocator.grow(ints([row]), ints([length]))
        assert allocator.mappings().mapped == mapped
        assert allocator.usage().held == mapped // 10 * 4
        assert allocator.usage().rounding == mapped // 10 * 4 - length
    audit(allocator)


def test_nothing_is_mapped_for_samples_of_which_not_all_have_room() -> None:
    allocator = make(groups=3)
    assert allocator.admit(ask(6, samples=2)) == Refusal(Reason.BLOCKS, need=4, shortfall=1)
    assert allocator.mappings() == Mappings()


def test_a_leap_ends_where_pages_must_be_mapped() -> None:
    allocator = make()
    rows = ints([admit(allocator, 6), admit(allocator, 1)])
    leap = allocator.advance(rows, ints([6, 1]), 100)
    assert leap.steps == 2
    assert leap.held.tolist() == [12, 12]
    assert allocator.usage().rounding == 1
    assert allocator.advance(rows, ints([8, 3]), 100).steps == 0
    assert allocator.grow(rows, ints([9, 4])).granted == 2


def test_the_next_sequence_starts_in_the_pages_of_the_last() -> None:
    allocator = make()
    first = admit(allocator, 16)
    pages = allocator.table.row(first).tolist()
    allocator.release(first)
    second = admit(allocator, 6)
    assert allocator.mappings() == Mappings(40)
    assert allocator.table.row(second).tolist() == pages[:2], "from the beginning of the range"
    leap = allocator.advance(ints([second]), ints([6]), 100)
    assert leap.steps == 2
    leap = allocator.advance(ints([second]), ints([8]), 100)
    assert leap.steps == 1, "the next page is there already, so its boundary needs no call to the driver"
    assert allocator.table.row(second).tolist() == pages[:3]
    audit(allocator)


def test_a_sequence_starts_in_the_smallest_range_that_has_enough() -> None:
    allocator = make(groups=10)
    rows = [admit(allocator, tokens) for tokens in (4, 12, 8)]
    pages = [allocator.table.row(row).tolist() for row in rows]
    for row in rows:
        allocator.release(row)
    assert allocator.table.row(admit(allocator, 7)).tolist() == pages[2]
    assert allocator.table.row(admit(allocator, 20)).tolist()[:3] == pages[1], "none has enough: the largest"
    assert allocator.mappings().mapped == 80
    audit(allocator)


def test_a_range_that_has_enough_goes_before_one_that_is_as_near_but_short() -> None:
    allocator = make(groups=10)
    large, small = admit(allocator, 12), admit(allocator, 4)
    pages = allocator.table.row(large).tolist()
    for row in (large, small):
        allocator.release(row)
    assert allocator.table.row(admit(allocator, 8)).tolist() == pages[:2]


def test_idle_ranges_lose_their_last_pages_first() -> None:
    allocator = make(groups=4)
    large, small = admit(allocator, 12), admit(allocator, 4)
    pages = allocator.table.row(large).tolist()
    for row in (large, small):
        allocator.release(row)
    row = admit(allocator, 4)
    assert allocator.grow(ints([row]), ints([5])).granted == 1
    assert allocator.table.row(row).tolist()[1] == pages[2]
    assert allocator.table.row(admit(allocator, 8)).tolist() == pages[:2]
    assert allocator.mappings() == Mappings(50, 10)


def test_who_cannot_grow_is_told_what_itself_needs_and_what_lacks() -> None:
    allocator = make(groups=4)
    rows = ints([admit(allocator, 4), admit(allocator, 4)])
    growth = allocator.grow(rows, ints([8, 16]))
    assert (growth.granted, growth.refusal) == (1, Refusal(Reason.BLOCKS, 3, 2))
    assert allocator.table.length[rows].tolist() == [8, 4]
    growth = allocator.grow(rows, ints([41, 5]))
    assert (growth.granted, growth.refusal) == (0, allocator.too_long(41))


def test_calls_are_foretold_as_long_as_idle_ranges_suffice() -> None:
    allocator = make(groups=4)
    allocator.release(admit(allocator, 8))
    row, other = admit(allocator, 4), admit(allocator, 8)
    assert len(allocator.table.row(row)) == 1, "one more of its range lies ahead"
    assert allocator.calls([row]) == Mappings(0)
    assert allocator.calls([other]) is None, "a range in use must give up a group"
    allocator = make(groups=3)
    rows = [admit(allocator, 4) for _ in range(3)]
    allocator.release(rows[0])
    assert allocator.calls([rows[1]]) == Mappings(10, 10)
    allocator.append([rows[1]])
    assert allocator.mappings() == Mappings(40, 10)


def test_idle_pages_are_taken_back_when_none_is_left_over() -> None:
    allocator = make(groups=4)
    first, second = admit(allocator, 8), admit(allocator, 8)
    pages = allocator.table.row(first).tolist()
    allocator.release(first)
    allocator.release(second)
    third = admit(allocator, 16)
    assert allocator.mappings() == Mappings(60, 20)
    assert sorted(allocator.table.row(third).tolist()[2:]) == sorted(pages), "the oldest idle range gives its pages"
    audit(allocator)


def test_pages_ahead_of_a_running_sequence_are_taken_last() -> None:
    allocator = make(groups=4)
    allocator.release(admit(allocator, 16))
    small = admit(allocator, 4)
    other = admit(allocator, 8)
    assert allocator.mappings() == Mappings(60, 20)
    assert allocator.usage().held == 12
    assert len(allocator.table.row(small)) == 1
    allocator.release(other)
    audit(allocator)


def test_without_deferred_reclamation_pages_are_unmapped_at_once() -> None:
    allocator = make(deferred=False)
    allocator.release(admit(allocator, 16))
    assert allocator.mappings() == Mappings(40, 40)
    admit(allocator, 6)
    assert allocator.mappings() == Mappings(60, 40)
    audit(allocator)


def test_pages_of_decodes_are_foreseen_and_those_of_prompts_are_not() -> None:
    allocator = make(overlap=True)
    row = admit(allocator, 4)
    assert allocator.mappings() == Mappings(10)
    allocator.grow(ints([row]), ints([5]))
    assert allocator.mappings() == Mappings(20, 0, 10)
    allocator.grow(ints([row]), ints([16]))
    assert allocator.mappings() == Mappings(40, 0, 10), "a chunk of a prompt"
    allocator.release(row)
    rows = ints([admit(allocator, 4), admit(allocator, 4), admit(allocator, 12)])
    assert allocator.mappings() == Mappings(80, 0, 10)
    allocator.grow(rows, ints([5, 5, 13]))
    assert allocator.mappings() == Mappings(100, 20, 30, 20), "a page that makes way for it was foreseen too"
    audit(allocator)


def test_a_page_that_is_given_back_at_once_is_unmapped_beside_the_next_step() -> None:
    allocator = make(deferred=False, overlap=True)
    allocator.release(admit(allocator, 6))
    assert allocator.mappings() == Mappings(20, 20, 0, 20)


def test_damage_is_found() -> None:
    allocator = make()
    row = admit(allocator, 6)
    allocator.release(admit(allocator, 4))
    allocator.check()
    lost = allocator.ranges.idle.pop()
    with pytest.raises(CorruptionError, match="lost, or in two places"):
        allocator.check()
    allocator.ranges.unmapped += lost
    with pytest.raises(CorruptionError, match="pages are mapped"):
        allocator.check()
    allocator._in_use += 1
    with pytest.raises(CorruptionError, match="counted in use"):
        allocator.check()
    allocator._in_use -= 1
    allocator.table.length[row] = 1
    with pytest.raises(CorruptionError, match="has 2 groups"):
        allocator.check()


@pytest.mark.parametrize(("page_kib", "price"), [(64, 8e-6), (256, 9e-6)])
def test_the_report_tells_every_call_as_hidden_or_exposed(tmp_path: Path, page_kib: int, price: float) -> None:
    """As many requests as there are ranges, so that all pages of prompts are waited for and all of decodes hide."""
    found = {}
    for overlap in (True, False):
        file = tmp_path / "workload.yaml"
        file.write_text(
            "name: calls\nmodel: llama-3.1-8b\n"
            "device: {name: h100-80gb, kv_memory_gib: 8}\n"
            "engine: {max_num_seqs: 8, max_model_len: 2048}\n"
            "requests: {count: 8, arrivals: {kind: batch}, lengths: {kind: fixed, prompt: 500, output: 300}}\n"
            f"allocators: [{{kind: virtual, page_kib: {page_kib}, overlap: {str(overlap).lower()}}}]\n"
        )
        (entry,) = run(load(file), tmp_path / f"{overlap}").summary()
        found[overlap] = entry["metrics"]
        total = entry["metrics"]["mapping_hidden_s"] + entry["metrics"]["mapping_exposed_s"]
        assert total == pytest.approx(entry["metrics"]["mapped_pages"] * price)
        assert "steps waited" in page_calls(group([entry]))[0]
    tokens = page_kib // 2
    prompts = 8 * 64 * -(-500 // tokens)
    assert found[True]["mapped_pages"] == found[False]["mapped_pages"] == 8 * 64 * -(-799 // tokens)
    assert found[True]["mapping_exposed_s"] == pytest.approx(prompts * price)
    assert found[False]["mapping_hidden_s"] == 0
    assert found[True]["e2e_s"]["mean"] < found[False]["e2e_s"]["mean"]
