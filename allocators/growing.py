"""Growing by concatenation: every new token moves the whole sequence (transformers' DynamicCache).

`torch.cat` makes a tensor that is one token longer, copies the old one into it, and only then
frees the old one: both exist for a moment, and the copy's traffic grows with the square of
the output.  Each sequence is one consecutive run, exactly as long as its tokens, placed by
best fit as PyTorch's allocator does.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from allocators.base import (
    BLOCK_SIZE,
    Allocator,
    AllocatorError,
    Ask,
    CorruptionError,
    Grant,
    Growth,
    Ints,
    Reason,
    Refusal,
    Usage,
)
from allocators.content import Content
from allocators.holes import Holes

if TYPE_CHECKING:
    from allocators.placement import Span


class GrowingAllocator(Allocator):
    """A run a sequence, replaced by a longer one whenever it is full."""

    kind = "growing"
    options = MappingProxyType({"block_size": BLOCK_SIZE._replace(default=1)})
    settled = False

    def __init__(self, num_blocks: int, block_size: int, max_model_len: int, max_rows: int = 256) -> None:
        """Make an empty pool."""
        super().__init__(num_blocks, block_size, max_model_len, max_rows)
        self._holes = Holes(num_blocks, best=True)
        self._runs: dict[int, Span] = {}

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """Refuse what exceeds the context, or does not fit beside its own copy of one token less."""
        if final > self.max_model_len:
            return self.too_long(final)
        need = self.blocks_for(final)
        moved = self.blocks_for(final - 1) if final > ask.tokens and need > self.blocks_for(ask.tokens) else 0
        room = self.num_blocks - moved
        return Refusal(Reason.NEVER, need, need - room) if need > room else None

    def admit(self, ask: Ask) -> Grant | Refusal:
        """Place a run for `ask.tokens`, if a hole for `ask.whole` is there."""
        if ask.tokens < 1:
            raise AllocatorError(f"{self.kind}: a sequence has at least one token, got {ask.tokens}")
        return self._place(ask.tokens, max(ask.tokens, ask.whole), ask.spare)

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant | Refusal:
        """Place a second run and copy all tokens."""
        self.demand_open(row)
        length = int(self.table.length[row])
        grant = self._place(length, length, 0)
        return grant if isinstance(grant, Refusal) else grant._replace(copied=length)

    def _place(self, tokens: int, whole: int, spare: int) -> Grant | Refusal:
        if whole > self.max_model_len:
            return self.too_long(whole)
        need = self.blocks_for(whole)
        if need > self._holes.largest():
            return Refusal(Reason.HOLE, need, need - self._holes.largest())
        if need + spare > self._holes.free:
            return Refusal(Reason.BLOCKS, need, need + spare - self._holes.free)
        run = self._holes.take(self.blocks_for(tokens))
        if run is None:
            raise CorruptionError(f"a hole of {need} blocks was there and is gone")
        row = self.table.open()
        self.table.length[row] = tokens
        self._hold(row, run)
        return Grant(row, int(self.table.slots[row]))

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """Move each row that is full to a longer run; the old one is freed after the copy."""
        table = self.table
        self._demand_growing(rows, lengths)
        copied = 0
        for index in np.flatnonzero(lengths > table.slots[rows]).tolist():
            row, length = int(rows[index]), int(lengths[index])
            need = self.blocks_for(length)
            refusal = None
            run = None
            if length > self.max_model_len:
                refusal = self.too_long(length)
            elif (run := self._holes.take(need)) is None:
                refusal = Refusal(Reason.HOLE, need, need - self._holes.largest())
            if run is None:
                table.length[rows[:index]] = lengths[:index]
                return Growth(index, refusal, copied=copied)
            copied += int(table.length[row])
            self._holes.give(self._runs[row])
            self._hold(row, run)
        table.length[rows] = lengths
        return Growth(len(rows), copied=copied)

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """Whether every row in turn finds a hole; tried on a copy of the holes."""
        full = np.flatnonzero(lengths > self.table.slots[rows]).tolist()
        if (lengths > self.max_model_len).any():
            return False
        trial = self._holes.copy()
        for index in full:
            if trial.take(self.blocks_for(int(lengths[index]))) is None:
                return False
            trial.give(self._runs[int(rows[index])])
        return True

    def release(self, row: int) -> None:
        """Free the run."""
        self.demand_open(row)
        self._holes.give(self._runs.pop(row))
        self.table.close(row)

    def usage(self) -> Usage:
        """Count runs as held."""
        return Usage((self.num_blocks - self._holes.free) * self.block_size)

    def largest_hole(self) -> int:
        """Token slots in the longest hole."""
        return self._holes.largest() * self.block_size

    def stranded(self, need: int) -> int:
        """Token slots in holes shorter than `need` blocks."""
        return self._holes.stranded(need) * self.block_size

    def check(self) -> None:
        """Runs and holes tile the pool, and the table lists the runs."""
        self._holes.check(self._runs.values())
        if set(self._runs) != set(self.table.rows()):
            raise CorruptionError(f"runs of rows {sorted(self._runs)}, open rows {self.table.rows()}")
        for row, run in self._runs.items():
            ids = self.table.row(row)
            if not np.array_equal(ids, np.arange(run.start + 1, run.stop + 1)):
                raise CorruptionError(
                    f"row {row} lists blocks {ids.tolist()}, its run is [{run.start + 1}, {run.stop}]"
                )
            if run.size != self.blocks_for(int(self.table.length[row])):
                raise CorruptionError(f"row {row} of {self.table.length[row]} tokens holds {run.size} blocks")

    def _hold(self, row: int, run: Span) -> None:
        table = self.table
        self._runs[row] = run
        table.count[row] = run.size
        table.slots[row] = run.size * self.block_size
        table.blocks[row, : run.size] = np.arange(run.start + 1, run.stop + 1)

    def _demand_growing(self, rows: Ints, lengths: Ints) -> None:
        table = self.table
        if not table.count[rows].all():
            raise AllocatorError(f"{self.kind}: row {int(rows[table.count[rows] == 0][0])} is not open")
        if (lengths < table.length[rows]).any():
            raise AllocatorError(f"{self.kind}: a sequence cannot shrink")
