"""Allocators of somebody else's that keep a promise less than ours do: a run ends all the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from allocators.answers import NO_MAPPINGS, Mappings, Refusal, Swap
from allocators.paged import PagedAllocator
from allocators.virtual import VirtualAllocator
from sim.limits import Limits
from tests.engine.harness import Setup, ask


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
