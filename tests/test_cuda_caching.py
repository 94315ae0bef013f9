"""The model of the CUDA caching allocator against PyTorch itself, as recorded on an H100 (tests/gpu)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.cuda_caching import MIN_BLOCK, CudaCachingAllocator, Driver, OutOfMemory, round_size, segment_size
from allocators.cuda_expandable import expandable
from allocators.errors import AllocatorError, CorruptionError

MIB = 1 << 20


def streams() -> Iterator[list[dict[str, Any]]]:
    """Yield each recorded stream: its head, its requests, its statistics."""
    with gzip.open(Path(__file__).parent / "data" / "cuda_caching.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    starts = [index for index, line in enumerate(lines) if "stream" in line]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield lines[start:stop]


STREAMS = list(streams())


class RecordedDriver(Driver):
    """Puts segments where the real driver did."""

    def malloc(self, size: int) -> int:
        return self.address

    def free(self, address: int, size: int) -> None:
        pass


@pytest.mark.parametrize("stream", STREAMS, ids=lambda s: f"{s[0]['stream']}, expandable={s[0]['expandable']}")
def test_agrees_with_pytorch_request_by_request(stream: list[dict[str, Any]]) -> None:
    head, *requests, statistics = stream
    driver = RecordedDriver()
    memory = (
        expandable(head["capacity"]) if head["expandable"] else CudaCachingAllocator(head["capacity"], driver=driver)
    )
    blocks: dict[int, int] = {}
    for number, request in enumerate(requests):
        if "size" in request:
            driver.address = request.get("segment", -1)
            answer = memory.malloc(request["size"])
            assert isinstance(answer, OutOfMemory) == request.get("oom", False), (number, request)
            if not isinstance(answer, OutOfMemory):
                blocks[request["new"]] = answer
        elif request["free"] in blocks:
            memory.free(blocks.pop(request["free"]))
        assert (memory.allocated, memory.reserved) == (request["allocated"], request["reserved"]), (number, request)
        if number % 101 == 0:
            memory.check()
    assert memory.retries == statistics["retries"]
    assert memory.peak_allocated == statistics["peak_allocated"]
    assert memory.peak_reserved == statistics["peak_reserved"]


def test_the_recording_makes_memory_short_in_both_modes() -> None:
    for mode in (False, True):
        short = [stream for stream in STREAMS if stream[0]["expandable"] is mode and stream[-1]["retries"]]
        assert len(short) >= 2
        assert any(request.get("oom") for stream in short for request in stream)


def test_sizes_are_rounded_as_documented() -> None:
    assert [round_size(size) for size in (1, 512, 513, MIB - 1)] == [512, 512, 1024, MIB]
    assert [segment_size(size) // MIB for size in (512, MIB, MIB + 512, 10 * MIB - 512, 10 * MIB, 21 * MIB)] == [
        *(2, 2, 20, 20, 10, 22),
    ]


def test_a_small_pool_splits_to_the_last_512_bytes_and_a_large_one_above_1_mib() -> None:
    memory = CudaCachingAllocator(100 * MIB)
    small = memory.malloc(MIB)
    memory.malloc(MIB - 512)
    assert (memory.allocated, memory.reserved) == (2 * MIB - 512, 2 * MIB)
    memory.malloc(512)
    assert (memory.allocated, memory.reserved) == (2 * MIB, 2 * MIB)
    memory.malloc(20 * MIB - MIB)
    assert memory.allocated == 2 * MIB + 19 * MIB + MIB, "a rest of 1 MiB is not split off"
    assert isinstance(small, int)
    memory.free(small)
    memory.check()


def test_best_fit_takes_the_smallest_hole_and_neighbours_join() -> None:
    memory = CudaCachingAllocator(100 * MIB)
    addresses = [memory.malloc(size * 512) for size in (8, 1, 4, 1, 6, 1)]
    for index in (0, 2, 4):
        memory.free(addresses[index])
    assert memory.malloc(4 * 512) == addresses[2]
    memory.free(addresses[2])
    memory.free(addresses[1])
    assert memory.malloc(13 * 512) == addresses[0], "8 + 1 + 4 have become one hole"


def test_cached_segments_are_given_back_when_the_device_runs_short() -> None:
    memory = CudaCachingAllocator(40 * MIB)
    first = memory.malloc(19 * MIB)
    second = memory.malloc(20 * MIB)
    assert isinstance(first, int)
    assert isinstance(second, int)
    memory.free(first)
    memory.free(second)
    assert memory.reserved == memory.releasable() == 40 * MIB
    assert isinstance(memory.malloc(30 * MIB), int)
    assert (memory.retries, memory.reserved, memory.peak_reserved) == (1, 30 * MIB, 40 * MIB)
    assert memory.malloc(12 * MIB) == OutOfMemory(12 * MIB, 10 * MIB)
    memory.check()


def test_expandable_segments_grow_where_they_are() -> None:
    memory = expandable(100 * MIB)
    first = memory.malloc(15 * MIB)
    second = memory.malloc(15 * MIB)
    assert isinstance(first, int)
    assert second == first + 15 * MIB
    assert memory.reserved == 40 * MIB
    memory.check()


@pytest.mark.parametrize("make", [CudaCachingAllocator, expandable])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_stream_keeps_every_invariant_and_empties(make: Any, data: st.DataObject) -> None:
    memory = make(60 * MIB)
    blocks: list[int] = []
    for _ in range(data.draw(st.integers(1, 40))):
        if blocks and data.draw(st.booleans()):
            memory.free(blocks.pop(data.draw(st.integers(0, len(blocks) - 1))))
        else:
            size = data.draw(st.one_of(st.integers(1, 4096), st.integers(1, MIB), st.integers(MIB, 30 * MIB)))
            before = (memory.allocated, dict(memory.small.used), dict(memory.large.used))
            answer = memory.malloc(size)
            if isinstance(answer, OutOfMemory):
                assert before == (memory.allocated, memory.small.used, memory.large.used)
            else:
                blocks.append(answer)
                assert memory.allocated >= before[0] + size
        memory.check()
        assert memory.allocated <= memory.reserved <= memory.peak_reserved
    twin = memory.copy()
    for block in blocks:
        memory.free(block)
        memory.check()
    assert memory.allocated == 0
    assert memory.releasable() == memory.reserved
    twin.check()
    assert twin.allocated == sum([*twin.small.used.values(), *twin.large.used.values()])


def test_what_is_not_in_use_cannot_be_freed() -> None:
    memory = CudaCachingAllocator(MIB * 4)
    address = memory.malloc(MIN_BLOCK)
    assert isinstance(address, int)
    memory.free(address)
    with pytest.raises(AllocatorError, match="no block in use"):
        memory.free(address)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda pool: pool.used.clear(), "begins at|bytes are in use"),
        (lambda pool: pool.free.clear(), "does not list"),
        (lambda pool: setattr(pool, "reserved", 7), "counted reserved"),
        (lambda pool: pool.used.update({1 << 40: 512}), "lies in no segment"),
    ],
)
def test_damage_is_found(damage: Any, words: str) -> None:
    memory = CudaCachingAllocator(MIB * 4)
    blocks = [memory.malloc(1024) for _ in range(3)]
    assert isinstance(blocks[1], int)
    memory.free(blocks[1])
    memory.check()
    damage(memory.small)
    with pytest.raises(CorruptionError, match=words):
        memory.check()
