"""The host memory of a hybrid allocator: swapped-out sequences, with a block table of their own.

As in `allocators.host`, a piece that several sequences hold is moved only once in each direction:
the host remembers which of its pieces is a copy of which piece on the device (its *twin*), as long
as both are held and the one on the device has not been written since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import Copy
from allocators.compiled import mypyc_attr
from allocators.errors import AllocatorError, CorruptionError
from allocators.pieceaudit import audit_pieces
from allocators.pieces import PiecePool
from allocators.table import BlockTable, Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.content import Content


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

    def receive(self, group: int, cells: Ints) -> tuple[Ints, list[Copy]]:
        """Give each piece of a device row in one group one more holder here; returns these, and the moves that takes.

        Args:
            group: the group.
            cells: the pieces in logical order, 0 where a window has left one behind; so are those returned.

        """
        here, moves = self._cross(group, cells, self.of_device, self.pool)
        self.of_host |= {self.of_device[cell]: cell for cell in cells[cells > 0].tolist()}
        return here, moves

    def send(self, group: int, cells: Ints, device: PiecePool) -> tuple[Ints, list[Copy]]:
        """Give each piece of a row here in one group one more holder on the device; see `receive`."""
        there, moves = self._cross(group, cells, self.of_host, device)
        self.of_device |= {self.of_host[cell]: cell for cell in cells[cells > 0].tolist()}
        return there, moves

    def _cross(self, group: int, cells: Ints, twins: dict[int, int], pool: PiecePool) -> tuple[Ints, list[Copy]]:
        """Give each piece of a row a holder in `pool`: its twin if it has one there, else a new piece, now its twin."""
        held, moves = cells[cells > 0].tolist(), list[Copy]()
        lone = [cell for cell in held if cell not in twins]
        pool.share(group, np.array([twins[cell] for cell in held if cell in twins], np.int64))
        for cell, twin in zip(lone, pool.take_some(group, len(lone)).tolist(), strict=True):
            twins[cell] = twin
            moves += [Copy(cell + block, twin + block) for block in range(pool.pieces[group].blocks)]
        return np.array([twins[cell] if cell else 0 for cell in cells.tolist()], np.int64), moves

    def close(self, row: int, groups: Sequence[Ints]) -> None:
        """Close a row whose pieces are `groups`, by group; forget the twins of pieces that nobody holds any more."""
        for group, cells in enumerate(groups):
            for piece in self.pool.let_go(group, cells[cells > 0][::-1]):
                self.of_device.pop(self.of_host.pop(piece, 0), None)
        self.table.close(row)
        self.contents.pop(row, None)

    def part(self, pieces: Sequence[int]) -> None:
        """Forget the twins of device pieces that nobody holds any more, or that are about to be written."""
        if self.of_device:
            for piece in pieces:
                self.of_host.pop(self.of_device.pop(piece, 0), None)

    def check(self, on_device: Ints, here: Ints) -> None:
        """Raise `CorruptionError` unless the counts and twins agree with the holders of each piece on either side."""
        audit_pieces(self.pool, here)
        if {twin: piece for piece, twin in self.of_device.items()} != self.of_host:
            raise CorruptionError("device and host disagree on which pieces are twins")
        for piece, twin in self.of_device.items():
            if not on_device[piece] or not here[twin]:
                raise CorruptionError(f"device piece {piece} and host piece {twin} are twins, but one of them is free")
