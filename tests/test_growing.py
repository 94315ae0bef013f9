"""Growing by concatenation: the copy, the shares of segments, and the closed form against every tensor placed."""

from __future__ import annotations

import numpy as np
import pytest

from allocators.base import Ask, CorruptionError, Grant, Reason, Refusal
from allocators.content import Segments
from allocators.growing import GrowingAllocator
from allocators.tensors import Footprints

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


def test_a_tensor_takes_its_share_of_a_segment() -> None:
    """1 MiB a token: 2 tensors of 0.5 to 20 MiB."""
    memory = Footprints(2, MIB // 2, 1 << 40, 40)
    share = {tokens: memory.footprints[tokens] / 2 / MIB for tokens in (1, 2, 3, 7, 13, 19, 20, 21)}
    assert share == {1: 0.5, 2: 1, 3: 20 / 13, 7: 4, 13: 20 / 3, 19: 10, 20: 10, 21: 12} | {
        3: pytest.approx(20 / 13),
        13: pytest.approx(20 / 3),
    }


def test_small_tensors_share_segments_of_2_mib() -> None:
    memory = Footprints(1, 700 * 1024, 1 << 40, 3)
    assert memory.footprints[1] == MIB, "two of 700 KiB fit into 2 MiB"
    tiny = Footprints(1, 100, 1 << 40, 3)
    assert tiny.sizes.tolist() == [0, 512, 512, 512]


def test_expandable_segments_waste_no_ends() -> None:
    memory = Footprints(2, MIB // 2, 1 << 40, 40, expandable_segments=True)
    assert memory.footprints.tolist() == [tokens * MIB for tokens in range(41)]


def test_the_copy_of_one_tensor_is_in_the_ledger() -> None:
    allocator = GrowingAllocator(100, 1, 50, kv_tensors=4, tensor_token_bytes=32 * 1024)
    assert allocator.usage().held == 0
    admit(allocator, 16)
    # 4 tensors of 0.5 MiB, and one more while torch.cat runs; a slot is 128 KiB
    assert allocator.usage().held == 16 + 4
    assert allocator.usage().rounding == 4
    admit(allocator, 8)
    assert allocator.usage().held == 16 + 8 + 4, "only one tensor at a time is copied, and the largest counts"


def test_a_sequence_that_leaves_no_room_for_its_copy_can_never_run() -> None:
    allocator = GrowingAllocator(20, 1, 50, kv_tensors=4, tensor_token_bytes=32 * 1024)
    request = Ask(CONTENT, 16, 16)
    assert allocator.never(request, 16) is None
    refusal = allocator.never(request, 17)
    assert refusal is not None
    assert refusal.reason is Reason.NEVER


def test_what_lacks_is_told_in_blocks() -> None:
    allocator = GrowingAllocator(32, 1, 50, kv_tensors=4, tensor_token_bytes=32 * 1024)
    admit(allocator, 16)
    assert allocator.admit(Ask(CONTENT, 16, 16)) == Refusal(Reason.BLOCKS, 16, 4)


def test_a_leap_stops_where_memory_ends() -> None:
    allocator = GrowingAllocator(32, 1, 50, kv_tensors=4, tensor_token_bytes=32 * 1024)
    rows = np.array([admit(allocator, 16)])
    leap = allocator.advance(rows, np.array([16]), 100)
    length = 16 + leap.steps
    assert not allocator.can_grow(rows, np.array([length + 1]))
    assert allocator.grow(rows, np.array([length + 1])).refusal is not None
    assert leap.rounding is not None
    assert leap.rounding[-1] == allocator.usage().rounding


@pytest.mark.parametrize(
    ("tensors", "token_bytes", "mib", "seed"), [(16, 8192, 512, 0), (32, 2048, 256, 1), (16, 20480, 1024, 3)]
)
@pytest.mark.parametrize("expandable", [False, True])
def test_the_closed_form_is_close_to_every_tensor_placed(
    tensors: int, token_bytes: int, mib: int, seed: int, expandable: bool
) -> None:
    """A full pool with sequences coming, growing, being preempted and leaving for 300 steps."""
    slots = mib * MIB // (tensors * token_bytes)
    allocator = GrowingAllocator(
        slots,
        1,
        2048,
        kv_tensors=tensors,
        tensor_token_bytes=token_bytes,
        trace_tensors=True,
        expandable_segments=expandable,
    )
    assert allocator.tensors is not None
    device = allocator.tensors.device
    draw = np.random.default_rng(seed)
    order: list[int] = []
    final: dict[int, int] = {}
    counted, placed = [], []
    for step in range(300):
        while True:
            prompt = int(draw.integers(8, 400))
            answer = allocator.admit(Ask(CONTENT, prompt, prompt))
            if isinstance(answer, Refusal):
                break
            order.append(answer.row)
            final[answer.row] = prompt + int(draw.integers(8, 300))
        rows = np.array(order)
        while (growth := allocator.grow(rows, allocator.table.length[rows] + 1)).refusal is not None:
            last = order.pop()
            allocator.release(last)
            rows = rows[growth.granted :]
            rows = rows[rows != last]
        for row in [row for row in order if allocator.table.length[row] >= final[row]]:
            order.remove(row)
            allocator.release(row)
        if step >= 100:
            counted.append(allocator.usage().held / slots)
            placed.append((device.reserved - device.releasable()) / (slots * tensors * token_bytes))
    allocator.check()
    assert np.mean(counted) > 0.9, "the pool is kept full"
    assert 0.88 < np.mean(counted) / np.mean(placed) < 1.02


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
