"""How the rows of a paged allocator grow: by taking blocks on demand.

A row takes a block when its last one is full.  If the last block is not full, but another row relies on its contents,
it is copied before the row writes into it (copy-on-write).  Blocks that a sliding window has passed are given back
before any are taken.

Every sequence grows in every step, so a simulation spends most of its time in an allocator here.  `grow` handles many
rows with a few NumPy calls and a few rows with a loop.  `append` and `shift` are faster still, for rows of which an
engine knows that they do nothing but take a block or give one back.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from allocators.answers import Copy, Growth, Leap, Reason, Refusal, Shift
from allocators.compiled import mypyc_attr
from allocators.errors import AllocatorError
from allocators.leap import leap, spread
from allocators.rows import Bools, SharingRows
from allocators.table import Ints

FEW = 24
"""Up to this many rows, a Python loop is faster than NumPy calls."""
MANY = 48
"""The same for `append`, which does less for each row."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class OnDemandRows(SharingRows):
    """The part of a paged allocator that lets its rows grow."""

    @property
    def notice(self) -> int | None:
        """See `Allocator.notice`."""
        return int(self.prefix_cache or self.windowed)

    @property
    def regular(self) -> bool:
        """See `Allocator.regular`."""
        return True

    @property
    def names_full(self) -> bool:
        """See `Allocator.names_full`."""
        return self.windowed and self.prefix_cache

    @property
    def leaves_behind(self) -> int | None:
        """See `Allocator.leaves_behind`."""
        return self.window.tokens - 1 if self.windowed else None

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """See `Allocator.grow`.  Only rows that run out of slots or fill a block need work."""
        if len(rows) <= FEW and not self.windowed:
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

    def append(self, rows: Sequence[int]) -> Sequence[int]:
        """See `Allocator.append`."""
        if not rows:
            return ()
        table, size = self.table, self.block_size
        blocks, lost = self.pool.take(len(rows))
        if len(rows) > MANY:
            self._append_many(rows, blocks)
        else:
            length, count, slots = table.length.data, table.count.data, table.slots.data
            cells, width = table.blocks.ravel().data, table.width
            taken = blocks.tolist()
            for place, row in enumerate(rows):  # compiled, a strict `zip` makes a tuple for each
                have = count[row]
                cells[row * width + have] = taken[place]
                length[row] = have * size + 1
                count[row] = have = have + 1
                slots[row] = have * size
        return () if lost is None else lost.tolist()

    def _append_many(self, named: Sequence[int], blocks: Ints) -> None:
        """Enter blocks in the rows for which they were taken; a row may be listed several times."""
        table, size, turn = self.table, self.block_size, len(set(named))
        rounds, rest = divmod(len(named), turn)
        if not rest and named[turn:] == named[:-turn]:  # all in turn, equally often
            rows = np.array(named[:turn], np.int64)
            columns = table.count[rows]
            table.blocks[rows, columns + np.arange(rounds)[:, None]] = blocks.reshape(rounds, turn)
            columns += rounds
        else:
            rows = np.array(named, np.int64)
            columns = table.count[rows] + _nth(named, turn)
            table.blocks[rows, columns] = blocks
            columns += 1
        table.count[rows] = columns  # where a row is named several times, its last value stays
        table.slots[rows] = slots = columns * size
        table.length[rows] = slots - size + 1

    def shift(self, rows: Sequence[int], lengths: Sequence[int]) -> Shift:
        """See `Allocator.shift`.  Without a prefix cache, a block that is given back is the next one to be taken."""
        if self.prefix_cache:
            return self._shift_cached(rows, lengths)
        table, size, first = self.table, self.block_size, self.window.tokens - 1 + self.block_size
        length, count, slots, cells = table.length.data, table.count.data, table.slots.data, table.blocks.data
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
                column = (before - first) // size
                if block := cells[row, column]:  # 0 if it was already given back, in a step that was then refused
                    cells[row, column] = 0
                    given.append(block)
                    left.append(block)
                    told += (granted, size, size, 0)
            if before % size == 0:
                if not given and not fresh:
                    break
                have = count[row]
                cells[row, have] = (given or fresh).pop()
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
        length, count, slots, cells = table.length.data, table.count.data, table.slots.data, table.blocks.data
        takes, leaves = 1 % size, (first + 1) % size
        takers = [place for place, after in enumerate(lengths) if after % size == takes]
        granted = takers[pool.free] if len(takers) > pool.free else len(rows)
        fresh, evicted = pool.take(min(len(takers), pool.free)) if takers else (np.zeros(0, np.int64), None)
        taken = iter(fresh.tolist())
        keys: list[int] = []
        full: list[int] = []
        left: list[tuple[int, int]] = []
        for place, (row, after) in enumerate(zip(rows[:granted], lengths, strict=False)):
            over = after % size
            if over == leaves and after > first:
                column = (after - 1 - first) // size
                if block := cells[row, column]:  # 0 if it was already given back, in a step that was then refused
                    cells[row, column] = 0
                    left.append((place, block))
            if over == takes:
                have = count[row]
                cells[row, have] = next(taken)
                count[row], slots[row] = have + 1, (have + 1) * size
            if over == 0:
                column = after // size - 1
                keys.append(self.contents[row].keys(size, column + 1)[column])
                full.append(cells[row, column])
            length[row] = after
        if keys:
            pool.cache.enter(keys, np.array(full, np.int64))
        return Shift(granted, self._let_go_each(left) if left else (), () if evicted is None else evicted.tolist())

    def _let_go_each(self, left: Sequence[tuple[int, int]]) -> list[int]:
        """Give back the blocks that windows have passed, as (index of the row, block); returns `Shift.left`."""
        size, told = self.block_size, list[int]()
        self.left += len(left)
        if not self.pool.shared:
            self.host.part(self.pool.let_go(np.array([block for _, block in left], np.int64)))
            for place, _ in left:
                told += (place, size, size, 0)
            return told
        for place, block in left:
            idle = self.pool.let_go(np.array([block], np.int64))
            self.host.part(idle)
            told += (place, size, size, 0) if len(idle) else (place, 0, 0, size)
        return told

    @property
    def room(self) -> int:
        """See `Allocator.room`.  A row takes at most one block at a time."""
        return self.pool.free

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """See `Allocator.can_grow`."""
        due, need, _ = self._demand(rows, lengths)
        free, total = self.pool.free, int(need.sum())
        if len(due) and lengths.max() > self.max_model_len:
            return False
        if not self.windowed or total <= free:
            return total <= free
        holders, needs = self.pool.references.copy(), dict(zip(due.tolist(), need.tolist(), strict=True))
        for index, row in enumerate(rows.tolist()):
            behind = self.behind(row)
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
        leaving = self.leaving(rows) if self.windowed else None
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
        now, count = table.length.data, table.count.data
        needs = []
        for place, row in enumerate(rows):
            length = lengths[place]
            if not now[row] <= length <= longest:
                return None
            needs.append(-(-length // size) - count[row])
        return needs

    def _grow_few(self, rows: list[int], lengths: list[int], needs: list[int]) -> Growth:
        """Do what `_extend` does, row by row: for a few rows this is faster than its forty array operations."""
        table, size = self.table, self.block_size
        now, count = table.length.data, table.count.data
        slots, cells = table.slots.data, table.blocks.data
        at_once = not self.entangled and sum(needs) <= self.pool.free
        taken = iter(self.pool.take(sum(needs))[0].tolist() if at_once else ())
        for place, (row, length, need) in enumerate(zip(rows, lengths, needs, strict=True)):
            if need:
                if not at_once:
                    if need > self.pool.free:
                        return Growth(place, self._short_of(need, 0))
                    taken = iter(self.pool.take(need)[0].tolist())
                have = count[row]
                for column in range(have, have + need):
                    cells[row, column] = next(taken)
                count[row], slots[row] = have + need, (have + need) * size
            if row in self.entangled and (full := range(now[row] // size, length // size)):
                self.enter_row(row, full.start, full.stop)
            now[row] = length
        return Growth(len(rows))

    def _short_of(self, need: int, spare: int) -> Refusal:
        reason = Reason.NEVER if need > self.num_blocks else Reason.BLOCKS
        return Refusal(reason, need, need + spare - self.pool.free)


def _nth(named: Sequence[int], turn: int) -> Ints:
    """Count, for each entry, how often the same row is listed before it.

    Usually all rows, of which there are `turn`, are listed in turn, again and again, and then no sorting is needed.
    """
    if named[turn:] == named[: len(named) - turn]:
        return np.arange(len(named)) // turn
    order = np.argsort(named, kind="stable")
    rows, place = np.array(named, np.int64)[order], np.arange(len(named))
    begins = np.append(True, rows[1:] != rows[:-1])
    nth = np.empty_like(place)
    nth[order] = place - np.maximum.accumulate(np.where(begins, place, 0))
    return nth
