"""Which steps a calibration replays, and behind which others: on the CPU, where graphs are steps that run again."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from sim.costs.shapes import Shape
from sim.decode import graphs
from sim.decode.graphs import BEFORE, EARLIER, OFTEN, REPEATS, Captured, PaddedSteps, ragged, reads
from tests.decode.room import decode, workload

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST, BLOCKS, SEATS, SPLIT = 64, 40, 16, 4
PERIOD = 10**10
"""Nanoseconds that graphs are said to take: so long that one of them is a row."""


class Replayed:
    """A step in place of its graph."""

    def __init__(self, steps: PaddedSteps, shape: Shape, ran: list[Shape]) -> None:
        self._steps, self._shape, self._ran = steps, shape, ran

    def replay(self) -> None:
        self._ran.append(self._shape)
        self._steps._step(self._shape)


@pytest.fixture
def ran() -> list[Shape]:
    """Shapes of all steps that ran, in their order; `None` stands before one that is timed."""
    return []


@pytest.fixture
def steps(ran: list[Any], monkeypatch: pytest.MonkeyPatch) -> PaddedSteps:
    def timed(work: Callable[[], object]) -> float:
        ran.append(None)
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    monkeypatch.setattr(graphs, "_timed", timed)
    monkeypatch.setattr(graphs, "ALIKE", float("inf"))  # a step that took longer once would be repeated
    monkeypatch.setattr(time, "sleep", lambda _: None)
    engine = {"max_num_seqs": SEATS, "max_num_batched_tokens": 64}
    padded = decode(workload("tiny-llama", {"kind": "paged", "block_size": 4}, engine=engine), padded=True)
    steps = padded.runtime.padded
    assert steps is not None
    for shape in steps._shapes.all:
        graph: Any = Replayed(steps, shape, ran)
        steps._captured[shape] = Captured(graph, torch.zeros(0), PERIOD)
    return steps


def test_every_captured_shape_is_measured(steps: PaddedSteps) -> None:
    with torch.inference_mode():
        found = steps.clock(LONGEST, BLOCKS, SPLIT)
    alone = [step for step in found if not step.chunks]
    for shape in steps._captured:
        if not shape.chunks:
            contexts = [step.context for step in alone if step.decodes == shape.decodes]
            given = reads(shape.decodes, LONGEST, lone=shape.decodes > SPLIT)
            assert contexts == [np.mean([each.sum() for each in alike.ways]) for alike in given]
    mixed = defaultdict(set)
    for step in found:
        if step.chunks:
            mixed[step.decodes, step.tokens].add((step.chunks, step.context))
    assert set(mixed) == {(shape.decodes, shape.tokens) for shape in steps._captured if shape.chunks}
    many = max(shape.chunks for shape in steps._captured)
    for (decodes, _), ways in mixed.items():
        assert ways == ({(many, decodes)} if decodes else {(many, 0), (many, many * EARLIER), (1, 0)})
    assert all(step.seconds > 0 for step in found)


def test_a_step_is_timed_behind_as_many_decodes_as_it_has(steps: PaddedSteps, ran: list[Any]) -> None:
    with torch.inference_mode():
        steps.clock(LONGEST, BLOCKS, SPLIT)
    at = [place for place, shape in enumerate(ran) if shape is None]
    behind = {}
    for place in at:
        shape, before = ran[place + 1], ran[place - 1]
        assert behind.setdefault(shape, before) == before
        behind[shape] = before
    assert behind == {
        shape: Shape(shape.decodes) if shape.decodes or not shape.chunks else Shape(BEFORE) for shape in steps._captured
    }
    times = [ran[place + 1] for place in at]
    for shape in steps._captured:
        ways = (
            sum(len(alike.ways) for alike in reads(shape.decodes, LONGEST, lone=shape.decodes > SPLIT))
            if not shape.chunks
            else 1
            if shape.decodes
            else 3 * OFTEN
        )
        assert times.count(shape) == ways * REPEATS


def test_one_is_much_longer_than_the_others_only_where_it_is_waited_for() -> None:
    split, waited = (reads(40, 4096, lone=lone) for lone in (False, True))
    assert not any(each.others for each in split)
    assert [each.others for each in waited if each.others] == [256, 512]
    for each in waited[len(split) :]:
        (lengths,) = each.ways
        usual = ragged(40, each.others, 4096)
        second, longest = sorted(lengths)[-2:]
        assert longest == 4096 > 2 * second
        assert (lengths != usual).sum() == 1


def test_sequences_in_service_are_of_different_lengths_and_none_is_too_long() -> None:
    lengths = ragged(200, 100, 250)
    assert lengths.min() >= 1
    assert lengths.max() == 250
    assert 0.5 < lengths.std() / lengths.mean() < 0.8
    assert lengths[:50].mean() > 2 * lengths[-50:].mean()  # the first have said the most
