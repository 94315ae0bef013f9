"""The host of a hybrid allocator: where sequences wait that were swapped out, with a table of their own.

As in `allocators.host`, a piece that several sequences hold crosses once each way: the host
remembers which of its pieces is a copy of which on the device (its *twin*) for as long as both
are held and the one on the device has not been written since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import Copy, Reason, Refusal, Swap
from allocators.compiled import mypyc_attr
from allocators.errors import AllocatorError, CorruptionError
from allocators.pieces import PiecePool
from allocators.table import BlockTable, Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.content import Content
    from allocators.grouprows import GroupRows


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class GroupHost:
    """Pages on the host, cut like those of the device, and the rows that hold their pieces."""

    def __init__(self, pool: PiecePool, rows: int, width: int) -> None:
        """Make an empty host over `pool`, its table of the same shape as the device's."""
        self.pool = pool
        self.table = BlockTable(rows, width)
        self.contents: dict[int, Content] = {}
        """What the tokens of rows are, where the device knew."""
        self.of_device: dict[int, int] = {}
        """Piece here with the same K/V as a piece on the device, both known by their first blocks."""
        self.of_host: dict[int, int] = {}
        """The other way round."""

    def demand_open(self, row: int) -> None:
        """Raise `AllocatorError` unless `row` is a row of this table."""
        if row not in self.table:
            raise AllocatorError(f"row {row} is not swapped out")

    def swap_out(self, device: GroupRows, rows: Sequence[int]) -> list[Swap] | Refusal:
        """Move open device rows here, all or none."""
        needs = _lone(device, device.table, rows, self.of_device)
        if not self.pool.fits(needs):
            need = device.blocks_of(needs)
            return Refusal(Reason.HOST, max(need, 1), max(need - self.pool.blocks_free, 1))
        return [self._out(device, row) for row in rows]

    def swap_in(self, device: GroupRows, rows: Sequence[int], spare: int) -> list[Swap] | Refusal:
        """Move rows back to the device, all or none; leave `spare` blocks free there, with room for a token each."""
        needs = _lone(device, self.table, rows, self.of_host)
        need = device.blocks_of(needs)
        # A token may take a block in every group, and its state may have to be copied first.
        ahead = len(rows) if spare else 0
        missing = need + max(spare, ahead * device.blocks_for(1)) - device.pool.blocks_free
        if missing > 0 or not device.pool.fits([count + ahead for count in needs]):
            return Refusal(Reason.BLOCKS, max(need, 1), max(missing, 1))
        return [self._in(device, row) for row in rows]

    def _out(self, device: GroupRows, row: int) -> Swap:
        slots, moves = int(device.table.slots[row]), list[Copy]()
        target = self.table.open()
        for group, cells in enumerate(device.cells_of(row)):
            here = self._cross(device, group, cells, self.of_device, self.pool, moves)
            self.of_host |= {self.of_device[cell]: cell for cell in cells[cells > 0].tolist()}
            device.write(self.table, target, device.first_column[group], here, group)
        _fill(self.table, target, device.table, row)
        if row in device.contents:
            self.contents[target] = device.contents[row]
        device.release(row)
        return Swap(target, slots, moves)

    def _in(self, device: GroupRows, row: int) -> Swap:
        length, slots, moves = int(self.table.length[row]), int(self.table.slots[row]), list[Copy]()
        target = device.table.open()
        for group, cells in enumerate(device.cells_of(row, self.table)):
            there = self._cross(device, group, cells, self.of_host, device.pool, moves)
            self.of_device |= {self.of_host[cell]: cell for cell in cells[cells > 0].tolist()}
            device.write(device.table, target, device.first_column[group], there, group)
            device.left += int(np.count_nonzero(cells == 0)) * device.pieces[group].full
        _fill(device.table, target, self.table, row)
        device.forked.add(target)  # what it writes may be what others wait for on the host
        if row in self.contents:
            device.contents[target] = self.contents[row]
            device.name_again(target, length)
        self.close(device, row)
        return Swap(target, slots, moves)

    @staticmethod
    def _cross(
        device: GroupRows, group: int, cells: Ints, twins: dict[int, int], pool: PiecePool, moves: list[Copy]
    ) -> Ints:
        """Give each piece of a row a holder in `pool`: its twin if it has one there, else a new piece, now its twin."""
        held = cells[cells > 0].tolist()
        lone = [cell for cell in held if cell not in twins]
        pool.share(group, np.array([twins[cell] for cell in held if cell in twins], np.int64))
        for cell, twin in zip(lone, pool.take_some(group, len(lone)).tolist(), strict=True):
            twins[cell] = twin
            moves += [Copy(cell + block, twin + block) for block in range(device.pieces[group].blocks)]
        return np.array([twins[cell] if cell else 0 for cell in cells.tolist()], np.int64)

    def close(self, device: GroupRows, row: int) -> None:
        """Close a row; forget the twins of pieces that nobody holds any more."""
        for group, cells in enumerate(device.cells_of(row, self.table)):
            for piece in self.pool.let_go(group, cells[cells > 0][::-1]):
                self.of_device.pop(self.of_host.pop(piece, 0), None)
        self.table.close(row)
        self.contents.pop(row, None)

    def part(self, pieces: Sequence[int]) -> None:
        """Forget the twins of device pieces that nobody holds any more, or that are about to be written."""
        if self.of_device:
            for piece in pieces:
                self.of_host.pop(self.of_device.pop(piece, 0), None)

    def check(self, device: GroupRows) -> None:
        """Raise `CorruptionError` unless the counts and twins agree with the holders of each piece on either side."""
        here = np.zeros(len(self.pool.references), np.int64)
        for row in self.table.rows():
            for cells in device.cells_of(row, self.table):
                here[cells[cells > 0]] += 1
        self.pool.check(here)
        if {twin: piece for piece, twin in self.of_device.items()} != self.of_host:
            raise CorruptionError("device and host disagree on which pieces are twins")
        for piece, twin in self.of_device.items():
            if not device.pool.references[piece] or not here[twin]:
                raise CorruptionError(f"device piece {piece} and host piece {twin} are twins, but one of them is free")


def _lone(device: GroupRows, table: BlockTable, rows: Sequence[int], twins: dict[int, int]) -> list[int]:
    """Count, by group, the pieces of some rows that have no twin on the other side."""
    found: list[set[int]] = [set() for _ in device.pieces]
    for row in rows:
        for group, cells in enumerate(device.cells_of(row, table)):
            found[group].update(cell for cell in cells.tolist() if cell and cell not in twins)
    return [len(pieces) for pieces in found]


def _fill(table: BlockTable, row: int, other: BlockTable, source: int) -> None:
    """Take over what a row on the other side counts."""
    table.count[row], table.length[row] = other.count[source], other.length[source]
    table.slots[row] = other.slots[source]
