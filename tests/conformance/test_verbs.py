"""What each method promises, for every allocator."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from allocators.answers import MISS, NO_MAPPINGS, Ask, Grant, Reason, Refusal
from allocators.base import Allocator
from allocators.content import Segments
from allocators.errors import AllocatorError
from allocators.table import Ints
from tests.conformance.cases import CONTEXT, Case, admitted, ask, audit, fill, ints, state, supports, withheld


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
    answer = allocator.admit(ask(CONTEXT + 1, oracle=allocator.oracle))
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.LENGTH
    assert answer.shortfall >= 1
    never = allocator.never(ask(CONTEXT, oracle=allocator.oracle), CONTEXT + 3)
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


def test_blocks_for_many_rows_are_those_for_one_after_the_other(case: Case) -> None:
    growing = case.make(slots=600, context=200)
    if not growing.regular or growing.leaves_behind is not None or growing.oracle:
        pytest.skip("rows grow in more ways than by a block")
    rows, portion = fill(growing, 3, most=4)[0], growing.portion.tokens
    while growing.entangled:
        named = ints(growing.entangled)
        growing.grow(named, growing.table.length[named] + 1)
    for row in rows:
        growing.grow(ints([row]), -(-growing.table.length[[row]] // portion) * portion)
    appending = deepcopy(growing)
    turns = (rows * 40)[: min(110, growing.room)]
    for row in turns:
        growing.append([row])
    appending.append(turns)
    assert state(appending) == state(growing)


@pytest.mark.parametrize("turns", [1, 2, 30])
def test_blocks_for_rows_in_turn_are_those_for_one_after_the_other(case: Case, turns: int) -> None:
    growing = case.make(slots=1000, context=200)
    if not growing.regular or growing.leaves_behind is not None or growing.oracle:
        pytest.skip("rows grow in more ways than by a block")
    rows, portion = fill(growing, 3, most=4)[0], growing.portion.tokens
    while growing.entangled:
        named = ints(growing.entangled)
        growing.grow(named, growing.table.length[named] + 1)
    for row in rows:
        growing.grow(ints([row]), -(-growing.table.length[[row]] // portion) * portion)
    appending = deepcopy(growing)
    turns = min(turns, growing.room // len(rows), 150 // portion)
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


def test_a_prefix_that_is_found_is_shared(case: Case) -> None:
    allocator = case.make()
    first = Segments([(-1, 12)], tail=-2)
    before = state(allocator)
    assert allocator.lookup(first, 12) == MISS
    assert state(allocator) == before
    answer = allocator.admit(Ask(first, 12, 12, output=4 if allocator.oracle else None))
    assert isinstance(answer, Grant)
    for content, common in ((Segments([(-1, 12)], tail=-3), 12), (Segments([(-1, 9), (-4, 5)], tail=-5), 9)):
        before = state(allocator)
        hit = allocator.lookup(content, 12)
        assert state(allocator) == before
        assert 0 <= hit.tokens <= min(common, 11), "a full hit still computes its last token"
        lead = allocator.columns.lead
        assert hit.tokens == room_of(allocator, lead + len(hit.blocks)) if hit.blocks else not hit.tokens
        held = allocator.usage().held
        second = allocator.admit(Ask(content, 12, 12, hit, output=4 if allocator.oracle else None))
        assert isinstance(second, Grant)
        audit(allocator)
        if hit.tokens:
            assert allocator.table.row(second.row)[lead : lead + len(hit.blocks)].tolist() == list(hit.blocks)
            found = filled(allocator, hit.tokens, lead + len(hit.blocks))[lead:]
            saved = int(found[np.array(hit.blocks) > 0].sum())
            assert allocator.usage().saved >= saved, "the last block, computed again, may turn out to be there too"
            more = allocator.usage().held - held
            assert more <= allocator.blocks_for(12 - hit.tokens) * allocator.block_size
        allocator.release(second.row)
        audit(allocator)


def test_columns_of_whole_places_are_full_where_that_is_said(case: Case) -> None:
    allocator = case.make()
    columns = allocator.columns
    for places in range(1, allocator.max_model_len // columns.place + 1) if columns.full else ():
        tokens, count = places * columns.place, places * columns.stride
        assert (filled(allocator, tokens, count) == allocator.block_size).all()
        assert not filled(allocator, tokens, allocator.table.width)[count:].any()


def room_of(allocator: Allocator, columns: int) -> int:
    """Tokens that lie in the first so many columns of a row."""
    described = allocator.columns
    turn, column = divmod(columns - 1 - described.lead, described.stride)
    return int(turn * described.place + described.tokens[described.lead + column])


def filled(allocator: Allocator, tokens: int, columns: int) -> Ints:
    """Slots that `tokens` tokens fill in each of the first columns of a row."""
    return allocator.columns.filled(ints([tokens])[0], columns, allocator.block_size)


def test_a_fork_holds_the_same_tokens(case: Case) -> None:
    allocator = case.make()
    row = admitted(allocator, 7, output=6)
    before = state(allocator)
    if not supports(allocator, "fork"):
        with pytest.raises(AllocatorError, match="cannot fork"):
            allocator.fork(row, 6)
        assert state(allocator) == before
        return
    free = allocator.free
    answer = allocator.fork(row, 6 if allocator.oracle else None)
    assert isinstance(answer, Grant)
    assert answer.row != row
    assert allocator.table.length[answer.row] == 7
    assert allocator.table.slots[answer.row] == answer.slots >= 7
    audit(allocator)
    if allocator.shares:
        assert allocator.free == free
        assert answer.copied == 0
        assert allocator.table.row(answer.row).tolist() == allocator.table.row(row).tolist()
        assert allocator.usage().saved == filled(allocator, 7, int(allocator.table.count[row])).sum()
    else:
        assert answer.copied == (0 if allocator.recomputes else 7)
        assert not set(allocator.table.row(answer.row).tolist()) & set(allocator.table.row(row).tolist())
    rows = ints([row, answer.row])
    for length in range(8, 12):
        assert allocator.grow(rows, ints([length, length])).granted == 2
        audit(allocator)
    allocator.release(row)
    audit(allocator)
    allocator.release(answer.row)
    audit(allocator)


def test_a_fork_without_room_is_refused(case: Case) -> None:
    allocator = case.make()
    rows, refusal = fill(allocator, 7)
    if allocator.shares or refusal is None or not supports(allocator, "fork"):
        assert allocator.shares or allocator.recomputes or not supports(allocator, "fork")
        return
    before = state(allocator)
    answer = allocator.fork(rows[0], 4 if allocator.oracle else None)
    assert isinstance(answer, Refusal)
    assert state(allocator) == before


def test_a_swapped_sequence_comes_back(case: Case) -> None:
    allocator = case.make()
    row, other = admitted(allocator, 7), admitted(allocator, 3)
    before = state(allocator)
    if not supports(allocator, "swap_out_group"):
        with pytest.raises(AllocatorError, match="cannot swap"):
            allocator.swap_out(row)
        with pytest.raises(AllocatorError, match="cannot swap"):
            allocator.swap_in(row)
        assert state(allocator) == before
        return
    out = allocator.swap_out(row)
    if isinstance(out, Refusal):
        assert out.reason is Reason.HOST
        assert state(allocator) == before
        return
    assert row not in allocator.table
    assert other in allocator.table
    assert allocator.usage().swapped >= 7
    assert out.slots >= 7
    audit(allocator)
    back = allocator.swap_in(out.row)
    assert not isinstance(back, Refusal)
    assert allocator.table.length[back.row] == 7
    assert allocator.usage().swapped == 0
    assert len(back.moves) == len(out.moves)
    audit(allocator)
    assert allocator.grow(ints([back.row]), ints([9])).granted == 1
    allocator.release(back.row)
    allocator.release(other)
    audit(allocator)


def test_forks_come_back_from_the_host_in_any_order(case: Case) -> None:
    allocator = case.make()
    if not (supports(allocator, "swap_out_group") and supports(allocator, "fork")):
        return
    row = admitted(allocator, 7)
    rows = [row]
    for _ in range(2):
        grant = allocator.fork(row, 4 if allocator.oracle else None)
        assert isinstance(grant, Grant)
        rows.append(grant.row)
    held = allocator.usage().held
    hosted = []
    for row in rows:
        out = allocator.swap_out(row)
        if isinstance(out, Refusal):
            assert not hosted, "what forks share crosses once, so either the first is refused or none"
            return
        hosted.append(out.row)
        audit(allocator)
    for row in reversed(hosted):
        assert not isinstance(allocator.swap_in(row), Refusal)
        audit(allocator)
    assert allocator.usage().held == held, "they share what they shared before"


def test_a_swapped_sequence_waits_for_room(case: Case) -> None:
    allocator = case.make()
    row = admitted(allocator, 7)
    if not supports(allocator, "swap_out_group") or isinstance(out := allocator.swap_out(row), Refusal):
        return
    fill(allocator, 7)
    before = state(allocator)
    answer = allocator.swap_in(out.row)
    assert isinstance(answer, Refusal)
    assert answer.shortfall >= 1
    assert state(allocator) == before
    audit(allocator)


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
