"""Regular growth of a paged allocator: rows that take and give back blocks in steps that are known in advance.

A row takes a block once in `block_size` steps; a sliding window passes one as often.  An engine can work out which
rows do so in which step (`allocators.regular`), and calls `append` or `shift` for these, which do nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from allocators.answers import Shift
from allocators.compiled import mypyc_attr
from allocators.rowkeys import Left
from allocators.rows import SharingRows
from allocators.table import MANY, Ints


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RegularRows(SharingRows):
    """The part of a paged allocator that grows by portions."""

    @property
    def notice(self) -> int | None:
        """See `Allocator.notice`."""
        return int(self.prefix_cache or self.windowed)

    @property
    def regular(self) -> bool:
        """See `Allocator.regular`."""
        return True

    @property
    def leaves_behind(self) -> int | None:
        """See `Allocator.leaves_behind`."""
        return self.window.tokens - 1 if self.windowed else None

    @property
    def room(self) -> int:
        """See `Allocator.room`.  A row takes at most one block at a time."""
        return self.pool.free

    def append(self, rows: Sequence[int]) -> Sequence[int]:
        """See `Allocator.append`."""
        if not rows:
            return ()
        table, size = self.table, self.block_size
        blocks, lost = self.pool.take(len(rows))
        if len(rows) > MANY:
            entered = table.enter(rows, blocks)
            self._reach(entered, table.count[entered] * size)
        else:
            views, width = table.views, table.width
            length, count, slots, cells = views.length, views.count, views.slots, views.cells
            taken: list[Any] = blocks.tolist()
            ids = cast("Sequence[Any]", rows)  # compiled, an int that indexes is made an object anew each time
            for place, named in enumerate(ids):  # ... and a strict `zip` makes a tuple for each
                row: int = named
                have: int = count[named]
                cells[row * width + have] = taken[place]
                length[named] = have * size + 1
                have += 1
                count[named] = have
                slots[named] = have * size
        return lost

    def append_in_turn(self, rows: Sequence[int], turns: int) -> Sequence[int]:
        """See `Allocator.append_in_turn`."""
        if turns * len(rows) <= MANY:
            return super().append_in_turn(rows, turns)
        named = np.array(rows, np.int64)
        blocks, lost = self.pool.take(turns * len(rows))
        self.table.enter_in_turn(named, turns, blocks)
        self._reach(named, self.table.slots[named] + turns * self.block_size)
        return lost

    def _reach(self, rows: Ints, slots: Ints) -> None:
        """Let rows have so many slots, and use the first ones of their last blocks."""
        self.table.slots[rows] = slots
        self.table.length[rows] = slots - (self.block_size - 1)

    def shift(self, rows: Sequence[int], lengths: Sequence[int]) -> Shift:
        """See `Allocator.shift`.  Without a prefix cache, a block that is given back is the next one to be taken."""
        if self.prefix_cache:
            return self._shift_cached(rows, lengths)
        table, size, first = self.table, self.block_size, self.window.tokens - 1 + self.block_size
        views, width = table.views, table.width
        length, count, slots, cells = views.length, views.count, views.slots, views.cells
        takers = sum(after % size == 1 % size for after in lengths)
        fresh, _ = self.pool.take(min(takers, self.pool.free))
        fresh = fresh[::-1].tolist()  # popped from the end, so the next to take comes last ...
        given: list[int] = []  # ... but blocks given back meanwhile are taken first
        left: list[int] = []
        told: list[int] = []
        granted = 0
        for row, after in zip(rows, lengths, strict=True):
            before = after - 1
            if before >= first and (before - first) % size == 0:
                at = row * width + (before - first) // size
                if block := cells[at]:  # 0 if it was already given back, in a step that was then refused
                    cells[at] = 0
                    given.append(block)
                    left.append(block)
                    told += (granted, size, size, 0)
            if before % size == 0:
                if not given and not fresh:
                    break
                have = count[row]
                cells[row * width + have] = (given or fresh).pop()
                count[row], slots[row] = have + 1, (have + 1) * size
            length[row] = after
            granted += 1
        self.left += len(left)
        self.host.part(np.array(left, np.int64))
        self.pool.let_go(np.array(given[::-1] + fresh[::-1], np.int64))
        return Shift(granted, told)

    def _shift_cached(self, rows: Sequence[int], lengths: Sequence[int]) -> Shift:
        """Do `shift` with a prefix cache: blocks given back are taken last, so all needed ones can be taken first."""
        table, pool, size, first = self.table, self.pool, self.block_size, self.window.tokens - 1 + self.block_size
        views, width = table.views, table.width
        length, count, slots, cells = views.length, views.count, views.slots, views.cells
        takes, leaves = 1 % size, (first + 1) % size
        takers = [place for place, after in enumerate(lengths) if after % size == takes]
        granted = takers[pool.free] if len(takers) > pool.free else len(rows)
        fresh, evicted = pool.take(min(len(takers), pool.free)) if takers else (np.zeros(0, np.int64), ())
        taken, turn = fresh.tolist(), 0
        left: list[Left] = []
        told: list[int] = []
        for place in range(granted):
            row, after = rows[place], lengths[place]
            over = after % size
            if over == leaves and after > first:
                column = (after - 1 - first) // size
                if block := cells[row * width + column]:  # 0 if it was given back in a step that was then refused
                    cells[row * width + column] = 0
                    left.append((row, 0, column, block))
                    told += (place, size, size, 0)
            if over == takes:
                have = count[row]
                cells[row * width + have] = taken[turn]
                turn += 1
                count[row], slots[row] = have + 1, (have + 1) * size
            length[row] = after
        if left:
            self.give_back(left)
            self._let_go_each(left, told)
        return Shift(granted, told, evicted, keeps=True)

    def _let_go_each(self, left: Sequence[Left], told: list[int]) -> None:
        """Give back the blocks that windows have passed; `told` is `Shift.left` as if nobody else held any of them."""
        size, blocks = self.block_size, [block for _, _, _, block in left]
        self.left += len(left)
        if not self.pool.shared:
            self.host.part(self.pool.let_go(np.array(blocks, np.int64)))
            return
        for nth, block in enumerate(blocks):
            idle = self.pool.let_go(np.array([block], np.int64))
            self.host.part(idle)
            if not len(idle):
                told[4 * nth + 1 : 4 * nth + 4] = 0, 0, size
