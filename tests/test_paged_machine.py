"""Every verb of the paged allocator, mixed at random, against the plain model of `tests.paged_model`.

After each step the two must agree in everything an engine can see, block ids and the order
of the free queue included, and a simulated memory must read back every sequence's tokens:
whatever is copied or moved, no sequence ever sees another's K/V.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from allocators.answers import Ask, Copy, Reason, Refusal
from allocators.content import Tokens
from allocators.errors import AllocatorError
from allocators.paged import PagedAllocator
from tests.paged_model import Model, Sequence

LONGEST = 24
token = st.integers(0, 1)  # so few that sequences meet again and again
some = st.lists(token, min_size=1, max_size=6)
picks = st.integers(0, 1 << 30)


def keyed(allocator: PagedAllocator) -> set[int]:
    """Blocks that have a key, once all rows have entered what they have filled."""
    allocator = deepcopy(allocator)
    for row in list(allocator.apart):
        allocator.catch_up(row)
    blocks: list[int] = np.flatnonzero(allocator.pool.cache.key).tolist()
    return set(blocks)


class PagedMachine(RuleBasedStateMachine):
    """A pool, its model, and the memory that both talk about."""

    @initialize(
        num_blocks=st.integers(3, 14),
        size=st.integers(1, 5),
        caching=st.booleans(),
        window=st.none() | st.none() | st.integers(1, 9),
        host_blocks=st.sampled_from([0, 3, 12]),
    )
    def begin(self, num_blocks: int, size: int, caching: bool, window: int | None, host_blocks: int) -> None:
        self.allocator = PagedAllocator(
            num_blocks, size, LONGEST, 2, prefix_cache=caching, sliding_window=window, host_blocks=host_blocks
        )
        self.model = Model(num_blocks, size, LONGEST, caching, window, host_blocks)
        self.rows: dict[Sequence, int] = {}
        self.contents: dict[Sequence, Tokens] = {}
        self.device = np.full((num_blocks + 1, size), -1)
        self.host = np.full((host_blocks + 1, size), -1)

    # -- rules -----------------------------------------------------------------------------

    @rule(tokens=st.lists(token, min_size=1, max_size=LONGEST), part=picks, root=st.integers(0, 1), gate=st.booleans())
    def admit(self, tokens: list[int], part: int, root: int, gate: bool) -> None:
        content = Tokens(tokens, root)
        hit = self.allocator.lookup(content, len(tokens))
        assert list(hit.blocks) == self.model.lookup(tokens, root)
        now = hit.tokens + 1 + part % (len(tokens) - hit.tokens)
        whole, spare = (len(tokens), part % 3) if gate else (0, 0)
        sequence = self.model.admit(tokens, now, root, whole, spare)
        answer = self.allocator.admit(Ask(content, len(tokens), now, hit, whole, spare))
        assert isinstance(answer, Refusal) == (sequence is None)
        if isinstance(answer, Refusal):
            assert answer.shortfall >= 1
        elif sequence is not None:
            self.rows[sequence], self.contents[sequence] = answer.row, content
            content.truncate(now)
            self._write(sequence, hit.tokens)

    @precondition(lambda self: self.model.running)
    @rule(pick=picks, batch=st.lists(some | st.just([]), min_size=1, max_size=4))
    def grow(self, pick: int, batch: list[list[int]]) -> None:
        running = self.model.running
        group = [running[(pick + index) % len(running)] for index in range(min(len(batch), len(running)))]
        rows = np.array([self.rows[sequence] for sequence in group])
        before = [len(sequence.tokens) for sequence in group]
        lengths = np.array([length + len(tokens) for length, tokens in zip(before, batch, strict=False)])
        for sequence, tokens in zip(group, batch, strict=False):
            self.contents[sequence].extend(tokens)
        can = self.allocator.can_grow(rows, lengths)
        copies: list[tuple[int, int]] = []
        granted = 0
        for sequence, tokens in zip(group, batch, strict=False):
            made = self.model.grow(sequence, tokens)
            if made is None:
                break
            copies += made
            granted += 1
        growth = self.allocator.grow(rows, lengths)
        assert growth.granted == granted
        assert can == (granted == len(group))
        assert [tuple(copy) for copy in growth.copies] == copies
        assert (growth.refusal is None) == (granted == len(group))
        if growth.refusal is not None:
            too_long = lengths[granted] > LONGEST
            assert growth.refusal.reason is Reason.LENGTH if too_long else growth.refusal.shortfall >= 1
        assert growth.copied == sum(int((self.device[source] >= 0).sum()) for source, _ in copies)
        self._copy(self.device, self.device, growth.copies)
        for index, sequence in enumerate(group):
            self.contents[sequence].truncate(len(sequence.tokens))
            if index < granted:
                self._write(sequence, before[index])

    @precondition(lambda self: self.model.running)
    @rule(pick=picks, tokens=st.lists(token, min_size=1, max_size=12), width=st.integers(1, 4))
    def advance(self, pick: int, tokens: list[int], width: int) -> None:
        """A leap is exactly so many steps of the model."""
        running = self.model.running
        group = [running[(pick + index) % len(running)] for index in range(min(width, len(running)))]
        rows = np.array([self.rows[sequence] for sequence in group])
        lengths = np.array([len(sequence.tokens) for sequence in group])
        for sequence in group:
            self.contents[sequence].extend(tokens)
        leap = self.allocator.advance(rows, lengths, len(tokens))
        events, held, cached, copies = [], [], [], []
        for step in range(leap.steps):
            for index, sequence in enumerate(group):
                count = len(sequence.pages)
                made = self.model.grow(sequence, [tokens[step]])
                assert made is not None
                copies += made
                if len(sequence.pages) > count:
                    events.append((step, index, len(sequence.pages) * self.model.size))
            usage = self.model.usage()
            held.append(usage[0])
            cached.append(usage[1])
        assert list(zip(leap.when.tolist(), leap.who.tolist(), leap.slots.tolist(), strict=True)) == events
        assert leap.held.tolist() == held
        assert leap.cached.tolist() == cached
        assert [tuple(copy) for copy in leap.copies] == copies
        assert leap.steps <= 1 or not copies
        self._copy(self.device, self.device, leap.copies)
        for sequence, length in zip(group, lengths.tolist(), strict=True):
            self.contents[sequence].truncate(len(sequence.tokens))
            self._write(sequence, length)
        if leap.steps == 0:
            assert not self.allocator.can_grow(rows, lengths + 1)

    @precondition(lambda self: self.model.running)
    @rule(pick=picks, known=st.booleans())
    def fork(self, pick: int, known: bool) -> None:
        parent = self.model.running[pick % len(self.model.running)]
        content = self.contents[parent].branch(len(parent.tokens))
        child = self.model.fork(parent, keyed=known)
        answer = self.allocator.fork(self.rows[parent], content=content if known else None)
        self.rows[child], self.contents[child] = answer.row, content

    @precondition(lambda self: self.model.running)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        sequence = self.model.running[pick % len(self.model.running)]
        self.model.release(sequence)
        self.allocator.release(self.rows.pop(sequence))

    @precondition(lambda self: self.model.running)
    @rule(pick=picks, width=st.integers(1, 3))
    def swap_out(self, pick: int, width: int) -> None:
        running = self.model.running
        group = [running[(pick + index) % len(running)] for index in range(min(width, len(running)))]
        answer = self.allocator.swap_out_group([self.rows[sequence] for sequence in group])
        moves = self.model.swap_out(group)
        assert isinstance(answer, Refusal) == (moves is None)
        if not isinstance(answer, Refusal):
            assert [tuple(move) for swap in answer for move in swap.moves] == moves
            for sequence, swap in zip(group, answer, strict=True):
                self._copy(self.device, self.host, swap.moves)
                self.rows[sequence] = swap.row

    @precondition(lambda self: self.model.swapped)
    @rule(pick=picks, width=st.integers(1, 3), spare=st.integers(0, 2))
    def swap_in(self, pick: int, width: int, spare: int) -> None:
        swapped = self.model.swapped
        group = [swapped[(pick + index) % len(swapped)] for index in range(min(width, len(swapped)))]
        answer = self.allocator.swap_in_group([self.rows[sequence] for sequence in group], spare)
        moves = self.model.swap_in(group, spare)
        assert isinstance(answer, Refusal) == (moves is None)
        if not isinstance(answer, Refusal):
            assert [tuple(move) for swap in answer for move in swap.moves] == moves
            for sequence, swap in zip(group, answer, strict=True):
                self._copy(self.host, self.device, swap.moves)
                self.rows[sequence] = swap.row

    @precondition(lambda self: self.model.swapped)
    @rule(pick=picks)
    def discard(self, pick: int) -> None:
        sequence = self.model.swapped[pick % len(self.model.swapped)]
        self.model.discard(sequence)
        self.allocator.discard(self.rows.pop(sequence))

    @rule()
    def reset(self) -> None:
        assert (self.allocator.reset() is None) == self.model.reset()

    @rule(row=st.integers(0, 9))
    def misuse(self, row: int) -> None:
        allocator = self.allocator
        rows = np.array([row])
        if row not in allocator.table:
            for verb in (allocator.release, allocator.fork, allocator.swap_out):
                with pytest.raises(AllocatorError):
                    verb(row)
            with pytest.raises(AllocatorError):
                allocator.grow(rows, np.array([1]))
        else:
            with pytest.raises(AllocatorError):
                allocator.grow(rows, allocator.table.length[rows] - 1)
        if row not in allocator.host.table:
            for verb in (allocator.swap_in, allocator.discard):
                with pytest.raises(AllocatorError):
                    verb(row)

    # -- what must hold --------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        allocator, model = self.allocator, self.model
        allocator.check()
        assert allocator.pool.queue.order().tolist() == model.queue
        assert allocator.host.pool.queue.order().tolist() == model.host_queue
        assert keyed(allocator) == set(model.keys)
        assert tuple(allocator.usage()) == model.usage()
        assert allocator.cached_blocks().tolist() == sorted(set(model.queue) & set(model.keys))
        for sequences, table, memory in (
            (model.running, allocator.table, self.device),
            (model.swapped, allocator.host.table, self.host),
        ):
            assert sorted(self.rows[sequence] for sequence in sequences) == table.rows()
            for sequence in sequences:
                row = self.rows[sequence]
                blocks = table.row(row).tolist()
                assert blocks == model.blocks(sequence)
                assert table.length[row] == len(sequence.tokens)
                assert table.slots[row] == len(blocks) * model.size
                left = blocks.count(0) * model.size
                read = memory[blocks].ravel()[: len(sequence.tokens)].tolist()
                assert read[left:] == sequence.tokens[left:], "a sequence reads what it did not write"

    def _write(self, sequence: Sequence, start: int) -> None:
        """Write the tokens from `start` on into the simulated memory."""
        table, row = self.allocator.table, self.rows[sequence]
        for place in range(start, len(sequence.tokens)):
            block, slot = divmod(place, self.model.size)
            self.device[table.blocks[row, block], slot] = sequence.tokens[place]
            if slot + 1 < self.model.size:
                self.device[table.blocks[row, block], slot + 1 :] = -1
        self.device[0] = -1

    @staticmethod
    def _copy(source: np.ndarray[Any, Any], target: np.ndarray[Any, Any], copies: Any) -> None:
        for copy in copies:
            assert isinstance(copy, Copy)
            target[copy.target] = source[copy.source]


TestPaged = PagedMachine.TestCase
TestPaged.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
