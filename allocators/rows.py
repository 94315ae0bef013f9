"""Rows that share blocks: the bookkeeping of a paged allocator.

A block may be held by several rows, so it has a reference count instead of an owner.  Apart from the block table,
three things are known about a row:

* the identity of its tokens (`contents`), where its full blocks are to be entered in the prefix cache; and, as an
  optimisation, whether entering them can wait because no other row could find them yet (`apart`);
* whether its last block must be copied before the row writes into it (copy-on-write), because another row or a
  copy on the host relies on its contents (`tails`);
* how many of its table entries are 0 because a sliding window has passed their blocks (summed up in `left`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from allocators.answers import Copy, Grant, Usage
from allocators.base import Allocator
from allocators.blockpool import BlockPool
from allocators.compiled import mypyc_attr
from allocators.content import Content
from allocators.host import HostPool
from allocators.sharing import shared_with
from allocators.table import Ints
from allocators.window import Window

Bools = npt.NDArray[np.bool_]


class Naming(NamedTuple):
    """Keys of blocks, and the cells of the block table in which the blocks are listed."""

    keys: list[int]
    rows: list[int]
    columns: list[int]


def last_of_each(naming: Naming) -> list[tuple[int, int, int]]:
    """Return the last block of each row: (row, key, column)."""
    last = {row: (row, key, column) for key, row, column in zip(*naming, strict=True)}
    return list(last.values())


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class SharingRows(Allocator):
    """The part of a paged allocator that keeps track of rows, reference counts and keys."""

    pool_type: ClassVar[type[BlockPool]] = BlockPool
    """Decides what happens to blocks that no row holds."""

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
            block_size: token slots per block.
            max_model_len: length of the longest sequence, in token slots.
            max_rows: sequences expected at once.
            prefix_cache: whether full blocks are kept for sequences that begin alike.
            sliding_window: tokens that a token attends to, itself included; None for all of them.  A block that no
                later token attends to is given back when its sequence next grows, even if that growth is then refused.
            host_blocks: blocks on the host for sequences that are swapped out.

        """
        super().__init__(num_blocks, block_size, max_model_len, max_rows)
        self.pool = self.pool_type(num_blocks)
        self.host = HostPool(host_blocks, max_rows, self.table.width, num_blocks)
        self.prefix_cache = prefix_cache and sliding_window != 1  # a token that reads itself alone can reuse nothing
        self.windowed = sliding_window is not None and sliding_window < max_model_len  # else no token leaves it
        self.window = Window(sliding_window or max_model_len + block_size, block_size)
        self.contents: dict[int, Content] = {}
        """Identity of the tokens of each row whose full blocks have keys.  Such a row is either entangled or apart."""
        self._entangled: set[int] = set()
        """Rows whose blocks are entered in the cache as soon as they are full."""
        self.apart: dict[int, int] = {}
        """Rows whose further blocks need not be entered yet -> number of blocks entered.

        No other row can find or fill such a block before it reaches the last one that was entered.  The rest is
        entered when a row does so, or folded (see `allocators.prefix`) when this row is closed.
        """
        self.tips: dict[int, int] = {}
        """Key of the last block entered for a row that is apart -> the row."""
        self.tails: set[int] = set()
        """Rows whose last block is not full and, when last looked at, was shared or had a copy on the host."""
        self.shared_slack = 0
        """Empty slots in shared last blocks, counted once for each holder beyond the first."""
        self.left = 0
        """Table entries that are 0 because a window has passed their blocks."""

    @property
    def entangled(self) -> set[int]:
        """See `Allocator.entangled`."""
        return self._entangled

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant:
        """See `Allocator.fork`.  Takes no block, so it is never refused."""
        self.demand_open(row)
        if content is not None:
            self.rejoin(row)
        self.pool.share(self.table.held(row))
        child = self.open_row(self.table.row(row).astype(np.int64), int(self.table.length[row]))
        if child in self.tails:
            self.tails.add(row)
        if content is not None and row in self.contents:
            self.know(child, content)
        return Grant(child, int(self.table.slots[child]))

    def release(self, row: int) -> None:
        """See `Allocator.release`.  The last blocks are freed first, so that a cached prefix is evicted last."""
        self.demand_open(row)
        self.close_row(row)

    def discard(self, row: int) -> None:
        """Close a row of the host's table, whose sequence will not return to the device."""
        self.host.demand_open(row)
        self.host.close(row)

    def usage(self) -> Usage:
        """See `Allocator.usage`."""
        size, pool, host = self.block_size, self.pool, self.host.pool
        saved, dropped = pool.shared * size - self.shared_slack, self.left * size
        swapped = host.held * size if len(self.host.table) else 0
        return Usage(pool.held * size, pool.cached * size, 0, saved, dropped, swapped)

    def repeated(self, aside: Sequence[int] = ()) -> int:
        """See `Allocator.repeated`."""
        if self.windowed:
            return 0
        size, pool, table = self.block_size, self.pool, self.table
        tokens = pool.shared * size - self.shared_slack
        if not tokens or not len(aside):
            return tokens
        return tokens - shared_with(pool.references, [table.row(row) for row in aside], table.length[aside], size)

    def largest_hole(self) -> int:
        """See `Allocator.largest_hole`: all free blocks, as they need not be adjacent."""
        pool = self.pool
        return (self.num_blocks - pool.held - pool.cached) * self.block_size

    def evictions(self) -> int:
        """See `Allocator.evictions`."""
        return self.pool.evicted

    def cached_blocks(self) -> Ints:
        """See `Allocator.cached_blocks`."""
        return self.pool.cached_blocks()

    def open_row(self, blocks: Ints, length: int) -> int:
        """Open a row for `blocks`, int64[count] in logical order, whose references already include it."""
        row, slots = self.table.open(), len(blocks) * self.block_size
        self.table.fill(row, blocks, length, slots)
        if self.windowed:
            self.left += int(np.count_nonzero(blocks == 0))
        if self.pool.shared and length < slots and self.pool.references[blocks[-1]] > 1:
            self.tails.add(row)
            self.shared_slack += slots - length
        return row

    def close_row(self, row: int) -> None:
        """Close a row and drop its references to its blocks, the last block first."""
        table = self.table
        if row in self.apart:
            self.leave(row)
        blocks = (table.held(row) if self.windowed else table.row(row).astype(np.int64))[::-1]
        if self.pool.shared and table.length[row] < table.slots[row] and self.pool.references[blocks[0]] > 1:
            self.shared_slack -= int(table.slots[row] - table.length[row])
        if self.windowed:
            self.left -= int(table.count[row]) - len(blocks)
        self.host.part(self.pool.let_go(blocks))
        self.tails.discard(row)
        self.contents.pop(row, None)
        self._entangled.discard(row)
        table.close(row)

    def leaving(self, rows: Ints) -> Bools:
        """Return bool[n]: which of `rows` hold blocks that their windows have passed."""
        table, size = self.table, self.block_size
        behind = np.maximum(0, table.length[rows] - self.window.tokens + 1) // size
        held: Bools = table.blocks[rows, behind - 1] != 0
        return held & (behind > 0)

    def behind(self, row: int) -> Ints:
        """Return int64[k]: blocks that a row holds although its window has passed them, from right to left."""
        cells = self.table.blocks[row, : self.window.behind(int(self.table.length[row]))]
        return cells[cells > 0][::-1].astype(np.int64)

    def leave_behind(self, row: int) -> None:
        """Give back the blocks that `behind` returns."""
        blocks = self.behind(row)
        self.table.blocks[row, : self.window.behind(int(self.table.length[row]))] = 0
        self.left += len(blocks)
        self.host.part(self.pool.let_go(blocks))

    def copying(self, rows: Ints) -> Bools:
        """Return bool[n]: which of `rows` must first copy their shared last block if all write now, in this order.

        The last of a block's holders to write need not copy it.
        """
        result = np.zeros(len(rows), np.bool_)
        writers: dict[int, int] = {}
        for index, row in enumerate(rows.tolist() if self.tails else ()):
            if row in self.tails:
                last = int(self.table.row(row)[-1])
                writers[last] = writers.get(last, 0) + 1
                result[index] = writers[last] < self.pool.references[last]
        return result

    def part_tails(self, rows: Ints, copying: Bools, targets: Ints) -> tuple[list[Copy], int]:
        """Give up the shared last blocks of the rows that copy them to `targets`.

        Returns:
            The copies, and the number of tokens in them.

        """
        table, copies, copied, target = self.table, [], 0, iter(targets.tolist())
        for row, copies_it in zip(rows.tolist(), copying.tolist(), strict=True):
            if row not in self.tails:
                continue
            self.tails.remove(row)
            last = table.row(row)[-1:].astype(np.int64)
            if copies_it:
                self.pool.let_go(last)
                self.shared_slack -= int(table.slots[row] - table.length[row])
                copies.append(Copy(int(last[0]), next(target)))
                copied += int(table.length[row]) % self.block_size
            else:
                self.host.part(last)
        return copies, copied

    def name(self, rows: Ints, columns: Ints) -> Naming:
        """Find the keys of blocks that are about to become full.  Blocks of rows that are apart are left out.

        Args:
            rows: int64[n], the row of each block.
            columns: int64[n], its column in the table; those of one row ascend.

        """
        if not self.entangled:
            return Naming([], [], [])
        naming = Naming([], rows.tolist(), columns.tolist())
        last = dict(zip(naming.rows, naming.columns, strict=True))  # the columns of a row ascend
        known = {
            row: self.contents[row].keys(self.block_size, column + 1)
            for row, column in last.items()
            if row in self.entangled
        }
        if len(known) < len(last):
            cells = [cell for cell in zip(naming.rows, naming.columns, strict=True) if cell[0] in known]
            naming = Naming([], *map(list, zip(*cells, strict=True))) if cells else Naming([], [], [])
        naming.keys.extend([known[row][column] for row, column in zip(naming.rows, naming.columns, strict=True)])
        return naming

    def order_matters(self, naming: Naming) -> int | None:
        """Return the index of the first block that must be entered in its turn, before others are taken, or None."""
        return None

    def enter(self, naming: Naming) -> None:
        """Enter blocks in the prefix cache, in the order in which they become full."""
        if not naming.keys:
            return
        self.meet(naming.keys)
        self.pool.cache.enter(naming.keys, self.table.blocks[naming.rows, naming.columns].astype(np.int64))
        if not self.windowed:
            for row, key, column in last_of_each(naming):
                if self.pool.cache.sole(key) and self.pool.references[self.table.blocks[row, column]] == 1:
                    self.part(row, key, column + 1)

    def enter_row(self, row: int, start: int, stop: int) -> None:
        """Enter the blocks in columns `[start, stop)` of one row.

        If the first of them is new to the cache, so are the others: the row is then apart, and they can wait.
        """
        self.enter(self.naming(row, start, min(start + 1, stop)))
        if row in self._entangled:
            self.enter(self.naming(row, start + 1, stop))

    def naming(self, row: int, start: int, stop: int) -> Naming:
        """Find the keys of the blocks in columns `[start, stop)` of one row."""
        keys = self.contents[row].keys(self.block_size, stop)[start:stop]
        return Naming(keys, [row] * len(keys), list(range(start, stop)))

    # -- rows that are apart ---------------------------------------------------------------

    def know(self, row: int, content: Content) -> None:
        """Remember the content of a row whose full blocks have all been entered, or are about to be."""
        self.contents[row] = content
        self._entangled.add(row)

    def part(self, row: int, key: int, entered: int) -> None:
        """Stop entering a row's blocks for now; the last of the `entered` ones has `key`."""
        self._entangled.discard(row)
        self.apart[row] = entered
        self.tips[key] = row

    def catch_up(self, row: int) -> bool:
        """Enter the blocks that a row has filled since it is apart; return whether there are any."""
        full = int(self.table.length[row]) // self.block_size
        if full == self.apart[row]:
            return False
        self.rejoin(row)
        self.part(row, self.contents[row].keys(self.block_size, full)[full - 1], full)
        return True

    def rejoin(self, row: int) -> None:
        """Enter all full blocks of a row that is apart, and from now on each block as soon as it is full."""
        if row not in self.apart:
            return
        size, entered = self.block_size, self.apart.pop(row)
        del self.tips[self.contents[row].keys(size, entered)[entered - 1]]
        self._entangled.add(row)
        if (full := int(self.table.length[row]) // size) > entered:
            self.enter_run(row, entered, full)

    def enter_run(self, row: int, start: int, stop: int) -> None:
        """Enter the blocks in columns `[start, stop)` of a row that was apart; none of their keys is in the cache."""
        keys = self.contents[row].keys(self.block_size, stop)[start:stop]
        self.pool.cache.enter(keys, self.table.blocks[row, start:stop].astype(np.int64))

    def leave(self, row: int) -> None:
        """Fold the full blocks that have not been entered, of a row that is apart and about to be closed."""
        size, entered, full = self.block_size, self.apart.pop(row), int(self.table.length[row]) // self.block_size
        key, *keys = self.contents[row].keys(size, full)[entered - 1 : full]
        del self.tips[key]
        if keys:
            self.pool.cache.fold(key, keys, self.table.blocks[row, entered:full].astype(np.int64))

    def gather(self, rows: Sequence[int]) -> None:
        """Let all rows that grow together rejoin if one of them is entangled: it might fill a block equal to theirs."""
        if self.apart and not self.entangled.isdisjoint(rows):
            for row in rows:
                self.rejoin(row)

    def meet(self, keys: Sequence[int]) -> None:
        """Prepare for blocks with these keys to be entered or shared.

        Rows that are apart behind such a block enter what they have filled since, and runs that are folded behind it
        are unfolded.
        """
        self.pool.cache.unfold(keys)
        if self.tips and not self.tips.keys().isdisjoint(keys):
            for key in keys:
                row = self.tips.get(key)
                if row is not None and not self.catch_up(row):
                    self.rejoin(row)
