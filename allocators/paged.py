"""Paged allocation: blocks on demand, as in PagedAttention and vLLM.

A sequence holds exactly the blocks its tokens need, anywhere in the pool, listed in its
row of the block table.  The only slots it wastes are the rest of its last block.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from allocators.base import (
    Allocator,
    AllocatorError,
    Ask,
    CorruptionError,
    Grant,
    Growth,
    Ints,
    Leap,
    Reason,
    Refusal,
    Usage,
)
from allocators.freequeue import FreeQueue


class PagedAllocator(Allocator):
    """A pool whose blocks are taken one by one, as sequences grow."""

    kind: ClassVar[str] = "paged"

    def __init__(self, num_blocks: int, block_size: int, max_model_len: int, max_rows: int = 256) -> None:
        """Make an empty pool; arguments as for every `Allocator`."""
        super().__init__(num_blocks, block_size, max_model_len, max_rows)
        self._queue = FreeQueue(num_blocks)
        self._references = np.zeros(num_blocks + 1, np.int64)

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """See `Allocator.never`: the context, then the pool, bounds a sequence."""
        if final > self.max_model_len:
            return Refusal(Reason.LENGTH, self.blocks_for(final), self.blocks_for(final - self.max_model_len))
        need = max(self.blocks_for(final), self.blocks_for(max(ask.tokens, ask.whole)) + ask.spare)
        return Refusal(Reason.NEVER, need, need - self.num_blocks) if need > self.num_blocks else None

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`."""
        if ask.tokens < 1:
            raise AllocatorError(f"a sequence is admitted with at least one token slot, not {ask.tokens}")
        if max(ask.tokens, ask.whole) > self.max_model_len:
            return Refusal(Reason.LENGTH, self.blocks_for(ask.tokens), self.blocks_for(ask.tokens - self.max_model_len))
        need = self.blocks_for(max(ask.tokens, ask.whole)) + ask.spare
        if need > len(self._queue):
            return Refusal(Reason.BLOCKS, need, need - len(self._queue))
        count = self.blocks_for(ask.tokens)
        row = self.table.open()
        self.table.blocks[row, :count] = self._take(count)
        self.table.count[row] = count
        self.table.length[row] = ask.tokens
        self.table.slots[row] = count * self.block_size
        return Grant(row, count * self.block_size)

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """See `Allocator.grow`.  Costs a few NumPy calls, and work only for rows that run out of slots."""
        table = self.table
        granted, refusal = len(rows), None
        due, need = self._demand(rows, lengths)
        total = need.cumsum()
        if len(due) and total[-1] > len(self._queue):
            cut = int(np.searchsorted(total, len(self._queue), "right"))
            granted = int(due[cut])
            refusal = Refusal(Reason.BLOCKS, int(need[cut]), int(total[cut]) - len(self._queue))
            due, need, total = due[:cut], need[:cut], total[:cut]
        long = np.flatnonzero(lengths[:granted] > self.max_model_len)
        if len(long):
            granted = int(long[0])
            over = int(lengths[granted])
            refusal = Refusal(Reason.LENGTH, self.blocks_for(over), self.blocks_for(over - self.max_model_len))
            keep = due < granted
            due, need, total = due[keep], need[keep], total[keep]
        if len(due):
            who = rows[due]
            cell = np.arange(total[-1]) - np.repeat(total - need, need)
            table.blocks[np.repeat(who, need), np.repeat(table.count[who], need) + cell] = self._take(int(total[-1]))
            table.count[who] += need
            table.slots[who] = table.count[who] * self.block_size
        table.length[rows[:granted]] = lengths[:granted]
        return Growth(granted, refusal)

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """See `Allocator.can_grow`."""
        _, need = self._demand(rows, lengths)
        return int(need.sum()) <= len(self._queue) and bool((lengths <= self.max_model_len).all())

    def advance(self, rows: Ints, lengths: Ints, steps: int) -> Leap:
        """See `Allocator.advance`.  Costs a few NumPy calls, and O(1) a block handed out."""
        table, free = self.table, len(self._queue)
        self._demand(rows, lengths)
        until = table.slots[rows] - lengths
        steps = int(min(steps, self.max_model_len - lengths.max(initial=0)))
        # Once every row has run out, each takes a block in every `block_size` steps, so memory ends at the latest here.
        steps = min(steps, int(until.max(initial=0)) + self.block_size * (free // max(1, len(rows)) + 2))
        turns = np.maximum(0, -((until - steps) // self.block_size))
        who = np.repeat(np.arange(len(rows)), turns)
        turn = np.arange(len(who)) - np.repeat(turns.cumsum() - turns, turns)
        when = until[who] + turn * self.block_size
        order = np.argsort(when, kind="stable")
        if len(order) > free:
            steps = int(when[order[free]])
        order = order[when[order] < steps]
        who, turn, when = who[order], turn[order], when[order]
        where = rows[who]
        held = self.num_blocks - free
        if steps:
            table.blocks[where, table.count[where] + turn] = self._take(len(who))
            turns = np.bincount(who, minlength=len(rows))
            slots = table.slots[where] + (turn + 1) * self.block_size
            table.count[rows] += turns
            table.slots[rows] = table.count[rows] * self.block_size
            table.length[rows] = lengths + steps
        else:
            slots = np.zeros(0, np.int64)
        taken = np.searchsorted(when, np.arange(steps), "right")
        return Leap(steps, when, who, slots, (held + taken) * self.block_size, np.zeros(steps, np.int64))

    def release(self, row: int) -> None:
        """See `Allocator.release`: blocks go back tail first."""
        if row not in self.table:
            raise AllocatorError(f"row {row} is not open")
        blocks = self.table.row(row)[::-1].astype(np.int64)
        self._references[blocks] -= 1
        self._queue.give_front(blocks)
        self.table.close(row)

    def usage(self) -> Usage:
        """See `Allocator.usage`."""
        return Usage((self.num_blocks - len(self._queue)) * self.block_size)

    def check(self) -> None:
        """See `Allocator.check`."""
        table = self.table
        references = np.zeros_like(self._references)
        for row in table.rows():
            np.add.at(references, table.row(row), 1)
            if table.count[row] != self.blocks_for(int(table.length[row])):
                raise CorruptionError(f"row {row} of {table.length[row]} tokens holds {table.count[row]} blocks")
        if (references != self._references).any():
            block = int(np.flatnonzero(references != self._references)[0])
            raise CorruptionError(f"block {block} has {references[block]} holders, counted {self._references[block]}")
        if sorted(self._queue.order().tolist()) != (np.flatnonzero(references[1:] == 0) + 1).tolist():
            raise CorruptionError("the free queue is not the set of blocks that nobody holds")

    def _take(self, count: int) -> Ints:
        blocks = self._queue.take(count)
        self._references[blocks] = 1
        return blocks

    def _demand(self, rows: Ints, lengths: Ints) -> tuple[Ints, Ints]:
        """Return which rows run out of slots, and the blocks each then needs."""
        table = self.table
        if (lengths < table.length[rows]).any():
            row = next(row for row, length in zip(rows, lengths, strict=True) if length < table.length[row])
            raise AllocatorError(f"row {row} is {table.length[row]} tokens long and cannot shrink")
        due = np.flatnonzero(lengths > table.slots[rows])
        who = rows[due]
        if not table.count[who].all():
            raise AllocatorError(f"row {int(who[table.count[who] == 0][0])} is not open")
        return due, -(-lengths[due] // self.block_size) - table.count[who]
