"""What admission, release and misuse promise, for every allocator."""

from __future__ import annotations

from copy import deepcopy

import pytest

from allocators.answers import Grant, Reason, Refusal
from allocators.errors import AllocatorError
from tests.conformance.cases import CONTEXT, Case, admitted, ask, audit, fill, ints, state, withheld


def test_an_empty_pool_is_all_free(case: Case) -> None:
    allocator = case.make()
    audit(allocator)
    assert allocator.free == allocator.capacity == allocator.num_blocks * allocator.block_size
    assert 0 < allocator.largest_hole() <= allocator.capacity
    assert len(allocator.table) == 0


def test_admission_opens_a_row_with_room_for_the_tokens(case: Case) -> None:
    allocator = case.make()
    answer = allocator.admit(ask(7, oracle=allocator.oracle))
    assert isinstance(answer, Grant)
    assert answer.row in allocator.table
    assert allocator.table.length[answer.row] == 7
    assert allocator.table.slots[answer.row] == answer.slots >= 7
    assert answer.copied == 0
    audit(allocator)


def test_admission_may_take_a_part_of_the_prompt_first(case: Case) -> None:
    allocator = case.make()
    row = admitted(allocator, 9, tokens=3)
    assert allocator.table.length[row] == 3
    assert allocator.grow(ints([row]), ints([9])).granted == 1
    assert allocator.table.length[row] == 9
    audit(allocator)


def test_a_sequence_that_gets_no_token_keeps_all_that_the_next_one_reads(case: Case) -> None:
    """What it has slots for may have been given up before it was computed, as when a step is planned anew."""
    allocator = case.make()
    row = admitted(allocator, 9, output=12)
    for length in range(10, 20):
        assert allocator.grow(ints([row]), ints([length])).granted == 1
        before = state(allocator)
        assert allocator.can_grow(ints([row]), ints([length]))
        assert allocator.grow(ints([row]), ints([length])).granted == 1
        assert state(allocator) == before
    audit(allocator)


def test_a_sequence_may_come_back_longer_than_its_prompt(case: Case) -> None:
    allocator = case.make()
    row = admitted(allocator, 5, output=9, tokens=11)
    assert allocator.table.slots[row] >= 11
    assert allocator.grow(ints([row]), ints([13])).granted == 1
    audit(allocator)


def test_more_rows_than_expected_make_the_table_grow(case: Case) -> None:
    allocator = case.make(slots=40 * CONTEXT, rows=2)
    rows = [admitted(allocator, 5) for _ in range(9)]
    assert len(set(rows)) == 9
    audit(allocator)


def test_a_full_pool_refuses_and_stays_as_it_was(case: Case) -> None:
    allocator = case.make()
    rows, refusal = fill(allocator, 7)
    audit(allocator)
    if allocator.recomputes:
        assert refusal is None
        return
    assert rows
    assert refusal is not None
    assert refusal.reason in (Reason.BLOCKS, Reason.HOLE)
    assert 1 <= refusal.shortfall <= refusal.need
    assert 0 <= allocator.stranded(refusal.need) <= allocator.free
    before = state(allocator)
    again = allocator.admit(ask(7, oracle=allocator.oracle))
    assert again == refusal
    assert state(allocator) == before


def test_a_refusal_leaves_no_trace_in_what_follows(case: Case) -> None:
    refused = case.make()
    rows, refusal = fill(refused, 5)
    spared = deepcopy(refused)
    assert isinstance(refused.admit(ask(20, oracle=refused.oracle)), Grant) == (refusal is None)
    if refusal is None:
        return
    answers = []
    for allocator in (refused, spared):
        for row in rows[::2]:
            allocator.release(row)
        answers.append([allocator.admit(ask(size, oracle=allocator.oracle)) for size in (6, 3, 9)])
    assert answers[0] == answers[1]
    assert state(refused) == state(spared)


def test_shortfall_is_honest(case: Case) -> None:
    """Freeing fewer blocks than the shortfall never lets the same request in."""
    allocator = case.make()
    rows, refusal = fill(allocator, 7)
    for row in rows if refusal else ():
        held = allocator.usage().held
        allocator.release(row)
        freed = -(-(held - allocator.usage().held) // allocator.block_size)
        trial = deepcopy(allocator).admit(ask(7, oracle=allocator.oracle))
        if isinstance(trial, Grant):
            assert freed >= refusal.shortfall
            break
        refusal = trial


def test_release_gives_everything_back(case: Case) -> None:
    allocator = case.make()
    rows, _ = fill(allocator, 7, most=12)
    for row in rows[::2] + rows[1::2]:
        allocator.release(row)
        audit(allocator)
    assert len(allocator.table) == 0
    empty = case.make()
    assert allocator.free + allocator.usage().cached == empty.free
    assert len(fill(allocator, 7, most=12)[0]) == len(rows)


def test_larger_than_the_context_is_refused(case: Case) -> None:
    allocator = case.make()
    before = state(allocator)
    for prompt, whole in (CONTEXT + 1, 0), (7, CONTEXT + 1):
        answer = allocator.admit(ask(prompt, whole=whole, oracle=allocator.oracle))
        assert isinstance(answer, Refusal)
        assert answer.reason is Reason.LENGTH
        assert answer.shortfall >= 1
    for whole, final in (0, CONTEXT + 3), (CONTEXT + 3, 7):
        never = allocator.never(ask(7, whole=whole, oracle=allocator.oracle), final)
        assert never is not None
        assert never.reason is Reason.LENGTH
    assert state(allocator) == before


def test_larger_than_the_pool_can_never_run(case: Case) -> None:
    capacity = case.make(slots=CONTEXT).capacity
    allocator = case.make(slots=CONTEXT, context=4 * capacity)
    request = ask(capacity + 4, output=4, oracle=allocator.oracle)
    refusal = allocator.never(request, capacity + 7)
    if allocator.recomputes:
        assert refusal is None
        return
    assert refusal is not None
    assert refusal.reason is Reason.NEVER
    assert 1 <= refusal.shortfall <= refusal.need
    assert isinstance(allocator.admit(request), Refusal)


@pytest.mark.parametrize("slots", [CONTEXT, 2 * CONTEXT - 1, 3 * CONTEXT])
def test_what_is_not_refused_for_ever_runs_alone_to_its_end(case: Case, slots: int) -> None:
    for prompt, output in ((1, 1), (3, 10), (12, 4), (20, 5), (CONTEXT, 1)):
        allocator = case.make(slots=slots)
        final = prompt + output - 1
        request = ask(prompt, output, oracle=allocator.oracle)
        if allocator.never(request, final) is not None:
            continue
        answer = allocator.admit(request)
        assert isinstance(answer, Grant)
        for length in range(prompt + 1, final + 1):
            growth = allocator.grow(ints([answer.row]), ints([length]))
            assert growth.granted == 1, f"{prompt} + {output}: {growth.refusal} at {length}"
        audit(allocator)


@pytest.mark.parametrize("slots", [CONTEXT, 3 * CONTEXT])
def test_what_can_never_leave_its_spare_blocks_is_what_an_empty_pool_refuses(case: Case, slots: int) -> None:
    blocks = case.make(slots=slots).num_blocks
    for spare in {0, 1, 2, blocks // 2, blocks - 2, blocks - 1, blocks, blocks + 1}:
        allocator = case.make(slots=slots)
        request = ask(7, output=1, oracle=allocator.oracle, spare=spare)
        never = allocator.never(request, 7)
        assert (never is None) == isinstance(allocator.admit(request), Grant), f"{spare} of {blocks} blocks: {never}"


def test_spare_blocks_stay_free(case: Case) -> None:
    allocator = case.make()
    before = state(allocator)
    spare = allocator.num_blocks
    answer = allocator.admit(ask(5, spare=spare, oracle=allocator.oracle))
    if allocator.recomputes:
        assert isinstance(answer, Grant)
        return
    assert isinstance(answer, Refusal)
    assert answer.shortfall >= 1
    assert state(allocator) == before
    held = case.make()
    admitted(held, 5)
    left = held.free // held.block_size - withheld(held)
    assert isinstance(case.make().admit(ask(5, spare=left, oracle=held.oracle)), Grant)


def test_the_whole_must_fit_though_only_a_part_is_taken(case: Case) -> None:
    allocator = case.make()
    fill(allocator, CONTEXT - 4, output=2)
    answer = allocator.admit(ask(CONTEXT - 4, output=2, tokens=1, whole=CONTEXT - 4, oracle=allocator.oracle))
    assert isinstance(answer, Grant) == allocator.recomputes
    audit(allocator)


def test_an_oracle_must_be_told_and_no_other_asks(case: Case) -> None:
    allocator = case.make()
    if not allocator.oracle:
        admitted(allocator, 5)
        return
    before = state(allocator)
    with pytest.raises(AllocatorError, match="output length"):
        allocator.admit(ask(5, oracle=False))
    assert state(allocator) == before


MISUSES = {
    "release a row that was never opened": lambda allocator, row: allocator.release(row + 1),
    "release twice": lambda allocator, row: (allocator.release(row), allocator.release(row)),
    "grow a row that was never opened": lambda allocator, row: allocator.grow(ints([row, row + 1]), ints([6, 6])),
    "grow a closed row": lambda allocator, row: (allocator.release(row), allocator.grow(ints([row]), ints([6]))),
    "shrink": lambda allocator, row: allocator.grow(ints([row]), ints([4])),
    "fork a row that was never opened": lambda allocator, row: allocator.fork(row + 1, 4),
    "swap out a row that was never opened": lambda allocator, row: allocator.swap_out(row + 1),
    "swap in a row that is not on the host": lambda allocator, row: allocator.swap_in(row),
    "admit nothing": lambda allocator, _: allocator.admit(ask(5, tokens=-1)),
}


@pytest.mark.parametrize("misuse", MISUSES, ids=str)
def test_misuse_is_an_error_and_changes_nothing(case: Case, misuse: str) -> None:
    allocator = case.make()
    row = admitted(allocator, 5)
    expected = deepcopy(allocator)
    if "twice" in misuse or "closed" in misuse:
        expected.release(row)
    with pytest.raises(AllocatorError):
        MISUSES[misuse](allocator, row)
    assert state(allocator) == state(expected)
    audit(allocator)
