"""Rows that share blocks: the bookkeeping of a paged allocator.

A block may be held by several rows, so it has a reference count instead of an owner.  Apart from the block table and
what a prefix cache needs (`allocators.keyed`), two things are known about a row:

* whether its last block must be copied before the row writes into it (copy-on-write), because another row or a
  copy on the host relies on its contents (`tails`);
* how many of its table entries are 0 because a sliding window has passed their blocks (summed up in `left`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from allocators.answers import Copy, Grant, Usage
from allocators.blockpool import BlockPool
from allocators.compiled import mypyc_attr
from allocators.content import Content
from allocators.groups import cut, parse
from allocators.host import HostPool
from allocators.pieces import PiecePool
from allocators.sharing import shared_with
from allocators.swapping import SwappingRows
from allocators.table import BlockTable, Bools, Ints
from allocators.window import Window


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class SharingRows(SwappingRows):
    """The part of a paged allocator that opens, forks and closes rows and keeps the running counts."""

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
        self.cache = self.pool.cache
        self.prefix_cache = prefix_cache and sliding_window != 1  # a token that reads itself alone can reuse nothing
        self.windowed = sliding_window is not None and sliding_window < max_model_len  # else no token leaves it
        self.window = Window(sliding_window or max_model_len + block_size, block_size)
        self.pieces = [*cut(parse("full 1x1"), block_size, "uniform").attention]
        self.host = HostPool(PiecePool(host_blocks, 1, self.pieces, 0), max_rows, self.table.width, num_blocks)
        self.tails: set[int] = set()
        """Rows whose last block is not full and, when last looked at, was shared or had a copy on the host."""
        self.shared_slack = 0
        """Empty slots in shared last blocks, counted once for each holder beyond the first."""
        self.left = 0
        """Table entries that are 0 because a window has passed their blocks."""

    @property
    def references(self) -> Ints:
        """See `KeyedRows.references`."""
        return self.pool.references

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

    def usage(self) -> Usage:
        """See `Allocator.usage`."""
        size, pool = self.block_size, self.pool
        saved, dropped = pool.shared * size - self.shared_slack, self.left * size
        swapped = self.host.pool.blocks_held * size if len(self.host.table) else 0
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
        """See `SwappingRows.open_row`."""
        row, slots = self.table.open(), len(blocks) * self.block_size
        self.table.fill(row, blocks, length, slots)
        if self.windowed:
            self.left += int(np.count_nonzero(blocks == 0))
        if self.pool.shared and length < slots and self.pool.references[blocks[-1]] > 1:
            self.tails.add(row)
            self.shared_slack += slots - length
        return row

    def close_row(self, row: int) -> None:
        """See `SwappingRows.close_row`."""
        table = self.table
        self.forget(row)
        blocks = (table.held(row) if self.windowed else table.row(row).astype(np.int64))[::-1]
        if self.pool.shared and table.length[row] < table.slots[row] and self.pool.references[blocks[0]] > 1:
            self.shared_slack -= int(table.slots[row] - table.length[row])
        if self.windowed:
            self.left -= int(table.count[row]) - len(blocks)
        self.host.part(self.pool.let_go(blocks))
        self.tails.discard(row)
        table.close(row)

    def copy_on_write(self, row: int) -> None:
        """See `SwappingRows.copy_on_write`."""
        if self.table.length[row] < self.table.slots[row]:
            self.tails.add(row)

    def cells_of(self, row: int, table: BlockTable) -> list[Ints]:
        """See `SwappingRows.cells_of`; there is one group."""
        return [table.row(row).astype(np.int64)]

    def missing(self, needs: list[int], rows: int, spare: int) -> int:
        """See `SwappingRows.missing`."""
        return needs[0] + spare - self.pool.free

    def share(self, group: int, pieces: Ints) -> None:
        """See `SwappingRows.share`."""
        self.pool.share(pieces)

    def take(self, group: int, count: int) -> Ints:
        """See `SwappingRows.take`."""
        return self.pool.take(count)[0]

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
        blocks, behind = self.behind(row), self.window.behind(int(self.table.length[row]))
        left = enumerate(blocks[::-1].tolist(), behind - len(blocks))
        self.give_back([(row, 0, place, block) for place, block in left])
        self.table.blocks[row, :behind] = 0
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
