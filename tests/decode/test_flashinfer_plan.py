"""The short way to plan a FlashInfer wrapper, on a wrapper of our own: taken only where it leaves the same bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sim.decode.flashinfer_backend import Part, parts_of
from sim.decode.flashinfer_plan import Lists, Planned, Planner, varied
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
        self._qo_indptr_buf = torch.zeros(0)
        self._paged_kv_indptr_buf = torch.zeros(0)
        self._paged_kv_indices_buf = torch.zeros(0)
        self._paged_kv_last_page_len_buf = torch.zeros(0)

    def plan(self, *lists: Any, **more: Any) -> None:
        self.at_length += 1
        queries, (offsets, pages, last) = lists[0], lists[-7:-4]
        lengths = (offsets.diff() - 1) * lists[-1] + last
        if not self.chunks:
            queries = torch.arange(len(lengths) + 1, dtype=torch.int32)
        assert more["sm_scale"] == 0.5
        self._qo_indptr_buf, self._paged_kv_indptr_buf = queries, offsets
        self._paged_kv_indices_buf, self._paged_kv_last_page_len_buf = pages, last
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


class Renamed(Wrapper):
    """Keeps one list elsewhere."""

    def plan(self, *lists: Any, **more: Any) -> None:
        super().plan(*lists, **more)
        del self._paged_kv_indices_buf


class Event:
    """Says what was asked of it."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def synchronize(self) -> None:
        self.log.append("wait")

    def record(self) -> None:
        self.log.append("record")


def planner(wrapper: Any, *, chunks: bool, padded: int = 9) -> Planner:
    return Planner(wrapper, chunks, padded, resolve_model("llama-3.1-8b"), 16, torch.bfloat16, 33, 0.5, Event())


def step(*contexts: int, chunks: bool) -> Planned:
    lengths = torch.tensor(contexts, dtype=torch.int32)
    counts = (lengths + 15) // 16
    queries = torch.arange(len(contexts) + 1, dtype=torch.int32) * (3 if chunks else 1)
    offsets = torch.cat([torch.zeros(1), counts.cumsum(0)]).to(torch.int32)
    host = Lists(queries, offsets, (lengths - 1) % 16 + 1)
    return Planned(host, Lists(*(each.clone() for each in host)), torch.arange(int(offsets[-1])), lengths)


@pytest.mark.parametrize("chunks", [False, True])
def test_it_is_tried_out_on_sequences_of_many_lengths(chunks: bool) -> None:
    blank = step(*(1,) * 20, chunks=chunks)
    tried = varied(blank, 16)
    queries, offsets, last = tried.host
    assert torch.equal(queries, blank.host.queries)
    assert len(set(tried.lengths.tolist())) == 20
    assert (tried.lengths >= queries.diff()).all()
    assert torch.equal((offsets.diff() - 1) * 16 + last, tried.lengths)
    assert {each.dtype for each in (offsets, last, tried.lengths)} == {torch.int32}
    assert len(tried.pages) == offsets[-1]
    assert all(map(torch.equal, tried.host, tried.device))


@pytest.mark.parametrize("padded", [0, 9])
@pytest.mark.parametrize("chunks", [False, True])
def test_once_it_has_left_the_same_the_short_way_is_taken(chunks: bool, padded: int) -> None:
    wrapper = Wrapper(chunks=chunks)
    which = planner(wrapper, chunks=chunks, padded=padded)
    which.plan(step(1, 1, 1, chunks=chunks))
    assert which.direct
    before = wrapper.at_length
    contexts = (17, 5, 40)
    wanted = step(*contexts, chunks=chunks)
    which.plan(wanted)
    assert wrapper.at_length == before
    host = wrapper._pin_memory_int_workspace_buffer
    assert host[8:11].tolist() == list(contexts)
    assert wrapper._plan_info == [11, 32]
    found = (wrapper._qo_indptr_buf, wrapper._paged_kv_indptr_buf, wrapper._paged_kv_last_page_len_buf)
    assert all(one is other for one, other in zip(found, wanted.device, strict=True))
    assert wrapper._paged_kv_indices_buf is wanted.pages


def test_what_was_tried_out_does_not_stay_where_a_graph_reads_its_lists() -> None:
    wrapper = Wrapper(chunks=True)
    which = planner(wrapper, chunks=True)
    blank = step(1, 1, 1, chunks=True)
    which.plan(blank)
    assert wrapper.at_length == 2  # what was tried out, and what is to be
    assert wrapper._pin_memory_int_workspace_buffer[8:11].tolist() == [1, 1, 1]


def test_a_plan_waits_until_the_one_before_has_been_copied() -> None:
    which = planner(Wrapper(chunks=True), chunks=True)
    for _ in range(3):
        which.plan(step(4, 5, chunks=True))
    assert which.copied.log == ["wait", "record"] * 3


@pytest.mark.parametrize(("rows", "cuda_graph"), [(9, True), (0, False)])
def test_only_a_padded_step_may_be_part_of_a_graph(rows: int, cuda_graph: bool) -> None:
    wrapper = Wrapper(chunks=True)
    which = planner(wrapper, chunks=True, padded=rows)
    seen: list[Any] = []
    lay_out = wrapper._cached_module.plan
    wrapper._cached_module = SimpleNamespace(plan=lambda *rest: seen.append(rest[6:12]) or lay_out(*rest))
    which.plan(step(4, 5, chunks=True))
    assert {(each[0], each[-1]) for each in seen} == {(rows or 6, cuda_graph)}


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


def test_so_is_one_that_looks_for_its_lists_elsewhere() -> None:
    wrapper = Renamed(chunks=True)
    which = planner(wrapper, chunks=True)
    which.plan(step(4, 5, chunks=True))
    assert (which.direct, wrapper.at_length) == (False, 2)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1, 1, 1], [(Part(chunks=False), slice(0, 3))]),
        ([7, 1, 9], [(Part(chunks=True), slice(0, 3))]),
        ([1, 1, 30, 1, 2], [(Part(chunks=False), slice(0, 2)), (Part(chunks=True), slice(2, 5))]),
    ],
)
def test_decodes_and_chunks_attend_apart(counts: list[int], expected: list[tuple[Part, slice]]) -> None:
    assert parts_of(np.array(counts)) == expected
