"""Swapping: moving rows that share blocks to the host or back, either all of them or none.

What moves is a piece: what a group of layers takes of its pool at a time (`allocators.groups`).  Where all layers keep
the same tokens, there is one group, and its pieces are blocks.  Pieces of which the other side still has a copy are
not moved again (`allocators.host`).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import Copy, Reason, Refusal, Swap
from allocators.compiled import mypyc_attr
from allocators.keyed import KeyedRows
from allocators.table import BlockTable, Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.groups import Piece
    from allocators.host import HostPool


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class SwappingRows(KeyedRows):
    """The part of an allocator that swaps its rows."""

    pieces: list[Piece]
    """What each group takes at a time."""
    host: HostPool
    """Where rows go."""

    def swap_out_group(self, rows: Sequence[int]) -> list[Swap] | Refusal:
        """See `Allocator.swap_out_group`."""
        for row in rows:
            self.demand_open(row)
        self.demand_each_once(rows)
        host = self.host.pool
        needs = self._lone(self.table, rows, self.host.of_device)
        if not host.fits(needs):
            need = host.blocks_of(needs)
            return Refusal(Reason.HOST, max(need, 1), max(need - host.blocks_free, 1))
        return [self._out(row) for row in rows]

    def swap_in_group(self, rows: Sequence[int], spare: int = 0) -> list[Swap] | Refusal:
        """See `Allocator.swap_in_group`."""
        for row in rows:
            self.host.demand_open(row)
        self.demand_each_once(rows)
        needs = self._lone(self.host.table, rows, self.host.of_host)
        missing = self.missing(needs, len(rows), spare)
        if missing > 0:
            return Refusal(Reason.BLOCKS, max(self.host.pool.blocks_of(needs), 1), missing)
        return [self._in(row) for row in rows]

    def discard(self, row: int) -> None:
        """Close a row of the host's table, whose sequence will not return to the device."""
        self.host.demand_open(row)
        self.host.close(row, self.cells_of(row, self.host.table))

    # -- what differs by how rows are kept -------------------------------------------------

    @abstractmethod
    def cells_of(self, row: int, table: BlockTable) -> list[Ints]:
        """By group: the pieces that a row of either table lists, 0 where a window has left one behind.

        Each is int64[places] in logical order, of the first blocks of the pieces.
        """

    @abstractmethod
    def missing(self, needs: list[int], rows: int, spare: int) -> int:
        """Return how many blocks are missing to swap in so many rows and pieces of each group; not above 0 if none."""

    @abstractmethod
    def share(self, group: int, pieces: Ints) -> None:
        """Add a holder to pieces of a group."""

    @abstractmethod
    def take(self, group: int, count: int) -> Ints:
        """Take `count` pieces of a group, each with one holder; there must be that many."""

    @abstractmethod
    def open_row(self, blocks: Ints, length: int) -> int:
        """Open a row for `blocks`, int64[count] in logical order, whose references already include it."""

    @abstractmethod
    def close_row(self, row: int) -> None:
        """Close a row and drop its references to its blocks, the last block first."""

    @abstractmethod
    def copy_on_write(self, row: int) -> None:
        """Note that others, or copies on the host, may rely on what a row is about to write into."""

    # -- crossing --------------------------------------------------------------------------

    def _lone(self, table: BlockTable, rows: Sequence[int], twins: Ints) -> list[int]:
        """Count, by group, the pieces of some rows of either table that have no twin on the other side."""
        found = [self.cells_of(row, table) for row in rows]
        counts = []
        for group in range(len(self.pieces)):
            cells = np.concatenate([np.zeros(0, np.int64), *(cells[group] for cells in found)])
            lone = cells[(twins[cells] == 0) & (cells > 0)]
            counts.append(len(lone) if len(rows) == 1 else len(np.unique(lone)))  # those of one row are all different
        return counts

    def _out(self, row: int) -> Swap:
        host, table, moves = self.host, self.table, list[Copy]()
        for group, cells in enumerate(self.cells_of(row, table)):
            moves += host.receive(group, cells[cells > 0])
        slots, target = int(table.slots[row]), host.table.open()
        host.table.fill(target, self._twins(row, table, host.of_device), int(table.length[row]), slots)
        if row in self.contents:
            host.contents[target] = self.contents[row], self.entered(row)
        self.close_row(row)
        return Swap(target, slots, moves)

    def _in(self, row: int) -> Swap:
        host, table, moves = self.host, self.host.table, list[Copy]()
        groups = self.cells_of(row, table)
        for group, cells in enumerate(groups):
            pieces = cells[cells > 0]
            twins = host.of_host[pieces]
            lone = pieces[twins == 0]
            if len(lone) < len(pieces):
                self.share(group, twins[twins > 0])
            moves += host.send(group, lone, self.take(group, len(lone)))
        slots = int(table.slots[row])
        target = self.open_row(self._twins(row, table, host.of_host), int(table.length[row]))
        self.copy_on_write(target)
        if row in host.contents:
            content, entered = host.contents[row]
            self.come_back(target, content, entered)
        host.close(row, groups)
        return Swap(target, slots, moves)

    def _twins(self, row: int, table: BlockTable, twins: Ints) -> Ints:
        """Return int64[count]: what a row of either table lists on the other side."""
        cells = table.row(row).astype(np.int64)
        if all(piece.blocks == 1 for piece in self.pieces):
            return twins[cells]
        like = self.columns.within(np.arange(len(cells)))
        within = self.columns.before[like] // self.block_size  # twins are known by their pieces' first blocks
        return np.where(cells > 0, twins[cells - within] + within, 0)
