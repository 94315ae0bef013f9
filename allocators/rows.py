"""Rows that share blocks: what a sequence holds, as opposed to what it may take.

A block has a number of holders, not an owner.  So beyond its blocks three things must be known of a row:

* what its tokens are, if its full blocks are to have keys (`contents`), and which of the blocks have none
  yet because no other row could find them (`apart`);
* whether it may write into its last block or must copy it first, because another row, or a twin on the
  host, relies on its contents (`tails`: copy-on-write);
* how many of its entries a sliding window has left behind (they are 0).
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
    """Keys of blocks, and the table cells in which the blocks are listed."""

    keys: list[int]
    rows: list[int]
    columns: list[int]


def last_of_each(naming: Naming) -> list[tuple[int, int, int]]:
    """List the last block of each row: (row, key, column)."""
    last = {row: (row, key, column) for key, row, column in zip(*naming, strict=True)}
    return list(last.values())


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class SharingRows(Allocator):
    """The part of a paged allocator that keeps the books: rows, holders, keys and running counts."""

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
            block_size: token slots a block.
            max_model_len: the longest sequence, in token slots.
            max_rows: sequences expected at once.
            prefix_cache: whether full blocks are kept for sequences that begin alike.
            sliding_window: tokens a token attends to, itself included; None for all, 1 leaves nothing to cache.
                A block that no later token attends to is given back when its sequence next
                grows, even if that growth is then refused.
            host_blocks: blocks on the host for sequences that are swapped out.

        """
        super().__init__(num_blocks, block_size, max_model_len, max_rows)
        self.pool = self.pool_type(num_blocks)
        self.host = HostPool(host_blocks, max_rows, self.table.width, num_blocks)
        self.prefix_cache = prefix_cache and sliding_window != 1  # a token that reads itself alone can reuse nothing
        self.windowed = sliding_window is not None and sliding_window < max_model_len  # else no token leaves it
        self.window = Window(sliding_window or max_model_len + block_size, block_size)
        self.contents: dict[int, Content] = {}
        """Tokens of each row whose full blocks have keys."""
        self._entangled: set[int] = set()
        """Those of these rows whose blocks are entered in the cache as soon as they are full ..."""
        self.apart: dict[int, int] = {}
        """... and, with the number of blocks entered, those whose further blocks no other row can find or fill without
        reaching the last one entered.  The rest is entered when a row gets there, or is folded when this one closes."""
        self.tips: dict[int, int] = {}
        """Key of that last entered block -> the row that is apart."""
        self.tails: set[int] = set()
        """Rows whose last block is not full and was shared, or had a twin on the host, when last seen."""
        self.shared_slack = 0
        """Empty slots in shared last blocks, counted once for each holder beyond the first."""
        self.left = 0
        """Table entries that the window has left behind."""

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
        """See `Allocator.release`.  Blocks go back tail first."""
        self.demand_open(row)
        self.close_row(row)

    def discard(self, row: int) -> None:
        """Close a row of the host's table: its sequence will not come back."""
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
        """See `Allocator.largest_hole`: blocks that are neither held nor cached may lie anywhere."""
        pool = self.pool
        return (self.num_blocks - pool.held - pool.cached) * self.block_size

    def evictions(self) -> int:
        """See `Allocator.evictions`."""
        return self.pool.evicted

    def cached_blocks(self) -> Ints:
        """See `Allocator.cached_blocks`."""
        return self.pool.cached_blocks()

    def open_row(self, blocks: Ints, length: int) -> int:
        """Open a row that lists `blocks`, int64[count] in logical order; the pool counts their new holder already."""
        row, slots = self.table.open(), len(blocks) * self.block_size
        self.table.fill(row, blocks, length, slots)
        if self.windowed:
            self.left += int(np.count_nonzero(blocks == 0))
        if self.pool.shared and length < slots and self.pool.references[blocks[-1]] > 1:
            self.tails.add(row)
            self.shared_slack += slots - length
        return row

    def close_row(self, row: int) -> None:
        """Close a row and let go of its blocks, tail first."""
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
        """Return bool[n]: which of `rows` hold blocks that their windows have left behind."""
        table, size = self.table, self.block_size
        behind = np.maximum(0, table.length[rows] - self.window.tokens + 1) // size
        held: Bools = table.blocks[rows, behind - 1] != 0
        return held & (behind > 0)

    def behind(self, row: int) -> Ints:
        """Return int64[k]: blocks that a row still holds although its window has left them behind, right to left."""
        cells = self.table.blocks[row, : self.window.behind(int(self.table.length[row]))]
        return cells[cells > 0][::-1].astype(np.int64)

    def leave_behind(self, row: int) -> None:
        """Let go of the blocks that `behind` lists."""
        blocks = self.behind(row)
        self.table.blocks[row, : self.window.behind(int(self.table.length[row]))] = 0
        self.left += len(blocks)
        self.host.part(self.pool.let_go(blocks))

    def copying(self, rows: Ints) -> Bools:
        """Return bool[n]: which of `rows` must copy a shared last block first if all write now, in this order."""
        result = np.zeros(len(rows), np.bool_)
        writers: dict[int, int] = {}
        for index, row in enumerate(rows.tolist() if self.tails else ()):
            if row in self.tails:
                last = int(self.table.row(row)[-1])
                writers[last] = writers.get(last, 0) + 1
                result[index] = writers[last] < self.pool.references[last]
        return result

    def part_tails(self, rows: Ints, copying: Bools, targets: Ints) -> tuple[list[Copy], int]:
        """Let go of the shared last blocks of the rows that copy them to `targets`.

        Returns:
            The copies, and how many tokens they carry.

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
        """Find the keys of blocks that are about to be full, given as table cells, those of each row in order.

        Blocks of rows that are apart are left out.
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
        """Return the first of these that must be entered in its turn, not after all blocks are taken; None if none."""
        return None

    def enter(self, naming: Naming) -> None:
        """Enter blocks that the table lists in the prefix cache, in the order in which they become full."""
        if not naming.keys:
            return
        self.meet(naming.keys)
        self.pool.cache.enter(naming.keys, self.table.blocks[naming.rows, naming.columns].astype(np.int64))
        if not self.windowed:
            for row, key, column in last_of_each(naming):
                if self.pool.cache.sole(key) and self.pool.references[self.table.blocks[row, column]] == 1:
                    self.part(row, key, column + 1)

    def enter_row(self, row: int, start: int, stop: int) -> None:
        """Do `enter` for the blocks in columns `[start, stop)` of one row.

        If the first one is new, so are the others; the row is then apart after the first, and the others can wait.
        """
        self.enter(self.naming(row, start, min(start + 1, stop)))
        if row in self._entangled:
            self.enter(self.naming(row, start + 1, stop))

    def naming(self, row: int, start: int, stop: int) -> Naming:
        """Find the keys of blocks in columns `[start, stop)` of one row."""
        keys = self.contents[row].keys(self.block_size, stop)[start:stop]
        return Naming(keys, [row] * len(keys), list(range(start, stop)))

    # -- rows that are apart ---------------------------------------------------------------

    def know(self, row: int, content: Content) -> None:
        """Note the content of a row whose full blocks are all entered, or about to be."""
        self.contents[row] = content
        self._entangled.add(row)

    def part(self, row: int, key: int, entered: int) -> None:
        """Let a row, whose last entered block has `key`, stop entering blocks for now."""
        self._entangled.discard(row)
        self.apart[row] = entered
        self.tips[key] = row

    def catch_up(self, row: int) -> bool:
        """Enter the blocks that a row that is apart has filled meanwhile; returns whether there are any."""
        full = int(self.table.length[row]) // self.block_size
        if full == self.apart[row]:
            return False
        self.rejoin(row)
        self.part(row, self.contents[row].keys(self.block_size, full)[full - 1], full)
        return True

    def rejoin(self, row: int) -> None:
        """Enter all of a row's full blocks now, and each later one as soon as it is full."""
        if row not in self.apart:
            return
        size, entered = self.block_size, self.apart.pop(row)
        del self.tips[self.contents[row].keys(size, entered)[entered - 1]]
        self._entangled.add(row)
        if (full := int(self.table.length[row]) // size) > entered:
            self.enter_run(row, entered, full)

    def enter_run(self, row: int, start: int, stop: int) -> None:
        """Enter the blocks in columns `[start, stop)` of a row that was apart; the cache has none of their keys."""
        keys = self.contents[row].keys(self.block_size, stop)[start:stop]
        self.pool.cache.enter(keys, self.table.blocks[row, start:stop].astype(np.int64))

    def leave(self, row: int) -> None:
        """Fold the full blocks that a row which is apart has not entered; the row is about to be closed."""
        size, entered, full = self.block_size, self.apart.pop(row), int(self.table.length[row]) // self.block_size
        key, *keys = self.contents[row].keys(size, full)[entered - 1 : full]
        del self.tips[key]
        if keys:
            self.pool.cache.fold(key, keys, self.table.blocks[row, entered:full].astype(np.int64))

    def gather(self, rows: Sequence[int]) -> None:
        """Let rows that grow together rejoin if one of them is entangled: it may fill another one's last block."""
        if self.apart and not self.entangled.isdisjoint(rows):
            for row in rows:
                self.rejoin(row)

    def meet(self, keys: Sequence[int]) -> None:
        """Let rows that are apart catch up if one of `keys`, to be entered or shared, is their last entered block's.

        Runs that are folded behind such a block are entered, too.
        """
        self.pool.cache.unfold(keys)
        if self.tips and not self.tips.keys().isdisjoint(keys):
            for key in keys:
                row = self.tips.get(key)
                if row is not None and not self.catch_up(row):
                    self.rejoin(row)
