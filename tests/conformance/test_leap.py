"""`advance` does what the same number of calls of `grow` would do, and its result says so."""

from __future__ import annotations

from copy import deepcopy

import pytest

from allocators.answers import Usage
from allocators.base import Allocator
from allocators.table import Ints
from tests.conformance.cases import Case, audit, fill, ints, state


def stepped(
    allocator: Allocator, rows: Ints, lengths: Ints, steps: int
) -> tuple[int, list[tuple[int, int, int]], list[Usage]]:
    """Grow up to `steps` times, all or nothing each time; what changed when, and what was in use after each step."""
    changes, usages = [], []
    for step in range(steps):
        before = allocator.table.slots[rows]
        if not allocator.can_grow(rows, lengths + step + 1):
            return step, changes, usages
        assert allocator.grow(rows, lengths + step + 1).granted == len(rows)
        after = allocator.table.slots[rows]
        changes += [(step, int(who), int(after[who])) for who in (after != before).nonzero()[0]]
        usages.append(allocator.usage())
    return steps, changes, usages


@pytest.mark.parametrize("prompts", [(5,), (4, 4, 4), (1, 7, 3, 8, 2)])
@pytest.mark.parametrize("steps", [2, 100])
@pytest.mark.parametrize("used", [False, True], ids=["empty", "used"])
def test_a_leap_equals_its_steps(case: Case, prompts: tuple[int, ...], steps: int, used: bool) -> None:
    leaping = case.make()
    if used:  # what others left behind in the cache must go
        for row in fill(leaping, 9, output=9)[0]:
            leaping.release(row)
    rows = ints(row for prompt in prompts for row in fill(leaping, prompt, output=14, most=1)[0])
    lengths = leaping.table.length[rows]
    stepping = deepcopy(leaping)
    left = steps
    while left:
        start = steps - left
        leap = leaping.advance(rows, lengths + start, left)
        if not leap.steps:
            assert state(leaping) == state(stepping)
            if not maps(leaping, rows):
                break
            leaping.grow(rows, lengths + start + 1)
            stepping.grow(rows, lengths + start + 1)
            left -= 1
            continue
        rounding_before, evictions = stepping.usage().rounding, stepping.evictions()
        done, changes, usages = stepped(stepping, rows, lengths + start, leap.steps)
        assert done == leap.steps
        listed = list(zip(leap.when.tolist(), leap.who.tolist(), leap.slots.tolist(), strict=True))
        assert listed == changes or (leaping.rounds_up and not listed and len(changes) == leap.steps * len(rows))
        assert leap.held.tolist() == [usage.held for usage in usages]
        assert leap.cached.tolist() == [usage.cached for usage in usages]
        rounding = [usage.rounding for usage in usages]
        assert leap.rounding is None or leap.rounding.tolist() == rounding
        assert leap.rounding is not None or leaping.rounds_up or set(rounding) == {rounding_before}
        assert leaping.mappings() == stepping.mappings()
        assert leaping.evictions() == stepping.evictions()
        assert (0 if leap.evicted is None else leap.evicted.sum()) == stepping.evictions() - evictions
        assert state(leaping) == state(stepping)
        audit(leaping)
        left -= leap.steps
    assert left < steps or not leaping.can_grow(rows, lengths + 1)


def test_a_leap_stops_before_the_step_that_would_be_refused(case: Case) -> None:
    allocator = case.make(slots=48)
    rows = ints(fill(allocator, 5, output=9, most=6)[0])
    steps = 0
    while steps < 100:
        leap = allocator.advance(rows, allocator.table.length[rows], 100 - steps)
        if not leap.steps:
            if not maps(allocator, rows):
                break
            allocator.grow(rows, allocator.table.length[rows] + 1)
        steps += max(leap.steps, 1)
    assert steps < 100
    before = state(allocator)
    assert not allocator.can_grow(rows, allocator.table.length[rows] + 1)
    assert allocator.advance(rows, allocator.table.length[rows], 3).steps == 0
    assert state(allocator) == before
    audit(allocator)


def maps(allocator: Allocator, rows: Ints) -> bool:
    """Whether the next token of each row is granted and maps pages: the only granted step that ends a leap at once."""
    trial = deepcopy(allocator)
    if not trial.can_grow(rows, trial.table.length[rows] + 1):
        return False
    trial.grow(rows, trial.table.length[rows] + 1)
    assert trial.mappings().mapped > allocator.mappings().mapped
    return True
