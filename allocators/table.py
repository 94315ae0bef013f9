"""The block table: which physical blocks hold a sequence's K/V, in logical order.

One int32 array serves every allocator and every executor.  Row `r` lists the blocks of
one sequence; logical position `p` of it lives in slot `p % block_size` of physical block
`blocks[r, p // block_size]`.  Unused entries are 0, the null block.  A GPU runtime wraps
`blocks` without a copy, so what is simulated and what is executed are the same memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from allocators.compiled import mypyc_attr

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MANY = 48
"""Up to this many blocks, a Python loop enters them faster than `BlockTable.enter`."""


class Columns(NamedTuple):
    """Which tokens the block in each column of a table holds.

    The first `lead` columns are what a sequence keeps only once (its recurrent states).  The others repeat: `stride`
    of them are the room for the next `place` tokens.  So three fields, of one place, describe a table of any width;
    each is int64[lead + stride].

    A row of `n` tokens fills `slots x min(max(n - start, 0), tokens) - before` slots of a column's block, clipped to
    between 0 and the slots of a block; `start` are the tokens of the places before it.
    """

    tokens: Ints
    """Tokens for which the column's block is the room, or part of it."""
    slots: Ints
    """Slots that each of them takes."""
    before: Ints
    """Slots of the same tokens that lie in earlier columns."""
    lead: int
    """Columns before those of the first tokens."""
    place: int
    """Tokens after which columns repeat."""
    full: bool
    """Whether every column is full once the tokens of its place have come, and none leads."""

    @classmethod
    def plain(cls, block_size: int) -> Columns:
        """Return the columns of a table in which every token takes one slot."""
        return cls(np.array([block_size]), np.ones(1, np.int64), np.zeros(1, np.int64), 0, block_size, full=True)

    @property
    def stride(self) -> int:
        """Columns of a place."""
        return len(self.tokens) - self.lead

    def within(self, columns: Ints) -> Ints:
        """Return int64[...]: which of the described columns some columns are alike."""
        return np.where(columns < self.lead, columns, self.lead + (columns - self.lead) % self.stride)

    def filled(self, lengths: Ints, count: int, block_size: int) -> Ints:
        """Return int64[..., count]: slots filled in the first `count` columns of rows of `lengths` tokens."""
        return self.filled_at(np.arange(count), lengths[..., None], block_size)

    def filled_at(self, columns: Ints, lengths: Ints, block_size: int) -> Ints:
        """Return int64[...]: slots filled in single cells, each given by its column and the tokens of its row."""
        start = np.maximum(columns - self.lead, 0) // self.stride * self.place
        alike = self.within(columns)
        tokens, slots, before = (column[alike] for column in self[:3])
        came: Ints = np.minimum(np.maximum(lengths - start, 0), tokens)
        filled: Ints = np.minimum(np.maximum(came * slots - before, 0), block_size)
        return filled


class Views:
    """The memory of a table's arrays, of which Python reads and writes single entries faster than of arrays.

    A copy would be of the arrays of the original: None takes its place, in pickles too.
    """

    def __init__(self, table: BlockTable) -> None:
        """View the arrays that `table` has now."""
        self.count = table.count.data
        self.length = table.length.data
        self.slots = table.slots.data
        self.cells = table.blocks.reshape(-1).data
        """The blocks of one row after those of the other."""

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Be copied as None."""
        return type(None), ()


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class BlockTable:
    """Rows of physical block ids, opened and closed as sequences come and go."""

    def __init__(self, rows: int, width: int) -> None:
        """Make a table of `rows` closed rows, each with room for `width` block ids."""
        self.blocks: npt.NDArray[np.int32] = np.zeros((rows, width), np.int32)
        """int32[rows, width]: physical block ids, 0 where unused."""
        self.count: npt.NDArray[np.int64] = np.zeros(rows, np.int64)
        """int64[rows]: entries of each row in use."""
        self.length: npt.NDArray[np.int64] = np.zeros(rows, np.int64)
        """int64[rows]: tokens of each row, as far as the allocator knows (see `RegularGrowth.notice`)."""
        self.slots: npt.NDArray[np.int64] = np.zeros(rows, np.int64)
        """int64[rows]: tokens that a row may have before it must grow."""
        self.width = width
        """Block ids that fit in a row."""
        self._closed = list(range(rows - 1, -1, -1))
        self._open: set[int] = set()
        self._views: Views | None = None

    @property
    def views(self) -> Views:
        """Views of the arrays, which hold until the next row is opened."""
        if self._views is None:
            self._views = Views(self)
        return self._views

    def __len__(self) -> int:
        """Open rows."""
        return len(self._open)

    def __contains__(self, row: int) -> bool:
        """Whether `row` is open."""
        return row in self._open

    def open_all(self, rows: Iterable[int]) -> bool:
        """Whether all of `rows` are open."""
        return self._open.issuperset(rows)

    def rows(self) -> list[int]:
        """Open rows, ascending."""
        return sorted(self._open)

    def row(self, row: int) -> npt.NDArray[np.int32]:
        """Return int32[count]: block ids of a row in logical order, as a view."""
        return self.blocks[row, : self.views.count[row]]

    def held(self, row: int) -> npt.NDArray[np.int64]:
        """Return int64[k]: block ids of a row in logical order without the null block, as a copy."""
        blocks = self.row(row).astype(np.int64)
        return blocks if np.count_nonzero(blocks) == len(blocks) else blocks[blocks > 0]

    def fill(self, row: int, blocks: npt.NDArray[np.int64], length: int, slots: int) -> None:
        """Fill an empty row: its block ids, int64[count] in logical order, its tokens and its slots."""
        views = self.views
        views.count[row], views.length[row], views.slots[row] = len(blocks), length, slots
        self.blocks[row, : len(blocks)] = blocks

    def enter(self, named: Sequence[int], blocks: Ints) -> Ints:
        """Enter blocks behind those of the rows for which they were taken, equally many each time a row is listed.

        Returns the rows; some may be there several times.
        """
        rows, each = np.array(named, np.int64), len(blocks) // len(named)
        columns, turn = self.count[rows], int(np.count_nonzero(np.bincount(rows)))
        if turn < len(rows):
            columns += each * _nth(rows, turn)
        for place in range(each):
            self.blocks[rows, columns] = blocks[place::each]
            columns += 1
        self.count[rows] = columns  # where a row is there several times, the last value stays
        return rows

    def enter_in_turn(self, rows: Ints, turns: int, blocks: Ints) -> None:
        """Enter blocks behind those of rows, none of which is listed twice: equally many for each in each turn."""
        each = len(blocks) // (turns * len(rows))
        columns = self.count[rows]
        if turns > 1:
            columns = columns + np.arange(0, turns * each, each)[:, None]
        for place in range(each):
            self.blocks[rows, columns] = blocks[place::each].reshape(columns.shape)
            columns += 1
        self.count[rows] = columns[-1] if turns > 1 else columns

    def open(self) -> int:
        """Open a row, whose entries are all 0, and return its index.  Doubles the arrays if no row is left."""
        if not self._closed:
            self._double()
        row = self._closed.pop()
        self._open.add(row)
        return row

    def close(self, row: int) -> None:
        """Close a row and clear it.  Raises KeyError if it is not open."""
        self._open.remove(row)
        self.row(row).fill(0)
        views = self.views
        views.count[row] = views.length[row] = views.slots[row] = 0
        self._closed.append(row)

    def _double(self) -> None:
        rows = len(self.count)
        self.blocks = np.concatenate([self.blocks, np.zeros_like(self.blocks)])
        self.count = np.concatenate([self.count, np.zeros_like(self.count)])
        self.length = np.concatenate([self.length, np.zeros_like(self.length)])
        self.slots = np.concatenate([self.slots, np.zeros_like(self.slots)])
        self._closed = list(range(2 * rows - 1, rows - 1, -1))
        self._views = None


def _nth(rows: Ints, turn: int) -> Ints:
    """Count, for each entry, how often the same row is listed before it.

    Usually all rows, of which there are `turn`, are listed in turn, again and again, and then no sorting is needed.
    """
    place = np.arange(len(rows))
    if (rows[turn:] == rows[: len(rows) - turn]).all():
        return place // turn
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    begins = np.append(True, rows[1:] != rows[:-1])
    nth = np.empty_like(place)
    nth[order] = place - np.maximum.accumulate(np.where(begins, place, 0))
    return nth
