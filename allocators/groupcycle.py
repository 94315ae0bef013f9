"""Decoding rows of several groups of layers: the known steps in which they take blocks and leave some behind.

Where every piece is a page and a page is a block, a row that runs out of slots takes one block for each
attention group, in their order; and if all windows are equal, they leave their blocks behind in the same step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import Portion
from allocators.compiled import mypyc_attr
from allocators.grouprows import GroupRows

if TYPE_CHECKING:
    from collections.abc import Sequence


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RegularGroups(GroupRows):
    """The part of a hybrid allocator that grows by portions."""

    prefix_cache: bool
    """Whether full blocks have keys, of which the pool must hear."""

    @property
    def regular(self) -> bool:
        """See `Allocator.regular`: every piece is a block, and all windows leave theirs behind in one step."""
        alike = len({window.tokens for window in self.windows.values()}) < 2
        single = self.cut.page_blocks == 1 and len(self.attention) > 0
        return single and alike and not self.prefix_cache

    @property
    def portion(self) -> Portion:
        """See `Allocator.portion`: a piece of each attention group."""
        taken, left = [self.pieces[group] for group in self.attention], [self.pieces[group] for group in self.windows]
        size = self.block_size
        return Portion(
            self.cut.tokens,
            len(taken) * size,
            sum(piece.padding for piece in taken),
            len(left) * size,
            sum(piece.padding for piece in left),
            sum(piece.full for piece in left),
        )

    @property
    def leaves_behind(self) -> int | None:
        """See `Allocator.leaves_behind`."""
        return next((window.tokens - 1 for window in self.windows.values()), None)

    def append(self, rows: Sequence[int]) -> Sequence[int]:
        """See `Allocator.append`."""
        table, tokens, groups = self.table, self.cut.tokens, len(self.attention)
        blocks = iter(self.pool.take_in_turn(self.attention, len(rows)).tolist())
        length, count, slots, cells = table.length.data, table.count.data, table.slots.data, table.blocks.data
        for row in rows:
            have = count[row]
            for column in range(have, have + groups):
                cells[row, column] = next(blocks)
            length[row] = slots[row] + 1
            count[row], slots[row] = have + groups, slots[row] + tokens
        return ()

    def shift(self, rows: Sequence[int], lengths: Sequence[int]) -> int:
        """See `Allocator.shift`.  What is given back is taken next, by whatever group."""
        table, tokens, groups = self.table, self.cut.tokens, len(self.attention)
        length, count, slots, cells = table.length.data, table.count.data, table.slots.data, table.blocks.data
        first = (self.leaves_behind or 0) + tokens
        windows = [(group, self.first_column[group]) for group in self.windows]
        takers = sum((after - 1) % tokens == 0 for after in lengths)
        fresh = self.pool.queue.take(min(takers * groups, len(self.pool.queue)))[::-1].tolist()
        given: list[int] = []  # the last of these is taken next, and then those of `fresh`
        left: list[int] = []
        owners: dict[int, int] = {}
        granted = 0
        for row, after in zip(rows, lengths, strict=True):
            before = after - 1
            leaves, takes = before >= first and (before - first) % tokens == 0, before % tokens == 0
            if takes and len(given) + len(fresh) + leaves * len(windows) < groups:
                break
            for group, column in windows if leaves else ():
                at = column + (before - first) // tokens * groups
                if block := cells[row, at]:  # else it left it when it was last refused
                    cells[row, at] = 0
                    self.left += self.pieces[group].full
                    self.pool.held[group] -= 1
                    owners[block] = -1
                    given.append(block)
                    left.append(block)
            if takes:
                if len(given) + len(fresh) < groups:
                    break
                have = count[row]
                for place, group in enumerate(self.attention):
                    cells[row, have + place] = block = (given or fresh).pop()
                    self.pool.held[group] += 1
                    owners[block] = group
                count[row], slots[row] = have + groups, slots[row] + tokens
            length[row] = after
            granted += 1
        self.host.part(left)
        self.pool.own(owners)
        self.pool.queue.give_front(np.array(given[::-1] + fresh[::-1], np.int64))
        return granted

    @property
    def room(self) -> int:
        """See `Allocator.room`.  None takes more than a page for each group that grows."""
        return len(self.pool.queue) // max(1, len(self.attention))
