"""Regular growth of a hybrid allocator: rows that take and give back blocks in steps that are known in advance.

If every piece is a page of one block, a row that runs out of slots takes one block for each attention group, in
their order; and if all windows are equal, their blocks are given back in the same step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import Portion, Shift
from allocators.compiled import mypyc_attr
from allocators.grouprows import GroupRows
from allocators.rowkeys import Left
from allocators.table import MANY, Ints

if TYPE_CHECKING:
    from collections.abc import Sequence


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RegularGroups(GroupRows):
    """The part of a hybrid allocator that grows by portions."""

    @property
    def regular(self) -> bool:
        """See `Allocator.regular`.  True if every piece is a block, and all windows pass their blocks in one step.

        False with checkpoints of states, which are saved in steps of their own.
        """
        alike = len({window.tokens for window in self.windows.values()}) < 2
        single = self.cut.page_blocks == 1 and len(self.attention) > 0
        return single and alike and not (self.prefix_cache and self.states)

    @property
    def portion(self) -> Portion:
        """See `Allocator.portion`: a piece of each attention group."""
        taken = [self.pieces[group] for group in self.attention]
        return Portion(self.cut.tokens, len(taken) * self.block_size, sum(piece.padding for piece in taken))

    @property
    def leaves_behind(self) -> int | None:
        """See `Allocator.leaves_behind`."""
        return next((window.tokens - 1 for window in self.windows.values()), None)

    def append(self, rows: Sequence[int]) -> Sequence[int]:
        """See `Allocator.append`."""
        table, tokens, groups = self.table, self.cut.tokens, len(self.attention)
        taken, evicted = self.pool.take_in_turn(self.attention, len(rows))
        if len(taken) > MANY:
            named = table.enter(rows, taken)
            self._reach(named, (table.count[named] - self.columns.lead) // groups * tokens)
            return evicted
        blocks = iter(taken.tolist())
        views, width = table.views, table.width
        length, count, slots, cells = views.length, views.count, views.slots, views.cells
        for row in rows:
            have = count[row]
            for at in range(row * width + have, row * width + have + groups):
                cells[at] = next(blocks)
            length[row] = slots[row] + 1
            count[row], slots[row] = have + groups, slots[row] + tokens
        return evicted

    def append_in_turn(self, rows: Sequence[int], turns: int) -> Sequence[int]:
        """See `Allocator.append_in_turn`."""
        if turns * len(rows) * len(self.attention) <= MANY:
            return super().append_in_turn(rows, turns)
        named = np.array(rows, np.int64)
        taken, evicted = self.pool.take_in_turn(self.attention, turns * len(rows))
        self.table.enter_in_turn(named, turns, taken)
        self._reach(named, self.table.slots[named] + turns * self.cut.tokens)
        return evicted

    def _reach(self, rows: Ints, slots: Ints) -> None:
        """Let rows have so many slots, and use the first ones of their last pieces."""
        self.table.slots[rows] = slots
        self.table.length[rows] = slots - (self.cut.tokens - 1)

    def shift(self, rows: Sequence[int], lengths: Sequence[int]) -> Shift:
        """See `Allocator.shift`.  Without a prefix cache, a block that is given back is the next one to be taken."""
        if self.prefix_cache:
            return self._shift_cached(rows, lengths)
        table, tokens, groups = self.table, self.cut.tokens, len(self.attention)
        views, width = table.views, table.width
        length, count, slots, cells = views.length, views.count, views.slots, views.cells
        first = (self.leaves_behind or 0) + tokens
        windows = [(group, self.first_column[group]) for group in self.windows]
        takers = sum((after - 1) % tokens == 0 for after in lengths)
        fresh = self.pool.queue.take(min(takers * groups, len(self.pool.queue)))[::-1].tolist()
        given: list[int] = []  # the last of these is taken next, and then those of `fresh`
        left: list[int] = []
        told: list[int] = []
        owners: dict[int, int] = {}
        granted = 0
        for row, after in zip(rows, lengths, strict=True):
            before = after - 1
            leaves, takes = before >= first and (before - first) % tokens == 0, before % tokens == 0
            if takes and len(given) + len(fresh) + leaves * len(windows) < groups:
                break
            for group, column in windows if leaves else ():
                at = row * width + column + (before - first) // tokens * groups
                if block := cells[at]:  # else it left it when it was last refused
                    cells[at] = 0
                    self.left += self.pieces[group].full
                    self.pool.held[group] -= 1
                    owners[block] = -1
                    given.append(block)
                    left.append(block)
                    told += (granted, self.block_size, self.pieces[group].full, 0)
            if takes:
                if len(given) + len(fresh) < groups:
                    break
                have = count[row]
                for place, group in enumerate(self.attention):
                    cells[row * width + have + place] = block = (given or fresh).pop()
                    self.pool.held[group] += 1
                    owners[block] = group
                count[row], slots[row] = have + groups, slots[row] + tokens
            length[row] = after
            granted += 1
        self.host.part(left)
        self.pool.own(owners)
        self.pool.queue.give_front(np.array(given[::-1] + fresh[::-1], np.int64))
        return Shift(granted, told)

    def _shift_cached(self, rows: Sequence[int], lengths: Sequence[int]) -> Shift:
        """Do `shift` with a prefix cache: blocks given back are taken last, so all needed ones can be taken first."""
        table, tokens, groups = self.table, self.cut.tokens, len(self.attention)
        views, width = table.views, table.width
        length, count, slots, cells = views.length, views.count, views.slots, views.cells
        first = (self.leaves_behind or 0) + tokens
        windows = [(group, self.first_column[group]) for group in self.windows]
        takes, leaves = 1 % tokens, (first + 1) % tokens
        takers = [place for place, after in enumerate(lengths) if after % tokens == takes]
        room = self.room
        granted = takers[room] if len(takers) > room else len(rows)
        fresh, evicted = self.pool.take_in_turn(self.attention, min(len(takers), room))
        taken, turn = fresh.tolist(), 0
        left: list[Left] = []
        told: list[int] = []
        for place in range(granted):
            row, after = rows[place], lengths[place]
            over = after % tokens
            if over == leaves and after > first:
                nth = (after - 1 - first) // tokens
                for group, column in windows:
                    at = row * width + column + nth * groups
                    if block := cells[at]:  # else it left it when it was last refused
                        cells[at] = 0
                        left.append((row, group, nth, block))
                        told += (place, self.block_size, self.pieces[group].full, 0)
            if over == takes:
                have = count[row]
                for at in range(row * width + have, row * width + have + groups):
                    cells[at] = taken[turn]
                    turn += 1
                count[row], slots[row] = have + groups, slots[row] + tokens
            length[row] = after
        if left:
            self.give_back(left)
            self._let_go_each(left, told)
        return Shift(granted, told, evicted, keeps=True)

    def _let_go_each(self, left: Sequence[Left], told: list[int]) -> None:
        """Give back pieces that windows have passed; `told` is `Shift.left` as if nobody else held any of them."""
        pool, pieces = self.pool, [piece for _, _, _, piece in left]
        self.left += sum(told[2::4])
        if not any(pool.shared):
            pool.keep_in_turn([group for _, group, _, _ in left], pieces)
            self.host.part(pieces)
            return
        for nth, (_, group, _, piece) in enumerate(left):
            idle = pool.let_go(group, np.array([piece]))
            self.host.part(idle)
            if not len(idle):
                told[4 * nth + 1 : 4 * nth + 4] = 0, 0, self.pieces[group].full

    @property
    def room(self) -> int:
        """See `Allocator.room`.  A row takes at most one page for each attention group."""
        return len(self.pool.queue) // max(1, len(self.attention))
