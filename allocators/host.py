"""The host pool: memory for swapped-out sequences, with a block table of its own.

A piece shared by several sequences crosses PCIe only once in each direction.  For this, the pool
remembers which of its pieces is a copy of which piece on the device (its *twin*), as long as both
are held and the one on the device has not been written since.
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
class HostPool:
    """Pages on the host, cut like those of the device, and the rows that hold their pieces.

    Several pieces of a group are passed as int64[k] of their first blocks.
    """

    def __init__(self, pool: PiecePool, rows: int, width: int, device_blocks: int) -> None:
        """Make an empty host over `pool`, and a table of the same shape as the device's."""
        self.pool = pool
        self.table = BlockTable(rows, width)
        self.contents: dict[int, tuple[Content, int]] = {}
        """Of rows whose tokens were known on the device: their identity, and how many blocks were entered there."""
        self.of_device = np.zeros(device_blocks + 1, np.int64)
        """int64[device_blocks + 1]: the twin of each piece on the device, at its first block; 0 if there is none."""
        self.of_host = np.zeros(pool.num_blocks + 1, np.int64)
        """int64[num_blocks + 1]: the twin of each piece here, at its first block; 0 if there is none."""

    def receive(self, group: int, pieces: Ints) -> Sequence[Copy]:
        """Add a holder to the twin of each piece of a device row, and return the blocks to move for that.

        A piece without a twin gets one.  The result is in `of_device`.
        """
        twins = self.of_device[pieces]
        lone = pieces[twins == 0]
        if len(lone) < len(pieces):
            self.pool.share(group, twins[twins > 0])
        taken = self.pool.take_some(group, len(lone))
        self._pair(lone, taken)
        return self.moves(group, lone, taken)

    def send(self, group: int, pieces: Ints, targets: Ints) -> Sequence[Copy]:
        """Let pieces on the device be the twins of pieces that had none, and return the blocks to move for that."""
        self._pair(targets, pieces)
        return self.moves(group, pieces, targets)

    def _pair(self, on_device: Ints, here: Ints) -> None:
        """Remember that pieces are twins."""
        if len(self.of_host) <= self.pool.num_blocks:  # the pool has grown
            self.of_host = np.concatenate([self.of_host, np.zeros(self.pool.num_blocks + 1, np.int64)])
        self.of_device[on_device], self.of_host[here] = here, on_device

    def moves(self, group: int, sources: Ints, targets: Ints) -> Sequence[Copy]:
        """List the moves of some pieces of a group, block by block."""
        blocks = self.pool.pieces[group].blocks
        pairs = zip(sources.tolist(), targets.tolist(), strict=True)
        return [Copy(source + block, target + block) for source, target in pairs for block in range(blocks)]

    def demand_open(self, row: int) -> None:
        """Raise `AllocatorError` unless `row` is a row of the host's table."""
        if row not in self.table:
            raise AllocatorError(f"row {row} is not swapped out")

    def close(self, row: int, groups: Sequence[Ints]) -> None:
        """Close a row that lists `groups`, by group, 0 where a window has left a piece behind."""
        for group, cells in enumerate(groups):
            idle = self.pool.let_go(group, cells[cells > 0][::-1])
            self.of_device[self.of_host[idle]] = 0
            self.of_host[idle] = 0
        self.table.close(row)
        self.contents.pop(row, None)

    def part(self, pieces: Ints | Sequence[int]) -> None:
        """Forget the twins of device pieces that nobody holds any more, or that are about to be written."""
        if len(self.table):  # else nothing is here to be a twin
            self.of_host[self.of_device[pieces]] = 0
            self.of_device[pieces] = 0

    def check(self, on_device: Ints, here: Ints) -> None:
        """Raise `CorruptionError` unless the counts and twins agree with the holders of each piece on either side."""
        if len(self.pool.cache):
            raise CorruptionError("a piece on the host has a key, but nothing is looked up there")
        audit_pieces(self.pool, here)
        paired, twins = np.flatnonzero(self.of_device), np.flatnonzero(self.of_host)
        if len(paired) != len(twins) or (self.of_host[self.of_device[paired]] != paired).any():
            raise CorruptionError("device and host disagree on which pieces are twins")
        for piece, twin in zip(paired.tolist(), self.of_device[paired].tolist(), strict=True):
            if not on_device[piece] or not here[twin]:
                raise CorruptionError(f"device piece {piece} and host piece {twin} are twins, but one of them is free")
