"""What each method of growing promises, for every allocator: one row or many, token by token or by blocks."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from allocators.answers import NO_MAPPINGS, Reason
from allocators.base import Allocator
from tests.conformance.cases import CONTEXT, Case, admitted, audit, fill, ints, state


def test_growing_is_counted_and_needs_no_more_room_than_tokens(case: Case) -> None:
    allocator = case.make()
    rows = ints(admitted(allocator, prompt, output=9) for prompt in (4, 6, 2))
    for step in range(1, 9):
        lengths = ints([4, 6, 2]) + step
        assert allocator.can_grow(rows, lengths)
        growth = allocator.grow(rows, lengths)
        assert growth.granted == 3
        assert growth.refusal is None
        assert (allocator.table.length[rows] == lengths).all()
        audit(allocator)


def test_growing_many_equals_growing_one_after_the_other(case: Case) -> None:
    batch = case.make(slots=64)
    rows = ints(fill(batch, 6, output=9, most=8)[0])
    single = deepcopy(batch)
    for step in range(1, 9):
        lengths = batch.table.length[rows] + 1
        possible = deepcopy(batch).can_grow(rows, lengths)
        growth = batch.grow(rows, lengths)
        assert possible == (growth.granted == len(rows)), f"can_grow said {possible} at step {step}"
        answers = []
        for row, length in zip(rows.tolist(), lengths.tolist(), strict=True):
            answers.append(single.grow(ints([row]), ints([length])))
            if answers[-1].refusal is not None:
                break
        assert growth.granted == sum(answer.granted for answer in answers)
        assert growth.refusal == answers[-1].refusal
        assert growth.copied == sum(answer.copied for answer in answers)
        assert list(growth.copies) == [copy for answer in answers for copy in answer.copies]
        assert state(batch) == state(single)
        audit(batch)
        if growth.refusal is not None:
            assert growth.refusal.shortfall >= 1
            break


def test_what_stands_for_growing_by_a_token_equals_it(case: Case) -> None:
    growing = case.make()
    if not growing.regular:
        pytest.skip("rows grow in more ways than by a block")
    rows = fill(growing, 6, most=2)[0]
    appending = deepcopy(growing)
    for length in range(7, CONTEXT + 1):
        for row in rows:
            who, reach = ints([row]), ints([length])
            if growing.grow(who, reach).refusal is not None:
                break
            full = (length - 1) % appending.portion.tokens == 0
            foreseen, before = appending.calls([row]) if full else NO_MAPPINGS, appending.mappings()
            if appending.leaves_behind is not None and row not in appending.entangled:
                assert appending.shift([row], [length]).granted == 1
            elif row in appending.entangled:
                appending.grow(who, reach)
            elif full:
                appending.append([row])
            else:
                appending.note(who, reach)
            assert foreseen in (None, appending.mappings().since(before))
    assert state(appending) == state(growing)
    assert appending.mappings() == growing.mappings()
    audit(appending)


def at_boundaries(case: Case, slots: int) -> tuple[Allocator, list[int]]:
    """Make an allocator with some rows, each of which takes a portion with its next token and does nothing else."""
    allocator = case.make(slots=slots, context=200)
    if not allocator.regular or allocator.leaves_behind is not None or allocator.oracle:
        pytest.skip("rows grow in more ways than by a block")
    rows, portion = fill(allocator, 3, most=4)[0], allocator.portion.tokens
    while allocator.entangled:
        named = ints(allocator.entangled)
        allocator.grow(named, allocator.table.length[named] + 1)
    for row in rows:
        allocator.grow(ints([row]), -(-allocator.table.length[[row]] // portion) * portion)
    return allocator, rows


def test_blocks_for_many_rows_are_those_for_one_after_the_other(case: Case) -> None:
    growing, rows = at_boundaries(case, 600)
    appending = deepcopy(growing)
    turns = (rows * 40)[: min(110, growing.room)]
    for row in turns:
        growing.append([row])
    appending.append(turns)
    assert state(appending) == state(growing)


@pytest.mark.parametrize("turns", [1, 2, 30])
def test_blocks_for_rows_in_turn_are_those_for_one_after_the_other(case: Case, turns: int) -> None:
    growing, rows = at_boundaries(case, 1000)
    appending = deepcopy(growing)
    turns = min(turns, growing.room // len(rows), 150 // growing.portion.tokens)
    for row in rows * turns:
        growing.append([row])
    appending.append_in_turn(rows, turns)
    assert state(appending) == state(growing)
    assert turns


def test_can_grow_changes_nothing(case: Case) -> None:
    allocator = case.make(slots=64)
    rows = ints(fill(allocator, 6, output=9, most=8)[0])
    before = state(allocator)
    for step in (1, 3, 9, 30):
        allocator.can_grow(rows, allocator.table.length[rows] + step)
    assert state(allocator) == before


def test_a_row_cannot_outgrow_the_context(case: Case) -> None:
    allocator = case.make()
    rows = ints([admitted(allocator, 5), admitted(allocator, CONTEXT - 1, output=2)])
    assert not allocator.can_grow(rows, ints([6, CONTEXT + 1]))
    growth = allocator.grow(rows, ints([6, CONTEXT + 1]))
    assert growth.granted == 1
    assert growth.refusal is not None
    assert growth.refusal.reason is Reason.LENGTH
    assert allocator.table.length[rows].tolist() == [6, CONTEXT - 1]
    audit(allocator)


def test_no_rows_are_no_work(case: Case) -> None:
    allocator = case.make()
    admitted(allocator, 5)
    before = state(allocator)
    none = np.zeros(0, np.int64)
    assert allocator.can_grow(none, none)
    assert allocator.grow(none, none).granted == 0
    assert state(allocator) == before
