"""Paged allocation: blocks on demand, as in PagedAttention and vLLM.

A sequence holds exactly the blocks its tokens need, anywhere in the pool, listed in its
row of the block table; the only slots it wastes are the rest of its last block.  And as
blocks are alike, sequences share what they have in common:

* a *prefix*: full blocks have keys, and who begins with the same tokens takes the same
  blocks, even after those who computed them are gone (`allocators.prefix`);
* a *fork*: parallel samples and beams hold the same blocks until one writes into a shared
  last block, which is copied first (copy-on-write, `allocators.rows`);
* a *swap*: what is shared crosses to the host and back once (`allocators.swapping`).

Which block is taken when is vLLM's policy, in `allocators.blockpool`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from allocators.answers import MISS, Ask, Copy, Grant, Growth, Hit, Leap, Reason, Refusal, Swap
from allocators.audit import audit
from allocators.compiled import mypyc_attr
from allocators.content import Content
from allocators.errors import AllocatorError
from allocators.leap import leap, spread
from allocators.options import BLOCK_SIZE, Option
from allocators.rows import Bools, SharingRows
from allocators.swapping import swap_in, swap_out
from allocators.table import Ints

FEW = 24
"""Rows up to which Python beats NumPy."""
MANY = 96
"""Blocks up to which it does where no more is done than to list them."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PagedAllocator(SharingRows):
    """A pool whose blocks are taken one by one, as sequences grow, and shared where they can be."""

    kind: ClassVar[str] = "paged"
    options: ClassVar[Mapping[str, Option]] = MappingProxyType(
        {
            "block_size": BLOCK_SIZE,
            "prefix_cache": Option(bool, False, "keep full blocks for sequences that begin alike"),
            "sliding_window": Option(
                int, None, "tokens a token attends to; unset for all of them", minimum=1, fact="sliding_window"
            ),
            "host_blocks": Option(
                int, 0, "blocks on the host for sequences swapped out", minimum=0, fact="host_blocks"
            ),
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
            sliding_window: tokens a token attends to, itself included; None for all, 1 leaves nothing to cache.
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
        self._reaches = np.greater_equal if self.prefix_cache else np.greater

    @property
    def notice(self) -> int | None:
        """See `Allocator.notice`."""
        return int(self.prefix_cache or self.windowed) if self.regular else None

    @property
    def regular(self) -> bool:
        """See `Allocator.regular`."""
        return not self.windowed or not self.prefix_cache

    @property
    def leaves_behind(self) -> int | None:
        """See `Allocator.leaves_behind`."""
        return self.window.tokens - 1 if self.windowed else None

    @property
    def settled(self) -> bool:
        """See `Allocator.settled`."""
        return not self.prefix_cache and not self.windowed

    def swap_out_group(self, rows: Sequence[int]) -> list[Swap] | Refusal:
        """See `Allocator.swap_out_group`."""
        return swap_out(self, rows)

    def swap_in_group(self, rows: Sequence[int], spare: int = 0) -> list[Swap] | Refusal:
        """See `Allocator.swap_in_group`."""
        return swap_in(self, rows, spare)

    def check(self) -> None:
        """See `Allocator.check`."""
        audit(self)

    # -- admission -------------------------------------------------------------------------

    def lookup(self, content: Content, tokens: int) -> Hit:
        """See `Allocator.lookup`.  Stops at the first miss; in a sliding window earlier blocks may be missing."""
        if not self.prefix_cache:
            return MISS
        full = (tokens - 1) // self.block_size
        while True:
            blocks = self.find(content, full)
            last = content.keys(self.block_size, len(blocks))[len(blocks) - 1] if blocks else 0
            row = self.tips.get(last)
            if row is None or not self.catch_up(row):
                return Hit(len(blocks) * self.block_size, tuple(blocks))

    def find(self, content: Content, count: int) -> list[int]:
        """Return those of the first `count` blocks of a content that make a prefix hit, as far as they are entered."""
        keys = content.keys(self.block_size, count)[:count]
        return self.pool.cache.window(keys, self.window.reach) if self.windowed else self.pool.cache.run(keys)

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """See `Allocator.never`: the context bounds a sequence, then the pool."""
        if max(ask.tokens, ask.whole, final) > self.max_model_len:
            return self.too_long(max(ask.tokens, ask.whole, final))
        most = self.window.most(ask.tokens, final, ask.samples)
        need = max(most, self.blocks_for(max(ask.tokens, ask.whole)) + ask.spare)
        return Refusal(Reason.NEVER, need, need - self.num_blocks) if need > self.num_blocks else None

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`.  What the hit does not cover is taken; hit blocks that nobody held are revived."""
        hit, size, table = ask.hit, self.block_size, self.table
        if not len(hit.blocks) * size == hit.tokens < ask.tokens:
            raise AllocatorError(f"{ask.tokens} token slots are not more than the {hit.tokens} of the prefix hit")
        if hit.blocks and not self.prefix_cache:
            raise AllocatorError("there is no prefix cache to hit")
        whole = max(ask.tokens, ask.whole)
        if whole > self.max_model_len:
            return self.too_long(whole)
        if not self.prefix_cache:
            last = -(-whole // size)
            if last + ask.spare > self.pool.free:
                return self._short_of(last, ask.spare)
            need = -(-ask.tokens // size)
            return Grant(self.open_row(self.pool.take(need)[0], ask.tokens), need * size)
        blocks = np.array(hit.blocks, np.int64)
        reused = blocks[blocks > 0]
        if len(blocks) and not self.is_fresh(ask.content, blocks):
            raise AllocatorError("the prefix hit is stale: a block of it was taken since the look-up")
        need = self.blocks_for(whole) - len(hit.blocks) + self.pool.revived(reused)
        if need + ask.spare > self.pool.free:
            return self._short_of(need, ask.spare)
        if len(blocks):
            self.take_part(ask.content, blocks)
        taken, _ = self.pool.take(self.blocks_for(ask.tokens) - len(hit.blocks))
        row = self.open_row(np.concatenate([blocks, taken]), ask.tokens)
        self.know(row, ask.content)
        self.enter_row(row, len(blocks), ask.tokens // size)
        return Grant(row, int(table.slots[row]))

    def is_fresh(self, content: Content, blocks: Ints) -> bool:
        """Whether blocks of a prefix hit still hold what they did."""
        keys = content.keys(self.block_size, len(blocks))[: len(blocks)]
        return bool((self.pool.cache.key[blocks] == np.array(keys, np.int64))[blocks > 0].all())

    def take_part(self, content: Content, blocks: Ints) -> None:
        """Hold the blocks of a prefix hit, for a row that is about to be opened."""
        self.meet(content.keys(self.block_size, len(blocks))[len(blocks) - 1 : len(blocks)])
        self.pool.share(blocks[blocks > 0])

    def reset(self) -> Refusal | None:
        """Forget every cached prefix.  Refused while any block is held."""
        if self.pool.held:
            return Refusal(Reason.BLOCKS, self.num_blocks, self.pool.held)
        self.pool.forget()
        return None

    # -- growth ----------------------------------------------------------------------------

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """See `Allocator.grow`.  A few NumPy calls, and work only for rows that run out of slots or fill a block."""
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
        table, size, evicted = self.table, self.block_size, self.pool.evicted
        blocks, lost = self.pool.take(len(rows))
        if len(rows) > MANY:
            self._append_many(rows, blocks)
        else:
            length, count, slots, cells = table.length.data, table.count.data, table.slots.data, table.blocks.data
            for row, block in zip(rows, blocks.tolist(), strict=True):
                have = count[row]
                cells[row, have] = block
                length[row] = have * size + 1
                count[row] = have = have + 1
                slots[row] = have * size
        return lost.tolist() if self.pool.evicted > evicted else ()

    def _append_many(self, named: Sequence[int], blocks: Ints) -> None:
        """List blocks in the rows they were taken for, where a row may be named several times."""
        table, size, rows = self.table, self.block_size, np.array(named, np.int64)
        columns = table.count[rows]
        if len(set(named)) < len(named):
            order = rows.argsort(kind="stable")
            rows, blocks, columns = rows[order], blocks[order], columns[order]
            place = np.arange(len(rows))
            begins = np.append(True, rows[1:] != rows[:-1])
            columns += place - np.maximum.accumulate(np.where(begins, place, 0))
        table.blocks[rows, columns] = blocks
        columns += 1
        table.count[rows] = columns  # of a row that is here several times, the last one stays
        table.slots[rows] = slots = columns * size
        table.length[rows] = slots - size + 1

    def shift(self, rows: Sequence[int], lengths: Sequence[int]) -> int:
        """See `Allocator.shift`.  What is given back is taken next."""
        table, size, first = self.table, self.block_size, self.window.tokens - 1 + self.block_size
        length, count, slots, cells = table.length.data, table.count.data, table.slots.data, table.blocks.data
        takers = sum(after % size == 1 % size for after in lengths)
        fresh, _ = self.pool.take(min(takers, self.pool.free))
        fresh = fresh[::-1].tolist()  # the last one is taken next ...
        given: list[int] = []  # ... unless something has been given back meanwhile
        left: list[int] = []
        granted = 0
        for row, after in zip(rows, lengths, strict=True):
            before = after - 1
            if before >= first and (before - first) % size == 0:
                column = (before - first) // size
                if block := cells[row, column]:  # else it left it when it was last refused
                    cells[row, column] = 0
                    given.append(block)
                    left.append(block)
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
        return granted

    @property
    def room(self) -> int:
        """See `Allocator.room`.  None takes more than a block."""
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
        self.gather(rows.tolist())
        if self.windowed or not self.tails.isdisjoint(rows.tolist()):
            return super().advance(rows, lengths, steps)
        return leap(self, rows, lengths, steps)

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
        if not len(due):
            return due, due, reach[due]
        who = rows[due]
        if not table.count[who].all():
            raise AllocatorError(f"row {int(who[table.count[who] == 0][0])} is not open")
        self.demand_each_once(who.tolist())
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

    def turns(self, rows: Ints, lengths: Ints) -> Bools | None:
        """Say which of `rows` change, by growing, what those after them may take; None if none does.

        These are rows that first give back what their window has left behind.
        """
        leaving = self.leaving(rows) if self.windowed else None
        return leaving if leaving is not None and leaving.any() else None

    def _grow_in_turns(self, rows: Ints, lengths: Ints, turns: Bools) -> Growth:
        """Grow in order, in as few pieces as `turns` allows."""
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
        """Count the blocks that each row needs, if all are plain cases: no fork, none named twice, none too long."""
        table, size, longest = self.table, self.block_size, self.max_model_len
        named = set(rows)
        if len(named) < len(rows) or not table.open_all(named) or not self.tails.isdisjoint(named):
            return None
        now, count = table.length.data, table.count.data
        needs = []
        for row, length in zip(rows, lengths, strict=True):
            if not now[row] <= length <= longest:
                return None
            needs.append(-(-length // size) - count[row])
        return needs

    def _grow_few(self, rows: list[int], lengths: list[int], needs: list[int]) -> Growth:
        """Do for a few rows what `_extend` does for many, one after the other, without its forty array operations."""
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
