"""Keyed rows: which rows enter the blocks that they fill in the prefix cache, and when.

A full block is entered under its key as soon as it is full if another row could find or fill the same block: its row
is *entangled*.  Most rows are not: once such a row has entered a block that no other row has had, nobody can come to a
later one of its blocks without coming to that block first.  The row is then *apart*, and entering its further blocks
can wait until somebody comes with the key of that block.  Those that it gives back until then, because a window has
passed them or because it is closed or swapped out, are folded (`allocators.folded`).  That saves most of the work of a
prefix cache, and changes nothing that can be observed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from allocators.compiled import mypyc_attr
from allocators.content import Content
from allocators.prefix import PrefixCache
from allocators.rowkeys import Left, Naming, RowKeys, last_of_each
from allocators.runs import Run, key_in, keys_in
from allocators.table import Ints


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class KeyedRows(RowKeys):
    """The part of an allocator that enters its rows' blocks in a prefix cache."""

    cache: PrefixCache
    """The prefix cache of the pool."""
    prefix_cache: bool
    """Whether full blocks are kept for sequences that begin alike."""
    windowed: bool
    """Whether rows give back blocks that a window has passed."""

    def __init__(self, num_blocks: int, block_size: int, max_model_len: int, max_rows: int) -> None:
        """Make an empty pool of one group of layers; the arguments are those of `Allocator`."""
        super().__init__(num_blocks, block_size, max_model_len, max_rows)
        self._entangled: set[int] = set()
        """Rows whose blocks are entered in the cache as soon as they are full."""
        self.apart: dict[int, int] = {}
        """Rows whose further blocks need not be entered yet -> number of blocks entered."""
        self.tips: dict[int, int] = {}
        """Key of the last block entered for a row that is apart -> the row."""
        self._tip: dict[int, int] = {}
        """The other way round."""
        self.passed: dict[int, int] = {}
        """Key -> number of open rows that have entered a block with it, or hit one, but that do not hold it any more,
        as a window has passed it."""

    @property
    @abstractmethod
    def references(self) -> Ints:
        """int64[num_blocks + 1]: how many rows hold each block."""

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
            row: self.contents[row].keys(self.block_tokens, column + 1)
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
        for group in self.attention:
            cells = self.table.blocks[naming.rows, self._columns(group, naming.columns)].astype(np.int64)
            self.cache.enter(keys_in(group, naming.keys), cells)
        for row, key, column in last_of_each(naming):
            if self.alone(row, key, column):
                self.part(row, key, column + 1)

    def alone(self, row: int, key: int, place: int) -> bool:
        """Whether no other open row has, or had, the block with `key` that a row has just entered.

        If closed rows have left such blocks, none of their further blocks may be entered.
        """
        block = self.table.blocks.item(row, self.first_column[self.keeper] + place * self.stride)
        if self.references.item(block) != 1 or key in self.passed:
            return False
        named = key_in(self.keeper, key)
        if self.cache.sole(named):
            return True
        if place + 1 >= self._full(row) or np.count_nonzero(self.references[self.cache.carriers(named)]) > 1:
            return False
        following = self.contents[row].key(self.block_tokens, place + 1)
        return not self.cache.find(key_in(self.keeper, following))

    def enter_row(self, row: int, start: int, stop: int) -> None:
        """Enter the blocks in places `[start, stop)` of one row.

        If no other row has had the first of them, none has had the others: the row is then apart, and they can wait.
        """
        if start == stop:
            return
        key = self.contents[row].key(self.block_tokens, start)
        self.meet([key])
        for group in self.attention:
            block = self.table.blocks.item(row, self.first_column[group] + start * self.stride)
            self.cache.enter_one(key_in(group, key), block)
        if self.alone(row, key, start):
            self.part(row, key, start + 1)
        else:
            self.enter(self.naming(row, start + 1, stop))

    def know(self, row: int, content: Content) -> None:
        """Remember the content of an open row whose full blocks have all been entered, or are about to be."""
        self.contents[row] = content
        self._entangled.add(row)
        if self.windowed and not content.unheard:  # it may have come by blocks that it does not hold
            keys = self._keys(row, self._full(row))
            self.meet(keys)
            self._pass(keys[: self._left(row, self.keeper)], 1)

    def forget(self, row: int) -> None:
        """Forget the content of a row that is about to be closed; fold what it has not entered."""
        if self.windowed and row in self.contents:
            self._pass(self._keys(row, min(self.entered(row), self._left(row, self.keeper))), -1)
        if row in self.apart:
            self.leave(row)
        self.contents.pop(row, None)
        self._entangled.discard(row)

    def entered(self, row: int) -> int:
        """Count the full blocks of a row that have been entered."""
        return self.apart.get(row, self._full(row))

    def _pass(self, keys: list[int], more: int) -> None:
        """Count a row that has come by blocks with these keys and does not hold them (1), or is closed (-1)."""
        for key in keys:
            count = self.passed.get(key, 0) + more
            if count:
                self.passed[key] = count
            else:
                del self.passed[key]

    def part(self, row: int, key: int, entered: int) -> None:
        """Stop entering a row's blocks for now; the last of the `entered` ones has `key`."""
        self._entangled.discard(row)
        self.apart[row] = entered
        self.tips[key] = row
        self._tip[row] = key

    def catch_up(self, row: int) -> bool:
        """Enter the blocks that a row has filled since it is apart; return whether there are any."""
        full = self._full(row)
        if full == self.apart[row]:
            return False
        self.rejoin(row)
        self.part(row, self.contents[row].key(self.block_tokens, full - 1), full)
        return True

    def rejoin(self, row: int) -> None:
        """Enter all full blocks of a row that is apart, and from now on each block as soon as it is full."""
        if row not in self.apart:
            return
        entered, full = self.apart.pop(row), self._full(row)
        del self.tips[self._tip.pop(row)]
        self._entangled.add(row)
        if full > entered:
            if self.cache.folds:  # perhaps behind one of these blocks, by a row that had the same tokens
                self.cache.unfold(self._keys(row, full)[entered - 1 :])
            if self.windowed:
                self._pass(self._keys(row, full)[entered : self._left(row, self.keeper)], 1)
            self.enter_run(row, entered, full)

    def enter_run(self, row: int, start: int, stop: int) -> None:
        """Enter the blocks that a row holds in places `[start, stop)`, which it has filled while it was apart."""
        for group in self.attention:
            keys = Run(self.contents[row], self.block_tokens, start, stop, group).keys
            cells = self.cells(row, group, start, stop)
            if self.windowed and not cells.all():
                left = int(np.count_nonzero(cells == 0))
                keys, cells = keys[left:], cells[left:]
            self.cache.enter(keys, cells)

    def come_back(self, row: int, content: Content, entered: int) -> None:
        """Remember the content of a row that has come back, of whose full blocks `entered` were entered when it left.

        Its blocks that were moved, or come from a fork, have no keys yet.  If it was apart it is so again, unless
        somebody has come meanwhile; else all are entered.
        """
        full, left = self._full(row), self._left(row, self.keeper) if self.windowed else 0
        if entered <= left:
            entered = full
        self.contents[row] = content
        self._entangled.add(row)
        self._pass(self._keys(row, left), 1)
        while True:
            keys = self._keys(row, entered)
            self.meet(keys if entered == full else keys[:-1])
            for group in self.attention:
                cells = self.cells(row, group, 0, entered)
                nameless = np.flatnonzero((cells > 0) & (self.cache.key[cells] == 0))
                self.cache.enter(keys_in(group, [keys[place] for place in nameless.tolist()]), cells[nameless])
            if entered and self.alone(row, keys[-1], entered - 1):
                return self.part(row, keys[-1], entered)
            if entered == full:
                return None
            entered = full

    def give_back(self, left: Sequence[Left]) -> None:
        """Prepare for rows to give back full blocks, which their windows have passed."""
        cache, apart = self.cache, self.apart
        blocks: list[int] = []
        marks: list[int] = []
        for row, group, place, block in left:
            if 0 <= apart.get(row, -1) <= place:
                key = self._tip[row]
                behind = cache.behind(key, group, place)
                if behind is None:
                    behind = cache.begin(key, Run(self.contents[row], self.block_tokens, place, place, group))
                behind.append(block)
                blocks.append(block)
                marks.append(behind.mark)
            elif group == self.keeper and row in self.contents:
                self._pass([self.contents[row].key(self.block_tokens, place)], 1)
        if blocks:
            cache.mark(blocks, marks)

    def leave(self, row: int) -> None:
        """Fold the full blocks that have not been entered, of a row that is apart and about to be closed."""
        entered, key, full = self.apart.pop(row), self._tip.pop(row), self._full(row)
        del self.tips[key]
        if full == entered:
            return
        for group in self.attention:
            start = max(entered, self._left(row, group)) if self.windowed else entered
            if full > start:
                run = Run(self.contents[row], self.block_tokens, start, full, group)
                self.cache.fold(key, run, self.cells(row, group, start, full))

    def gather(self, rows: Sequence[int]) -> None:
        """Let all rows that grow together rejoin if one of them is entangled: it might fill a block equal to theirs."""
        if self.apart and not self.entangled.isdisjoint(rows):
            for row in rows:
                self.rejoin(row)

    def wake(self, keys: list[int]) -> bool:
        """Enter all blocks that somebody who knows these keys could find; return whether there was one to enter."""
        there = self.cache.unfold(keys)
        if self.tips and not self.tips.keys().isdisjoint(keys):
            for key in keys:
                row = self.tips.get(key)
                if row is not None:
                    there |= self.catch_up(row)
        return there

    def meet(self, keys: list[int]) -> None:
        """Prepare for blocks with these keys to be entered or shared.

        Rows that are apart behind such a block enter what they have filled since, and runs that are folded behind it
        are unfolded.
        """
        self.cache.unfold(keys)
        if self.tips and not self.tips.keys().isdisjoint(keys):
            for key in keys:
                row = self.tips.get(key)
                if row is not None and not self.catch_up(row):
                    self.rejoin(row)
