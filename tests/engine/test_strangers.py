"""Allocators of somebody else's that keep a promise less than ours do: a run ends all the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from allocators.answers import NO_MAPPINGS, Mappings, Refusal, Swap
from allocators.paged import PagedAllocator
from allocators.virtual import VirtualAllocator
from sim.limits import Limits
from tests.engine.harness import Clock, Setup, ask, differences


class Careless(PagedAllocator):
    """Lets sequences come back from the host that have no room for their next token."""

    came_back = 0

    def swap_in_group(self, rows: Sequence[int], spare: int = 0) -> list[Swap] | Refusal:
        type(self).came_back += 1
        assert self.came_back < 1000, "a plan lets the same sequence come back again and again"
        return super().swap_in_group(rows)


class WithCareless(Setup):
    def allocator(self) -> Careless:
        Careless.came_back = 0
        return Careless(8, 4, 40, 4, host_blocks=40)


@pytest.mark.parametrize("scheduler", ["orca", "vllm-v0", "vllm-v1"])
def test_what_is_preempted_again_as_it_comes_back_ends_the_plan(scheduler: str) -> None:
    setup = WithCareless(scheduler, Limits(max_model_len=40, watermark=0), swap=True, instants=0)
    _, sink = setup.run(ask((0, 8, 20), (0, 8, 20), (0, 8, 12)))
    assert [row["status"] for row in sink.rows("requests")] == ["finished"] * 3
    told = [(row["event"], row["request_id"], row["time_s"]) for row in sink.rows("events")]
    assert any(("swap_out", index, time) in told for event, index, time in told if event == "swap_in")


class Unaware(VirtualAllocator):
    """Does not know of the calls that it will make, not even whether there is anything left to map."""

    def calls(self, rows: Sequence[int]) -> Mappings:
        return NO_MAPPINGS


class WithUnaware(Setup):
    def allocator(self) -> Unaware:
        return Unaware(12, 2, 40, 4, page_kib=64, kv_tensors=2, tensor_token_bytes=32768)


def test_a_leap_maps_no_more_pages_than_there_are() -> None:
    setup = WithUnaware("vllm-v1", Limits(max_model_len=40, watermark=0), instants=0)
    _, sink = setup.run(ask((0, 3, 14), (0, 4, 14), (0, 5, 14)))
    assert [row["status"] for row in sink.rows("requests")] == ["finished"] * 3
    assert {row["event"] for row in sink.rows("events")} >= {"preempt", "resume"}


class Irregular(PagedAllocator):
    """Takes blocks on demand, and promises nothing about when: the engine looks up what each sequence holds."""

    @property
    def regular(self) -> bool:
        return False


class WithIrregular(Setup):
    def allocator(self) -> Irregular:
        options: dict[str, Any] = dict(self.options)
        size = options.pop("block_size")
        return Irregular(self.slots // size, size, 40, 4, **options)


@pytest.mark.parametrize(
    ("scheduler", "budget", "block_size", "cached", "slots", "rows", "beam"),
    [
        ("vllm-v1", 3, 2, True, 89, ((4, 3, 22, 2), (6, 12, 14, 2), (8, 7, 1), (17, 5, 7, 3), (19, 3, 1, 2)), False),
        ("vllm-v0", 8, 3, True, 119, ((3, 5, 14), (17, 2, 21, 2), (17, 7, 1)), False),
        (
            "vllm-v1",
            3,
            3,
            False,
            68,
            ((0, 7, 1), (0, 10, 24), (3, 12, 1), (8, 13, 4, 3), (13, 2, 11), (20, 7, 1)),
            True,
        ),
        ("vllm-v1", 8, 4, True, 101, ((4, 6, 23),), True),
        ("static", 40, 3, True, 60, ((0, 5, 14), (1, 2, 21, 2), (1, 7, 9), (2, 9, 3, 3)), False),
    ],
)
def test_an_allocator_that_promises_nothing_is_asked_in_time(
    scheduler: str, budget: int, block_size: int, cached: bool, slots: int, rows: Sequence[Sequence[int]], beam: bool
) -> None:
    """A small budget passes some sequences by, and samples copy a block first."""
    limits = Limits(max_num_seqs=12, max_num_batched_tokens=budget, max_model_len=40)
    options = {"block_size": block_size, "host_blocks": 2, "prefix_cache": cached}
    for swap in (False, True):
        clock = Clock(context=1, copied=3)
        setup = WithIrregular(scheduler, limits, "paged", slots, options, clock=clock, swap=swap, instants=0)
        asked = replace(ask(*rows), beam=beam)
        assert not differences(setup.run(asked, reference=True)[1], setup.run(asked)[1])
