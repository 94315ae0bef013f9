"""Paged allocation: blocks on demand, as in PagedAttention and vLLM.

A sequence holds exactly the blocks its tokens need, anywhere in the pool, listed in its
row of the block table; the only slots it wastes are the rest of its last block.  And as
blocks are alike, sequences share what they have in common:

* a *prefix*: full blocks have keys, and who begins with the same tokens takes the same
  blocks, even after those who computed them are gone (`allocators.prefix`);
* a *fork*: parallel samples and beams hold the same blocks until one writes into a shared
  last block, which is copied first (copy-on-write, `allocators.rows`);
* a *swap*: what is shared crosses to the host and back once (`allocators.host`).

Which block is taken when is vLLM's policy, in `allocators.blockpool`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from allocators.base import (
    BLOCK_SIZE,
    MISS,
    AllocatorError,
    Ask,
    Copy,
    Grant,
    Growth,
    Hit,
    Ints,
    Leap,
    Reason,
    Refusal,
    Swap,
)
from allocators.content import Content
from allocators.leap import leap, spread
from allocators.options import Option
from allocators.rows import Bools, SharingRows


class PagedAllocator(SharingRows):
    """A pool whose blocks are taken one by one, as sequences grow, and shared where they can be."""

    kind: ClassVar[str] = "paged"
    options: ClassVar[Mapping[str, Option]] = MappingProxyType(
        {
            "block_size": BLOCK_SIZE,
            "prefix_cache": Option(bool, False, "keep full blocks for sequences that begin alike"),
            "sliding_window": Option(int, None, "tokens a token attends to; unset for all of them", minimum=1),
            "host_blocks": Option(int, 0, "blocks on the host for sequences swapped out", minimum=0),
        }
    )
    shares: ClassVar[bool] = True
    scattered: ClassVar[bool] = True

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        max_model_len: int,
        max_rows: int = 256,
        *,
        prefix_cache: bool = False,
        sliding_window: int | None = None,
        host_blocks: int = 0,
    ) -> None:
        """Make an empty pool.

        Args:
            num_blocks: physical blocks that can be handed out.
            block_size: token slots a block.
            max_model_len: the longest sequence, in token slots.
            max_rows: sequences expected at once.
            prefix_cache: whether full blocks are kept for sequences that begin alike.
            sliding_window: tokens a token attends to, itself included; None for all.
                A block that no later token attends to is given back when its sequence next
                grows, even if that growth is then refused.
            host_blocks: blocks on the host for sequences that are swapped out.

        """
        super().__init__(
            num_blocks,
            block_size,
            max_model_len,
            max_rows,
            prefix_cache=prefix_cache,
            sliding_window=sliding_window,
            host_blocks=host_blocks,
        )
        self.settled = not prefix_cache and sliding_window is None
        self._reaches = np.greater_equal if prefix_cache else np.greater

    # -- admission -------------------------------------------------------------------------

    def lookup(self, content: Content, tokens: int) -> Hit:
        """See `Allocator.lookup`.  Stops at the first miss; in a sliding window earlier blocks may be missing."""
        if not self.prefix_cache:
            return MISS
        keys = content.keys(self.block_size, full := (tokens - 1) // self.block_size)[:full]
        cache = self.pool.cache
        blocks = cache.window(keys, self.window.reach) if self.windowed else cache.run(keys)
        return Hit(len(blocks) * self.block_size, tuple(blocks))

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """See `Allocator.never`: the context bounds a sequence, then the pool."""
        if max(ask.tokens, ask.whole, final) > self.max_model_len:
            return self.too_long(max(ask.tokens, ask.whole, final))
        need = max(self.window.most(ask.tokens, final), self.blocks_for(max(ask.tokens, ask.whole)) + ask.spare)
        return Refusal(Reason.NEVER, need, need - self.num_blocks) if need > self.num_blocks else None

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`.  What the hit does not cover is taken; hit blocks that nobody held are revived."""
        hit, size, table = ask.hit, self.block_size, self.table
        if not len(hit.blocks) * size == hit.tokens < ask.tokens:
            raise AllocatorError(f"{ask.tokens} token slots are not more than the {hit.tokens} of the prefix hit")
        if hit.blocks and not self.prefix_cache:
            raise AllocatorError("there is no prefix cache to hit")
        if max(ask.tokens, ask.whole) > self.max_model_len:
            return self.too_long(max(ask.tokens, ask.whole))
        keys = ask.content.keys(size, ask.tokens // size) if self.prefix_cache else []
        if any(block and self.pool.cache.key[block] != key for block, key in zip(hit.blocks, keys, strict=False)):
            raise AllocatorError("the prefix hit is stale: a block of it was taken since the look-up")
        reused = np.array([block for block in hit.blocks if block], np.int64)
        revived = int(np.count_nonzero(self.pool.references[reused] == 0))
        need = self.blocks_for(max(ask.tokens, ask.whole)) - len(hit.blocks) + revived
        if need + ask.spare > self.pool.free:
            return self._short_of(need, ask.spare)
        self.pool.share(reused)
        taken, _ = self.pool.take(self.blocks_for(ask.tokens) - len(hit.blocks))
        row = self.open_row(np.concatenate([np.array(hit.blocks, np.int64), taken]), ask.tokens)
        if self.prefix_cache:
            self.contents[row] = ask.content
            new = keys[len(hit.blocks) : ask.tokens // size]
            self.pool.cache.enter(new, taken[: len(new)])
        return Grant(row, int(table.slots[row]))

    def reset(self) -> Refusal | None:
        """Forget every cached prefix.  Refused while any block is held."""
        if self.pool.held:
            return Refusal(Reason.BLOCKS, self.num_blocks, self.pool.held)
        self.pool.forget()
        return None

    # -- growth ----------------------------------------------------------------------------

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """See `Allocator.grow`.  A few NumPy calls, and work only for rows that run out of slots or fill a block."""
        due, need, copying = self._demand(rows, lengths)
        if self.windowed and any(len(self.behind(row)) for row in rows.tolist()):
            return self._grow_one_by_one(rows, lengths)
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
        for index, row in enumerate(rows.tolist()):
            behind = self.behind(row)
            holders[behind] -= 1
            free += int(np.count_nonzero(holders[behind] == 0)) - needs.get(index, 0)
            if free < 0:
                return False
        return True

    def demand(self, rows: Ints, lengths: Ints) -> Ints:
        """See `Allocator.demand`.  Counts copies too, but not what a window will leave behind."""
        due, need, _ = self._demand(rows, lengths)
        more = np.zeros(len(rows), np.int64)
        more[due] = need
        return more

    def advance(self, rows: Ints, lengths: Ints, steps: int) -> Leap:
        """See `Allocator.advance`.  A few NumPy calls, and O(1) for each block taken or filled."""
        self._demand(rows, lengths)
        if (lengths != self.table.length[rows]).any():
            raise AllocatorError("a leap starts from the lengths that the rows have")
        if self.windowed or not self.tails.isdisjoint(rows.tolist()):
            return super().advance(rows, lengths, steps)
        return leap(self, rows, lengths, steps)

    # -- the host --------------------------------------------------------------------------

    def swap_out(self, row: int) -> Swap | Refusal:
        """See `Allocator.swap_out`."""
        swaps = self.swap_out_group([row])
        return swaps if isinstance(swaps, Refusal) else swaps[0]

    def swap_in(self, row: int, spare: int = 0) -> Swap | Refusal:
        """See `Allocator.swap_in`."""
        swaps = self.swap_in_group([row], spare)
        return swaps if isinstance(swaps, Refusal) else swaps[0]

    def swap_out_group(self, rows: Sequence[int]) -> list[Swap] | Refusal:
        """Do `swap_out` for all of `rows` or for none."""
        for row in rows:
            self.demand_open(row)
        self._demand_each_once(rows)
        return self.host.swap_out(self, rows)

    def swap_in_group(self, rows: Sequence[int], spare: int = 0) -> list[Swap] | Refusal:
        """Do `swap_in` for all of `rows` or for none; `spare` blocks must still be free afterwards."""
        for row in rows:
            self.host.demand_open(row)
        self._demand_each_once(rows)
        return self.host.swap_in(self, rows, spare)

    def discard(self, row: int) -> None:
        """Close a row of the host's table: its sequence will not come back."""
        self.host.demand_open(row)
        self.host.close(row)

    def _demand(self, rows: Ints, lengths: Ints) -> tuple[Ints, Ints, Bools]:
        """Return which rows need work to reach `lengths`, the blocks each takes, and whether the first is a copy."""
        table = self.table
        try:
            now = table.length[rows]
        except IndexError as error:
            raise AllocatorError(f"no such row: {error}") from error
        if (lengths < now).any():
            row = int(rows[np.flatnonzero(lengths < now)[0]])
            raise AllocatorError(f"row {row} is {table.length[row]} tokens long and cannot shrink")
        reach = self._reaches(lengths, table.slots[rows])
        if self.tails:
            reach |= np.isin(rows, list(self.tails)) & (lengths > now)
        if len(rows) and lengths.max() > self.max_model_len:
            reach |= lengths > self.max_model_len
        due = np.flatnonzero(reach)
        who = rows[due]
        if not table.count[who].all():
            raise AllocatorError(f"row {int(who[table.count[who] == 0][0])} is not open")
        self._demand_each_once(who.tolist())
        copying = self.copying(who)
        return due, -(-lengths[due] // self.block_size) - table.count[who] + copying, copying

    def _extend(self, rows: Ints, lengths: Ints, need: Ints, copying: Bools) -> tuple[list[Copy], int]:
        """Give each row the blocks it needs, the first of them in place of a shared last block if it is copying."""
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

    def _grow_one_by_one(self, rows: Ints, lengths: Ints) -> Growth:
        """Grow row by row, each first giving back what its window has left behind."""
        copies: list[Copy] = []
        copied = 0
        for index, row in enumerate(rows.tolist()):
            self.leave_behind(row)
            growth = self.grow(rows[index : index + 1], lengths[index : index + 1])
            copies += growth.copies
            copied += growth.copied
            if growth.refusal is not None:
                return Growth(index, growth.refusal, copies, copied)
        return Growth(len(rows), None, copies, copied)

    @staticmethod
    def _demand_each_once(rows: Sequence[int]) -> None:
        if len(set(rows)) < len(rows):
            raise AllocatorError(f"a row is named twice: {rows}")

    def _short_of(self, need: int, spare: int) -> Refusal:
        reason = Reason.NEVER if need > self.num_blocks else Reason.BLOCKS
        return Refusal(reason, need, need + spare - self.pool.free)
