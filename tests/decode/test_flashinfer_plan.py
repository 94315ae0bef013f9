"""The short way to plan a FlashInfer wrapper, on a wrapper of our own: taken only where it leaves the same bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sim.decode.flashinfer_plan import Planned, Planner, varied
from sim.models.geometry import resolve_model


class Wrapper:
    """Lays out lengths and what is true of all plans; `other` is what a version of another mind does differently."""

    def __init__(self, *, chunks: bool, other: int = 0) -> None:
        self.chunks = chunks
        self.at_length = 0
        self._float_workspace_buffer = self._int_workspace_buffer = torch.zeros(1)
        self._pin_memory_int_workspace_buffer = torch.randint(0, 99, (64,), dtype=torch.uint8)
        self._cached_module = SimpleNamespace(plan=self._lay_out)
        self._plan_info: Any = None
        self._other = other

    def plan(self, *lists: Any, **more: Any) -> None:
        self.at_length += 1
        queries, offsets, last = lists[0], lists[-7], lists[-5]
        lengths = (offsets.diff() - 1) * lists[-1] + last
        if not self.chunks:
            queries = torch.arange(len(lengths) + 1, dtype=torch.int32)
        assert more["sm_scale"] == 0.5
        self._write(queries, offsets, lengths + self._other, more["window_left"])

    def _lay_out(self, floats: torch.Tensor, ints: torch.Tensor, host: torch.Tensor, *rest: Any) -> list[int]:
        assert host is self._pin_memory_int_workspace_buffer
        queries, offsets, lengths = rest[:3]
        return self._write(queries, offsets, lengths, rest[12])

    def _write(self, queries: torch.Tensor, offsets: torch.Tensor, lengths: torch.Tensor, left: int) -> list[int]:
        told = torch.cat([queries, offsets, lengths])
        self._pin_memory_int_workspace_buffer[: len(told)] = told.to(torch.uint8)
        self._plan_info = [len(told), left]
        return [len(told), left]


def planner(wrapper: Any, *, chunks: bool, padded: int = 9) -> Planner:
    return Planner(wrapper, chunks, padded, resolve_model("llama-3.1-8b"), 16, torch.bfloat16, 33, 0.5)


def step(*contexts: int, chunks: bool) -> Planned:
    lengths = torch.tensor(contexts, dtype=torch.int32)
    counts = (lengths + 15) // 16
    queries = torch.arange(len(contexts) + 1) * (3 if chunks else 1)
    offsets = torch.cat([torch.zeros(1), counts.cumsum(0)])
    return Planned(queries.to(torch.int32), offsets.to(torch.int32), torch.zeros(1), (lengths - 1) % 16 + 1, lengths)


@pytest.mark.parametrize("chunks", [False, True])
def test_it_is_tried_out_on_sequences_of_many_lengths(chunks: bool) -> None:
    blank = step(*(1,) * 20, chunks=chunks)
    tried = varied(blank, 16)
    assert torch.equal(tried.queries, blank.queries)
    assert len(set(tried.lengths.tolist())) == 20
    assert (tried.lengths >= blank.queries.diff()).all()
    assert torch.equal((tried.offsets.diff() - 1) * 16 + tried.last, tried.lengths)
    assert {each.dtype for each in (tried.offsets, tried.last, tried.lengths)} == {torch.int32}
    assert len(tried.pages) == tried.offsets[-1]


@pytest.mark.parametrize("chunks", [False, True])
def test_once_it_has_left_the_same_the_short_way_is_taken(chunks: bool) -> None:
    wrapper = Wrapper(chunks=chunks)
    which = planner(wrapper, chunks=chunks)
    which.plan(step(1, 1, 1, chunks=chunks))
    assert which.direct
    before = wrapper.at_length
    contexts = (17, 5, 40)
    which.plan(step(*contexts, chunks=chunks))
    assert wrapper.at_length == before
    host = wrapper._pin_memory_int_workspace_buffer
    assert host[8:11].tolist() == list(contexts)
    assert wrapper._plan_info == [11, 32]


def test_a_version_that_plans_otherwise_is_left_to_itself() -> None:
    wrapper = Wrapper(chunks=False, other=1)
    which = planner(wrapper, chunks=False)
    for contexts in ((1, 1, 1), (17, 5, 40)):
        which.plan(step(*contexts, chunks=False))
        assert which.direct is False
        assert wrapper._pin_memory_int_workspace_buffer[8:11].tolist() == [each + 1 for each in contexts]


def test_so_is_one_that_cannot_be_asked() -> None:
    wrapper = Wrapper(chunks=True)
    del wrapper._cached_module
    which = planner(wrapper, chunks=True)
    for contexts in ((1, 1, 1), (17, 5, 40)):
        which.plan(step(*contexts, chunks=True))
        assert which.direct is False
        assert wrapper._pin_memory_int_workspace_buffer[8:11].tolist() == list(contexts)


def test_what_is_not_padded_is_planned_at_length() -> None:
    wrapper = Wrapper(chunks=True)
    which = planner(wrapper, chunks=True, padded=0)
    for _ in range(3):
        which.plan(step(4, 5, chunks=True))
    assert (which.direct, wrapper.at_length) == (False, 3)
