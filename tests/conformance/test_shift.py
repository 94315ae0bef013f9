"""`shift` does what `grow` would do row by row, for many steps at once, and its result says so."""

from __future__ import annotations

from copy import deepcopy

import pytest

from allocators.answers import Ask, Grant, Refusal
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


def swapped(allocator: Allocator) -> bool:
    """Swap one more of them out, if there is room for it on the host."""
    return allocator.swaps and not isinstance(allocator.swap_out(*alike(allocator, range(5, 6))), Refusal)


def begun(case: Case, before: str) -> tuple[Allocator, list[int]]:
    """Make a pool and rows of which nothing is left to do but what repeats."""
    allocator = case.make(slots=480, context=PROMPT + STEPS + 8)
    if not allocator.regular or allocator.leaves_behind is None:
        pytest.skip("rows do nothing but take blocks, or nothing regular")
    if before == "used":  # what others left behind in the cache must go
        for row in fill(allocator, PROMPT)[0]:
            allocator.release(row)
    rows = alike(allocator, range(2, 5))
    if before == "on the host" and not swapped(allocator):  # what these leave behind has a copy there
        pytest.skip("has no room on the host")
    rows += fill(allocator, 7, output=STEPS, most=2)[0]
    for row in rows:  # first a row leaves behind whatever its prompt has beyond the window
        allocator.grow(ints([row]), allocator.table.length[[row]] + 1)
    while allocator.entangled:
        named = ints(allocator.entangled)
        allocator.grow(named, allocator.table.length[named] + 1)
    return allocator, rows


@pytest.mark.parametrize("before", ["nothing", "used", "on the host"])
def test_many_steps_are_those_of_each_row(case: Case, before: str) -> None:
    shifting, rows = begun(case, before)
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
