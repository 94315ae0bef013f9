"""Keyed rows: which rows enter the blocks that they fill in the prefix cache, and when.

A full block is entered under its key as soon as it is full if another row could find or fill the same block: its row
is *entangled*.  Most rows are not: once such a row has entered a block that no other row holds, nobody can find a
later one of its blocks without reaching that block first.  The row is then *apart*, and entering its further blocks
can wait until another row gets there, or until it is closed.  That saves most of the work of a prefix cache, and
changes nothing that can be observed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from allocators.base import Allocator
from allocators.blockpool import BlockPool
from allocators.compiled import mypyc_attr
from allocators.content import Content, Run
from allocators.table import Ints
from allocators.window import Window


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
class KeyedRows(Allocator):
    """The part of a paged allocator that knows what its rows' tokens are."""

    pool_type: ClassVar[type[BlockPool]] = BlockPool
    """Decides what happens to blocks that no row holds."""

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        max_model_len: int,
        max_rows: int,
        *,
        prefix_cache: bool,
        sliding_window: int | None,
    ) -> None:
        """Make an empty pool; the arguments are those of `allocators.rows.SharingRows`."""
        super().__init__(num_blocks, block_size, max_model_len, max_rows)
        self.pool = self.pool_type(num_blocks)
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

    @property
    def entangled(self) -> set[int]:
        """See `Allocator.entangled`."""
        return self._entangled

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
        keys = Run(self.contents[row], self.block_size, start, stop).keys
        return Naming(keys, [row] * len(keys), list(range(start, stop)))

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
        self.part(row, self.contents[row].key(self.block_size, full - 1), full)
        return True

    def rejoin(self, row: int) -> None:
        """Enter all full blocks of a row that is apart, and from now on each block as soon as it is full."""
        if row not in self.apart:
            return
        size, entered = self.block_size, self.apart.pop(row)
        del self.tips[self.contents[row].key(size, entered - 1)]
        self._entangled.add(row)
        if (full := int(self.table.length[row]) // size) > entered:
            self.enter_run(row, entered, full)

    def enter_run(self, row: int, start: int, stop: int) -> None:
        """Enter the blocks in columns `[start, stop)` of a row that was apart; none of their keys is in the cache."""
        keys = Run(self.contents[row], self.block_size, start, stop).keys
        self.pool.cache.enter(keys, self.table.blocks[row, start:stop].astype(np.int64))

    def leave(self, row: int) -> None:
        """Fold the full blocks that have not been entered, of a row that is apart and about to be closed."""
        size, entered, full = self.block_size, self.apart.pop(row), int(self.table.length[row]) // self.block_size
        key = self.contents[row].key(size, entered - 1)
        del self.tips[key]
        if full > entered:
            run = Run(self.contents[row], size, entered, full)
            self.pool.cache.fold(key, run, self.table.blocks[row, entered:full].astype(np.int64))

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
