"""How the rows of a paged allocator grow: by taking blocks on demand.

A row takes a block when its last one is full.  If the last block is not full, but another row relies on its contents,
it is copied before the row writes into it (copy-on-write).  Blocks that a sliding window has passed are given back
before any are taken.

Every sequence grows in every step, so `grow` handles many rows with a few NumPy calls and a few rows with a loop.
(`allocators.cycle` is faster still, for rows that are known to do nothing but take a block or give one back.)
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from allocators.answers import Copy, Growth, Leap, Reason, Refusal
from allocators.compiled import mypyc_attr
from allocators.cycle import RegularRows
from allocators.errors import AllocatorError
from allocators.leap import leap, spread
from allocators.table import Bools, Ints

FEW = 24
"""Up to this many rows, a Python loop is faster than NumPy calls."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class OnDemandRows(RegularRows):
    """The part of a paged allocator that lets its rows grow."""

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """See `Allocator.grow`.  Only rows that run out of slots or fill a block need work."""
        if len(rows) <= FEW:
            named, reach = rows.tolist(), lengths.tolist()
            needs = self._needs(named, reach)
            if needs is not None:
                return self._grow_few(named, reach, needs)
        self.gather(rows.tolist())
        due, need, copying = self._demand(rows, lengths)
        turns = self.turns(rows, lengths)
        if turns is not None:
            return self._grow_in_turns(rows, lengths, turns)
        if not len(due):
            self.table.length[rows] = lengths
            return Growth(len(rows))
        total = need.cumsum()
        fits, granted, refusal = int(np.searchsorted(total, self.pool.free, "right")), len(rows), None
        long = np.flatnonzero(lengths[due] > self.max_model_len)
        if len(long) and long[0] <= fits:
            fits = int(long[0])
            granted, refusal = int(due[fits]), self.too_long(int(lengths[due[fits]]))
        elif fits < len(due):
            granted, refusal = int(due[fits]), self._short_of(int(need[fits]), int(total[fits] - need[fits]))
        due = due[:fits]
        copies, copied = self._extend(rows[due], lengths[due], need[:fits], copying[:fits])
        self.table.length[rows[:granted]] = lengths[:granted]
        return Growth(granted, refusal, copies, copied)

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """See `Allocator.can_grow`."""
        due, need, _ = self._demand(rows, lengths)
        free, total = self.pool.free, int(need.sum())
        if len(due) and lengths.max() > self.max_model_len:
            return False
        if not self.windowed or total <= free:
            return total <= free
        holders, needs = self.pool.references.copy(), dict(zip(due.tolist(), need.tolist(), strict=True))
        for index in np.flatnonzero(lengths > self.table.length[rows]).tolist():
            behind = self.behind(int(rows[index]))
            holders[behind] -= 1
            free += int(np.count_nonzero(holders[behind] == 0)) - needs.get(index, 0)
            if free < 0:
                return False
        return True

    def demand(self, rows: Ints, lengths: Ints) -> Ints:
        """See `Allocator.demand`.  Counts blocks for copies, but not those that windows are about to give back."""
        due, need, _ = self._demand(rows, lengths)
        more = np.zeros(len(rows), np.int64)
        more[due] = need
        return more

    def advance(self, rows: Ints, lengths: Ints, steps: int) -> Leap:
        """See `Allocator.advance`.  Costs a few NumPy calls, and O(1) for each block taken or filled."""
        self._demand(rows, lengths)
        if (lengths != self.table.length[rows]).any():
            raise AllocatorError("a leap starts from the lengths that the rows have")
        self.gather(rows.tolist())
        if self.windowed or not self.tails.isdisjoint(rows.tolist()):
            return super().advance(rows, lengths, steps)
        return leap(self, rows, lengths, steps)

    def _demand(self, rows: Ints, lengths: Ints) -> tuple[Ints, Ints, Bools]:
        """Return which rows need work to reach `lengths`, the blocks each takes, and whether it copies its last one."""
        table = self.table
        try:
            now = table.length[rows]
        except IndexError as error:
            raise AllocatorError(f"no such row: {error}") from error
        if (lengths < now).any():
            row = int(rows[np.flatnonzero(lengths < now)[0]])
            raise AllocatorError(f"row {row} is {table.length[row]} tokens long and cannot shrink")
        reach = (np.greater_equal if self.prefix_cache else np.greater)(lengths, table.slots[rows])
        if self.tails:
            reach |= np.isin(rows, list(self.tails)) & (lengths > now)
        if len(rows) and lengths.max() > self.max_model_len:
            reach |= lengths > self.max_model_len
        due = np.flatnonzero(reach)
        if not len(due):
            return due, due, reach[due]
        who = rows[due]
        if not table.count[who].all():
            raise AllocatorError(f"row {int(who[table.count[who] == 0][0])} is not open")
        self.demand_each_once(who.tolist())
        copying = self.copying(who)
        return due, -(-lengths[due] // self.block_size) - table.count[who] + copying, copying

    def _extend(self, rows: Ints, lengths: Ints, need: Ints, copying: Bools) -> tuple[list[Copy], int]:
        """Give each row the blocks it needs; where a row copies, the first of them replaces its shared last block."""
        table, size = self.table, self.block_size
        full = table.length[rows] // size
        who, nth = spread(lengths // size - full)
        naming = self.name(rows[who], full[who] + nth)
        taken, _ = self.pool.take(int(need.sum()))
        targets = taken[(need.cumsum() - need)[copying]]
        copies, copied = self.part_tails(rows, copying, targets) if self.tails else ([], 0)
        who, nth = spread(need)
        table.blocks[rows[who], (table.count[rows] - copying)[who] + nth] = taken
        table.count[rows] += need - copying
        table.slots[rows] = table.count[rows] * size
        self.enter(naming)
        return copies, copied

    def turns(self, rows: Ints, lengths: Ints) -> Bools | None:
        """Return bool[n]: which of `rows` change, when they grow, what the rows after them can take; None if none does.

        These are the rows that first give back blocks that their window has passed.
        """
        leaving = self.leaving(rows) & (lengths > self.table.length[rows]) if self.windowed else None
        return leaving if leaving is not None and leaving.any() else None

    def _grow_in_turns(self, rows: Ints, lengths: Ints, turns: Bools) -> Growth:
        """Grow rows in order, in as few batches as `turns` allows: a row that it marks begins a new one."""
        copies: list[Copy] = []
        copied = 0
        for start, end in pairwise([0, *np.flatnonzero(turns).tolist(), len(rows)]):
            if start < end and turns[start]:
                self.leave_behind(int(rows[start]))
            growth = self.grow(rows[start:end], lengths[start:end])
            copies += growth.copies
            copied += growth.copied
            if growth.refusal is not None:
                return Growth(start + growth.granted, growth.refusal, copies, copied)
        return Growth(len(rows), None, copies, copied)

    def _needs(self, rows: list[int], lengths: list[int]) -> list[int] | None:
        """Count the blocks that each row needs; None in all cases that `_grow_few` does not handle.

        These are shared last blocks, and rows that are listed twice, too long, or not open.
        """
        table, size, longest = self.table, self.block_size, self.max_model_len
        named = set(rows)
        if len(named) < len(rows) or not table.open_all(named) or not self.tails.isdisjoint(named):
            return None
        now, count = table.views.length, table.views.count
        needs = []
        for place, row in enumerate(rows):
            length = lengths[place]
            if not now[row] <= length <= longest:
                return None
            needs.append(-(-length // size) - count[row])
        return needs

    def _grow_few(self, rows: list[int], lengths: list[int], needs: list[int]) -> Growth:
        """Do what `_extend` does, row by row: for a few rows this is faster than its forty array operations."""
        views, width, size = self.table.views, self.table.width, self.block_size
        now, count, slots, cells = views.length, views.count, views.slots, views.cells
        at_once = not self.entangled and not self.windowed and sum(needs) <= self.pool.free
        taken = iter(self.pool.take(sum(needs))[0].tolist() if at_once else ())
        for place, (row, length, need) in enumerate(zip(rows, lengths, needs, strict=True)):
            if self.windowed and length > now[row]:
                behind = self.window.behind(now[row])
                if behind and cells[row * width + behind - 1]:
                    self.leave_behind(row)
            if need:
                if not at_once:
                    if need > self.pool.free:
                        return Growth(place, self._short_of(need, 0))
                    taken = iter(self.pool.take(need)[0].tolist())
                have = count[row]
                for at in range(row * width + have, row * width + have + need):
                    cells[at] = next(taken)
                count[row], slots[row] = have + need, (have + need) * size
            if row in self.entangled and (full := range(now[row] // size, length // size)):
                self.enter_row(row, full.start, full.stop)
            now[row] = length
        return Growth(len(rows))

    def _short_of(self, need: int, spare: int) -> Refusal:
        reason = Reason.NEVER if need > self.num_blocks else Reason.BLOCKS
        return Refusal(reason, need, need + spare - self.pool.free)
