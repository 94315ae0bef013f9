"""`shift` does what `grow` would do row by row, for many steps at once, and its result says so."""

from __future__ import annotations

from copy import deepcopy

import pytest

from allocators.answers import Ask, Grant
from allocators.base import Allocator
from allocators.content import Segments
from tests.conformance.cases import Case, audit, fill, ints, state

PROMPT, STEPS = 10, 40


def alike(allocator: Allocator, tails: range) -> list[int]:
    """Admit sequences of one prompt, which share what the cache has of it."""
    rows = []
    for tail in tails:
        content = Segments([(1, PROMPT)], tail)
        answer = allocator.admit(Ask(content, PROMPT, PROMPT, allocator.lookup(content, PROMPT), output=STEPS))
        assert isinstance(answer, Grant)
        rows.append(answer.row)
    return rows


@pytest.mark.parametrize("used", [False, True], ids=["empty", "used"])
def test_many_steps_are_those_of_each_row(case: Case, used: bool) -> None:
    shifting = case.make(slots=480, context=PROMPT + STEPS + 8)
    if not shifting.regular or shifting.leaves_behind is None:
        pytest.skip("rows do nothing but take blocks, or nothing regular")
    if used:  # what others left behind in the cache must go
        for row in fill(shifting, PROMPT)[0]:
            shifting.release(row)
    rows = alike(shifting, range(2, 5)) + fill(shifting, 7, output=STEPS, most=2)[0]
    for row in rows:  # first a row leaves behind whatever its prompt has beyond the window
        shifting.grow(ints([row]), shifting.table.length[[row]] + 1)
    while shifting.entangled:
        named = ints(shifting.entangled)
        shifting.grow(named, shifting.table.length[named] + 1)
    growing, lengths = deepcopy(shifting), shifting.table.length.tolist()
    turns = [(row, lengths[row] + step) for step in range(1, STEPS) for row in rows]

    shift = shifting.shift([row for row, _ in turns], [length for _, length in turns])
    assert shift.granted == len(turns)
    told: dict[int, tuple[int, ...]] = {}
    for place, *less in zip(*(shift.left[field::4] for field in range(4)), strict=True):
        told[place] = tuple(sum(both) for both in zip(told.get(place, (0, 0, 0)), less, strict=True))
    evicted = list(shift.evicted)

    portion, size = growing.portion, growing.block_size
    for place, (row, length) in enumerate(turns):
        before, evictions = growing.usage(), growing.evictions()
        assert growing.grow(ints([row]), ints([length])).refusal is None
        after = growing.usage()
        taken = portion.held if length % portion.tokens == 1 % portion.tokens else 0
        held, saved = before.held + taken - after.held, before.saved - after.saved
        dropped = after.dropped - before.dropped
        assert told.get(place, (0, 0, 0)) == (held, dropped - saved, saved)
        lost, evicted = sum(evicted[: taken // size]), evicted[taken // size :]
        assert growing.evictions() - evictions == lost
        assert after.cached - before.cached == (held if shift.keeps else 0) - lost * size
    assert state(shifting) == state(growing)
    audit(shifting)
    for row in rows:
        for allocator in (shifting, growing):
            allocator.release(row)
    assert state(shifting) == state(growing)
