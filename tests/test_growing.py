"""Growing by concatenation: the copy, the overhead, and the closed form against every tensor placed."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from allocators.answers import Ask, Grant, Reason, Refusal
from allocators.content import Segments
from allocators.errors import CorruptionError
from allocators.growing import GrowingAllocator
from allocators.tensors import SEGMENTS, Footprints
from tests.full_pool import Case, FullPool, Requests

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allocators.table import Ints

MIB = 1 << 20
CONTENT = Segments([], 1)


def admit(allocator: GrowingAllocator, tokens: int) -> int:
    answer = allocator.admit(Ask(CONTENT, tokens, tokens))
    assert isinstance(answer, Grant), answer
    return answer.row


def test_every_token_copies_the_whole_sequence() -> None:
    allocator = GrowingAllocator(1000, 1, 100)
    rows = np.array([admit(allocator, 10), admit(allocator, 20)])
    assert allocator.grow(rows, np.array([11, 21])).copied == 30
    assert allocator.grow(rows, np.array([11, 22])).copied == 21, "a row that stays as it is copies nothing"
    leap = allocator.advance(rows, np.array([11, 22]), 3)
    assert (leap.steps, leap.copied) == (3, 33)
    assert allocator.table.count.sum() == 0


@pytest.mark.parametrize("expandable", [False, True])
def test_overhead_comes_on_top_of_every_size_and_a_longer_sequence_never_takes_less(expandable: bool) -> None:
    """100 KiB a token: 2 tensors of up to 40 MiB."""
    memory = Footprints(2, 100 << 10, 1 << 40, 410, expandable_segments=expandable)
    assert memory.footprints[0] == 0
    share = memory.footprints[1:] / (2 * memory.sizes[1:])
    assert ((share > 1) & (share < 1.2)).all()
    assert (np.diff(memory.footprints) > 0).all()


def test_small_tensors_are_rounded_to_512_bytes() -> None:
    assert Footprints(1, 100, 1 << 40, 6).sizes.tolist() == [0, 512, 512, 512, 512, 512, 1024]


def test_expandable_segments_waste_less() -> None:
    plain, expandable = (Footprints(2, MIB // 2, 1 << 40, 40, expandable_segments=each) for each in (False, True))
    assert (expandable.footprints[1:] < plain.footprints[1:]).all()


def test_the_copy_of_one_tensor_is_in_the_ledger() -> None:
    allocator = GrowingAllocator(100, 1, 50, kv_tensors=4, tensor_token_bytes=32 * 1024)
    assert allocator.usage().held == 0
    admit(allocator, 16)
    # 4 tensors of 0.5 MiB with their overhead, and one more while torch.cat runs; a slot is 128 KiB
    assert allocator.usage().held == ceil(SEGMENTS.small * 16 + 4)
    assert allocator.usage().rounding == allocator.usage().held - 16
    admit(allocator, 8)
    held = ceil(SEGMENTS.small * (16 + 8) + 4)
    assert allocator.usage().held == held, "only one tensor at a time is copied, and the largest counts"


def test_a_sequence_that_leaves_no_room_for_its_copy_can_never_run() -> None:
    allocator = GrowingAllocator(21, 1, 50, kv_tensors=4, tensor_token_bytes=32 * 1024)
    request = Ask(CONTENT, 16, 16)
    assert allocator.never(request, 16) is None
    refusal = allocator.never(request, 17)
    assert refusal is not None
    assert refusal.reason is Reason.NEVER
    assert allocator.never(Ask(CONTENT, 16, 16, whole=51), 16) == allocator.too_long(51)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_second_set_takes_what_another_sequence_as_long_would(missing: int) -> None:
    both = ceil(SEGMENTS.small * (16 + 16) + 4)
    allocator = GrowingAllocator(both - missing, 1, 50, kv_tensors=4, tensor_token_bytes=32 * 1024)
    answer = allocator.fork(admit(allocator, 16))
    assert isinstance(answer, Refusal) if missing else isinstance(answer, Grant) and answer.copied == 16


def test_what_lacks_is_told_in_blocks() -> None:
    allocator = GrowingAllocator(32, 1, 50, kv_tensors=4, tensor_token_bytes=32 * 1024)
    admit(allocator, 16)
    assert allocator.admit(Ask(CONTENT, 16, 16)) == Refusal(Reason.BLOCKS, 17, 6)
    rows = np.array([admit(allocator, 5), admit(allocator, 1)])
    growth = allocator.grow(rows, np.array([6, 11]))
    more = SEGMENTS.small * (16 + 6 + 11) + 4 - 32
    assert (growth.granted, growth.refusal) == (1, Refusal(Reason.BLOCKS, ceil(SEGMENTS.small * 10), ceil(more)))


def test_a_leap_stops_where_memory_ends() -> None:
    allocator = GrowingAllocator(32, 1, 50, kv_tensors=4, tensor_token_bytes=32 * 1024)
    rows = np.array([admit(allocator, 16)])
    leap = allocator.advance(rows, np.array([16]), 100)
    length = 16 + leap.steps
    assert not allocator.can_grow(rows, np.array([length + 1]))
    assert allocator.grow(rows, np.array([length + 1])).refusal is not None
    assert leap.held[-1] == allocator.usage().held


FULL = [
    Case(56, 4096, 6, (30, 1800), (20, 600)),
    Case(36, 5120, 5, (10, 500), (100, 700)),
    Case(64, 2048, 8, (300, 3000), (100, 900)),
    Case(32, 8192, 6, (100, 1000), (50, 300)),
]
"""Pools on which no overhead was fitted (see `tests.benchmarks.footprints`)."""


@pytest.mark.parametrize("expandable", [False, True])
@pytest.mark.parametrize("case", FULL)
def test_a_full_pool_is_as_full_as_where_every_tensor_is_placed(case: Case, expandable: bool) -> None:
    """What the closed form counts, and how many tokens fit if it decides, are within 2 % of what placement finds."""
    pool = FullPool(case, 1, expandable_segments=expandable)
    memory = Footprints(case.tensors, case.token_bytes, case.capacity, case.longest, expandable_segments=expandable)
    tokens, counted, held = [], [], []
    for step in range(120):
        lengths = pool.step()
        if step >= 50:
            tokens.append(lengths.sum())
            present = np.array(list(pool.lengths.values()))
            counted.append(memory.footprints[present].sum() + memory.sizes[present.max()])
            held.append(pool.held)
    assert np.mean(tokens) * case.tensors * case.token_bytes > 0.85 * case.capacity
    assert np.mean(counted) == pytest.approx(np.mean(held), rel=0.02)
    assert np.mean(decided(case, 1, expandable)[50:]) == pytest.approx(np.mean(tokens), rel=0.02)


def decided(case: Case, seed: int, expandable: bool) -> list[int]:
    """Return the tokens held in each of 120 steps of the same requests where the allocator decides."""
    slots = case.capacity // (case.tensors * case.token_bytes)
    model = {"kv_tensors": case.tensors, "tensor_token_bytes": case.token_bytes}
    allocator = GrowingAllocator(slots, 1, case.longest, expandable_segments=expandable, **model)
    requests = iter(Requests(case, seed))
    waiting, final, tokens = next(requests), dict[int, int](), []
    for _ in range(120):
        while isinstance(answer := allocator.admit(Ask(CONTENT, waiting[0], waiting[0])), Grant):
            final[answer.row] = sum(waiting)
            waiting = next(requests)
        while not allocator.can_grow(*grown(allocator, final)):
            allocator.release(final.popitem()[0])
        allocator.grow(*grown(allocator, final))
        tokens.append(int(allocator.table.length.sum()))
        for row in [row for row in final if allocator.table.length[row] >= final[row]]:
            allocator.release(row)
            del final[row]
    return tokens


def grown(allocator: GrowingAllocator, rows: Iterable[int]) -> tuple[Ints, Ints]:
    """Return rows and their lengths one token on."""
    some = np.array(list(rows))
    return some, allocator.table.length[some] + 1


def test_traced_tensors_hold_what_is_counted() -> None:
    """A hundred requests, one after the other at most twelve at once, every tensor placed."""
    tokens = 8192
    allocator = GrowingAllocator(
        4096, 1, 512, kv_tensors=16, tensor_token_bytes=tokens, trace_tensors=True, expandable_segments=True
    )
    assert allocator.tensors is not None
    rows = [admit(allocator, 100 + 20 * each) for each in range(8)]
    for _ in range(40):
        allocator.grow(*grown(allocator, rows))
    device = allocator.tensors.device
    assert device.allocated == int(allocator.table.length.sum()) * 16 * tokens
    assert device.peak_allocated >= device.allocated
    assert allocator.tensors.overrun == 0
    for row in rows:
        allocator.release(row)
    assert device.allocated == 0
    allocator.check()


def test_damage_is_found() -> None:
    allocator = GrowingAllocator(1000, 1, 100, trace_tensors=True)
    row = admit(allocator, 10)
    allocator.check()
    allocator.table.length[row] = allocator.table.slots[row] = 11
    with pytest.raises(CorruptionError, match="the tensors take"):
        allocator.check()
    allocator.table.slots[row] = 12
    with pytest.raises(CorruptionError, match="slots of their own"):
        allocator.check()
    allocator.table.blocks[row, 0] = 1
    with pytest.raises(CorruptionError, match="lists blocks"):
        allocator.check()


def test_a_wrong_note_of_the_longest_row_is_found() -> None:
    allocator = GrowingAllocator(1000, 1, 100)
    rows = [admit(allocator, 10), admit(allocator, 10)]
    allocator.check()
    allocator.table.length[rows] = allocator.table.slots[rows] = 9, 11  # which take as much
    with pytest.raises(CorruptionError, match="the longest row has 11 tokens, noted 10"):
        allocator.check()
