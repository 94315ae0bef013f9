"""What sharing, forks and swapping promise, for every allocator that can do them."""

from __future__ import annotations

import numpy as np
import pytest

from allocators.answers import MISS, Ask, Grant, Reason, Refusal
from allocators.base import Allocator
from allocators.content import Segments
from allocators.errors import AllocatorError
from allocators.table import Ints
from tests.conformance.cases import Case, admitted, audit, fill, ints, state, supports


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
