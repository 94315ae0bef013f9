"""Adaptors: what each adds to the allocator inside.  That they take nothing away is the conformance suite's to say."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from allocators import registry
from allocators.adaptors import CheckingAdaptor, Event, RecordingAdaptor
from allocators.answers import Ask, Grant, Reason, Refusal
from allocators.content import Segments
from allocators.errors import AllocatorError, CorruptionError
from allocators.limiting import LimitingAdaptor
from tests.conformance.cases import FACTS, ask, audit, ints


def paged(blocks: int = 8) -> registry.Allocator:
    return registry.create("paged", num_blocks=blocks, block_size=4, max_model_len=32, max_rows=4)


def test_recording_tells_what_was_called_when_and_what_came_of_it() -> None:
    events: list[Event] = []
    allocator = RecordingAdaptor(paged(), count(100, 5).__next__, events.append)
    request = Ask(Segments([], 1), 6, 6)
    grant = allocator.admit(request)
    assert isinstance(grant, Grant)
    rows, lengths = ints([grant.row]), ints([7])
    allocator.grow(rows, lengths)
    lengths[0] = 99
    refusal = allocator.admit(Ask(Segments([], 2), 31, 31))
    with pytest.raises(AllocatorError):
        allocator.release(3)
    allocator.release(grant.row)
    assert [(event.time, event.verb) for event in events] == [
        (100, "admit"),
        (105, "grow"),
        (110, "admit"),
        (115, "release"),
        (120, "release"),
    ]
    assert events[0].arguments == (request,)
    assert events[0].answer == grant
    assert events[1].arguments[1].tolist() == [7], "arrays are copied"
    assert events[2].answer == refusal
    assert isinstance(refusal, Refusal)
    assert isinstance(events[3].answer, AllocatorError)
    assert [event.usage.held for event in events] == [8, 8, 8, 8, 0]


def test_questions_are_not_recorded() -> None:
    events: list[Event] = []
    allocator = RecordingAdaptor(paged(), count().__next__, events.append)
    allocator.lookup(Segments([], 1), 4)
    allocator.never(ask(4), 8)
    allocator.usage()
    allocator.can_grow(ints([]), ints([]))
    allocator.check()
    assert events == []


def test_checking_finds_damage_at_the_next_verb() -> None:
    inner = registry.create("contiguous", num_blocks=64, max_model_len=16, reserve="max")
    allocator = CheckingAdaptor(inner)
    grant = allocator.admit(ask(5))
    assert isinstance(grant, Grant)
    inner.table.blocks[grant.row, 0] = 7
    with pytest.raises(CorruptionError, match="lists blocks"):
        allocator.admit(ask(5))


def test_checking_finds_a_refusal_that_changes_something() -> None:
    class Leaky(type(paged())):  # type: ignore[misc] # the class of an instance
        def admit(self, request: Ask) -> Grant | Refusal:
            answer = super().admit(request)
            if isinstance(answer, Refusal):
                super().admit(request._replace(tokens=1, whole=0))
            return answer

    allocator = CheckingAdaptor(Leaky(4, 4, 32))
    assert isinstance(allocator.admit(ask(12)), Grant)
    with pytest.raises(CorruptionError, match="admit was refused, yet the allocator has changed"):
        allocator.admit(ask(12))


def test_a_limit_refuses_what_the_pool_would_still_give() -> None:
    allocator = LimitingAdaptor(paged(8), 3)
    grant = allocator.admit(ask(8))
    assert isinstance(grant, Grant)
    assert allocator.admit(ask(8)) == Refusal(Reason.BLOCKS, 2, 1)
    rows = ints([grant.row])
    assert allocator.grow(rows, ints([12])).granted == 1
    assert not allocator.can_grow(rows, ints([13]))
    assert allocator.grow(rows, ints([13])).refusal == Refusal(Reason.BLOCKS, 1, 1)
    never = allocator.never(ask(8), 13)
    assert never is not None
    assert never.reason is Reason.NEVER


@pytest.mark.parametrize("blocks", [0, 9])
def test_a_limit_lies_within_the_pool(blocks: int) -> None:
    with pytest.raises(AllocatorError, match="a limit is 1 to 8 blocks"):
        LimitingAdaptor(paged(8), blocks)


def test_adaptors_stack() -> None:
    events: list[Event] = []
    inner = LimitingAdaptor(paged(8), 5)
    allocator = RecordingAdaptor(CheckingAdaptor(inner), count().__next__, events.append)
    assert isinstance(allocator.admit(ask(9)), Grant)
    assert isinstance(allocator.admit(ask(12)), Refusal)
    assert [type(event.answer) for event in events] == [Grant, Refusal]
    assert allocator.table is inner.inner.table


@pytest.mark.parametrize("kind", registry.names())
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_limit_is_never_exceeded(kind: str, seed: int) -> None:
    measure = registry.measure(kind, {}, FACTS)
    blocks = 200 * measure.token_slots // measure.block_size
    inner = registry.create(kind, num_blocks=blocks, max_model_len=24, max_rows=4, facts=FACTS)
    limit = max(1, int(inner.num_blocks * 0.4))
    allocator = LimitingAdaptor(CheckingAdaptor(inner), limit)
    draw = np.random.default_rng(seed)
    refused = 0
    for _ in range(150):
        rows = allocator.table.rows()
        chance = draw.random()
        answer: object = None
        if rows and chance < 0.1:
            allocator.release(int(draw.choice(rows)))
        elif rows and chance < 0.2 and not inner.oracle:
            answer = allocator.fork(int(draw.choice(rows)))
        elif rows and chance < 0.6:
            some = draw.permutation(rows)[: draw.integers(1, len(rows) + 1)]
            lengths = (allocator.table.length[some] + draw.integers(0, 3, len(some))).clip(max=24)
            possible = allocator.can_grow(some, lengths)
            growth = allocator.grow(some, lengths)
            assert possible == (growth.granted == len(some))
            answer = growth.refusal
        elif rows and chance < 0.7:
            allocator.advance(ints(rows), allocator.table.length[rows], int(draw.integers(1, 6)))
        else:
            answer = allocator.admit(ask(int(draw.integers(1, 20)), oracle=inner.oracle))
        refused += isinstance(answer, Refusal)
        assert allocator.usage().held <= limit * allocator.block_size
        audit(allocator)
    assert refused or inner.recomputes
