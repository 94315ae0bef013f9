"""Every verb of the hybrid allocator, mixed at random, against a plain model of what each sequence holds.

In the model a piece is an object; a sequence lists, for each group, the pieces of its blocks in
order.  After each step the allocator's rows must list one piece for each of the model's, the
same one where the model's is the same, in room that nothing else has; and every count must
follow from the model.  A hit is checked against what was ever written where.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from allocators.answers import Ask, Refusal
from allocators.content import Tokens
from allocators.groups import PAGINGS, cut, parse
from allocators.hybrid import HybridAllocator
from tests.conformance.cases import ints

LONGEST = 24
GROUPS = [
    "full 1x8",
    "full 2x8, sliding 4x8/7",
    "full 1x8, sliding 3x8/5, sliding 2x8/9",
    "full 1x8, state 2x24",
    "state 1x40, full 2x8, sliding 3x8/6",
]


class Piece:
    """Something that a sequence holds of one group; who is the same piece holds the same."""


class Sequence:
    """A sequence in the model."""

    def __init__(self, content: Tokens, length: int, states: int, attention: int) -> None:
        self.content, self.length = content, length
        self.states = [Piece() for _ in range(states)]
        self.blocks: list[list[Piece | None]] = [[] for _ in range(attention)]

    def copy(self) -> Sequence:
        """Fork: the same pieces, and tokens that may go on otherwise."""
        twin = Sequence(self.content.branch(self.length), self.length, 0, 0)
        twin.states, twin.blocks = list(self.states), [list(blocks) for blocks in self.blocks]
        return twin


class HybridMachine(RuleBasedStateMachine):
    """A pool, and what its sequences hold."""

    paging: str

    @initialize(groups=st.sampled_from(GROUPS), size=st.integers(1, 4), pages=st.integers(4, 40), caching=st.booleans())
    def begin(self, groups: str, size: int, pages: int, caching: bool) -> None:
        self.cut = cut(parse(groups), size, self.paging)
        self.allocator = HybridAllocator(
            pages * self.cut.page_blocks,
            size,
            LONGEST,
            2,
            paging=self.paging,
            prefix_cache=caching,
            checkpoint=4,
            groups=groups,
        )
        self.rows: dict[int, Sequence] = {}
        self.memory: dict[int, tuple[int, tuple[int, ...]]] = {}
        """By block: the group that wrote it last, and the tokens up to the end of what it wrote."""

    def holders(self, piece: Piece) -> int:
        """Count the sequences that hold a piece."""
        lists = [[*each.states, *(block for blocks in each.blocks for block in blocks)] for each in self.rows.values()]
        return sum(piece is other for pieces in lists for other in pieces)

    def write(self, sequence: Sequence, length: int) -> None:
        """Let a sequence be `length` tokens long: copy what is shared and written, take what is missing."""
        tokens = self.cut.tokens
        if length > sequence.length:
            self.leave_behind(sequence)
        for blocks in sequence.blocks:
            last = blocks[-1] if sequence.length % tokens else None
            if last is not None and length > sequence.length and self.holders(last) > 1:
                blocks[-1] = Piece()
            while len(blocks) * tokens < length:
                blocks.append(Piece())
        for group, state in enumerate(sequence.states):
            if length > sequence.length and self.holders(state) > 1:
                sequence.states[group] = Piece()
        sequence.length = length

    def leave_behind(self, sequence: Sequence) -> None:
        """Let go of what the next token of a sequence does not read."""
        for group, piece in enumerate(self.cut.attention):
            if window := piece.group.window:
                for place in range(max(0, sequence.length - window + 1) // self.cut.tokens):
                    sequence.blocks[group][place] = None

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=LONGEST), part=st.integers(0, 99))
    def admit(self, tokens: list[int], part: int) -> None:
        allocator, content = self.allocator, Tokens(tokens)
        hit = allocator.lookup(content, len(tokens))
        now = hit.tokens + 1 + part % (len(tokens) - hit.tokens)
        answer = allocator.admit(Ask(content, len(tokens), now, hit))
        if isinstance(answer, Refusal):
            assert self.rows or allocator.never(Ask(content, len(tokens), now), now) or hit.tokens, "alone it fits"
            return
        sequence = Sequence(content, hit.tokens, len(self.cut.states), len(self.cut.attention))
        self.take_over(sequence, hit.tokens, list(hit.blocks))
        content.truncate(now)
        self.rows[answer.row] = sequence
        self.write(sequence, now)

    def take_over(self, sequence: Sequence, tokens: int, blocks: list[int]) -> None:
        """Let a sequence hold the pieces of a hit: another's where it runs, else one that only the cache had."""
        places = tokens // self.cut.tokens
        cells = np.array(blocks, np.int64).reshape(places, -1) if places else np.zeros((0, 0), np.int64)
        column = 0
        for group, piece in enumerate(self.cut.attention):
            for place, first in enumerate(cells[:, column].tolist() if places else ()):
                known = (len(self.cut.states) + group, tuple(sequence.content.tokens[: (place + 1) * self.cut.tokens]))
                assert all(self.memory[block] == known for block in range(first, first + piece.blocks) if first)
                sequence.blocks[group].append(self.piece_at(group, first) if first else None)
            column += piece.blocks

    def piece_at(self, group: int, first: int) -> Piece:
        """Find the model's piece for a physical one that some row lists, or make one."""
        table = self.allocator.tables[len(self.cut.states) + group]
        for row, sequence in self.rows.items():
            for place, block in enumerate(sequence.blocks[group]):
                if block is not None and int(table[row, place]) == first:
                    return block
        return Piece()

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def grow(self, data: st.DataObject) -> None:
        rows = data.draw(st.permutations(sorted(self.rows)))[: data.draw(st.integers(1, 4))]
        more = [data.draw(st.lists(st.integers(0, 1), max_size=5)) for _ in rows]
        lengths = [self.rows[row].length + len(tokens) for row, tokens in zip(rows, more, strict=True)]
        for row, tokens in zip(rows, more, strict=True):
            self.rows[row].content.extend(tokens)
        possible = self.allocator.can_grow(ints(rows), ints(lengths))
        growth = self.allocator.grow(ints(rows), ints(lengths))
        assert possible == (growth.refusal is None)
        for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            sequence = self.rows[row]
            if index == growth.granted:  # refused, but windows have been left
                self.leave_behind(sequence)
            if index >= growth.granted:
                sequence.content.truncate(sequence.length)
            else:
                self.write(sequence, length)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.rows)))
        twin = self.rows[row].copy()
        self.rows[self.allocator.fork(row, content=twin.content).row] = twin

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.rows)))
        self.allocator.release(row)
        del self.rows[row]

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "allocator"):
            return
        self.allocator.check()
        first_of: dict[int, int] = {}
        place_of: dict[int, int] = {}
        counts: dict[str, int] = dict.fromkeys(("held", "rounding", "saved", "dropped", "states"), 0)
        for row, sequence in self.rows.items():
            groups = [[state] for state in sequence.states] + sequence.blocks
            for group, (kind, table, pieces) in enumerate(
                zip(self.allocator.pieces, self.allocator.tables, groups, strict=True)
            ):
                listed = table[row, : len(pieces)].tolist()
                for place, (first, piece) in enumerate(zip(listed, pieces, strict=True)):
                    self.count(counts, kind, sequence.length, place, piece, new=id(piece) not in first_of)
                    assert (first == 0) == (piece is None)
                    if piece is not None:
                        assert first_of.setdefault(id(piece), first) == first, "shared in the model, apart in the table"
                        for block in range(first, first + kind.blocks):
                            assert place_of.setdefault(block, id(piece)) == id(piece), "two pieces in one block"
                            end = min(sequence.length, (place + 1) * kind.tokens)
                            self.memory[block] = (group, tuple(sequence.content.tokens[:end]))
        usage = self.allocator.usage()
        assert counts == {name: getattr(usage, name) for name in counts}
        assert usage.held + usage.cached <= self.allocator.capacity

    def count(self, counts: dict[str, int], kind: Any, length: int, place: int, piece: Piece | None, new: bool) -> None:
        """Count one place of one sequence."""
        filled = kind.full
        if kind.tokens:
            filled = kind.slots * min(kind.tokens, length - place * kind.tokens)
        else:
            counts["states"] += kind.full
        if piece is None:
            counts["dropped"] += filled
        elif new:
            counts["held"] += kind.blocks * self.cut.block_slots
            counts["rounding"] += kind.padding
        else:
            counts["saved"] += filled


@pytest.mark.parametrize("paging", PAGINGS)
def test_a_hybrid_pool_is_what_its_sequences_hold(paging: str) -> None:
    machine = type("Machine", (HybridMachine,), {"paging": paging}).TestCase
    machine.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=30, deadline=None)
    machine().runTest()
