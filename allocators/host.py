"""The host pool: memory for swapped-out sequences, with a block table of its own.

A block shared by several sequences crosses PCIe only once in each direction.  For this, the pool
remembers which host block is a copy of which device block (its *twin*), as long as both are held
and the device block has not been written since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import Copy
from allocators.blockpool import BlockPool
from allocators.compiled import mypyc_attr
from allocators.errors import AllocatorError, CorruptionError
from allocators.table import BlockTable, Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.content import Content


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class HostPool:
    """Blocks 1 to `num_blocks` on the host, and the rows that hold them."""

    def __init__(self, num_blocks: int, rows: int, width: int, device_blocks: int) -> None:
        """Make an empty pool, and a table of the same shape as the device's."""
        self.pool = BlockPool(num_blocks)
        self.table = BlockTable(rows, width)
        self.contents: dict[int, Content] = {}
        """Identity of the tokens of rows, where it was known on the device."""
        self.of_device = np.zeros(device_blocks + 1, np.int64)
        """int64[device_blocks + 1]: the twin of each device block on the host, 0 if there is none."""
        self.of_host = np.zeros(num_blocks + 1, np.int64)
        """int64[num_blocks + 1]: the twin of each host block on the device, 0 if there is none."""

    def lacking(self, device: BlockTable, rows: Sequence[int]) -> int:
        """Count the blocks of device rows that have no twin on the host."""
        return _lone(device, rows, self.of_device)

    def missing(self, rows: Sequence[int]) -> int:
        """Count the blocks of host rows that have no twin on the device."""
        return _lone(self.table, rows, self.of_host)

    def receive(self, cells: Ints) -> Sequence[Copy]:
        """Add a holder to the twin of each block of a device row, and return the blocks to move for that.

        A block without a twin gets one.  The result is in `of_device`.
        """
        blocks, targets = _cross(cells, self.of_device, self.pool)
        if len(self.of_host) <= self.pool.num_blocks:  # the pool has grown
            self.of_host = np.concatenate([self.of_host, np.zeros(self.pool.num_blocks + 1, np.int64)])
        self.of_host[targets] = blocks
        return self.moves(blocks, targets)

    def send(self, cells: Ints, device: BlockPool) -> Sequence[Copy]:
        """Add a holder to the twin of each block of a host row, and return the blocks to move; see `receive`."""
        blocks, targets = _cross(cells, self.of_host, device)
        self.of_device[targets] = blocks
        return self.moves(blocks, targets)

    def moves(self, sources: Ints, targets: Ints) -> Sequence[Copy]:
        """List the moves of some blocks."""
        return [Copy(*pair) for pair in zip(sources.tolist(), targets.tolist(), strict=True)]

    def demand_open(self, row: int) -> None:
        """Raise `AllocatorError` unless `row` is a row of the host's table."""
        if row not in self.table:
            raise AllocatorError(f"row {row} is not swapped out")

    def close(self, row: int) -> None:
        """Close a row; forget the twins of blocks that nobody holds any more."""
        _part(self.pool.let_go(self.table.held(row)[::-1]), self.of_host, self.of_device)
        self.table.close(row)
        self.contents.pop(row, None)

    def part(self, device_blocks: Ints) -> None:
        """Forget the twins of device blocks that nobody holds any more, or that are about to be written."""
        if len(self.table):  # else nothing is here to be a twin
            _part(device_blocks, self.of_device, self.of_host)

    def check(self, on_device: Ints, here: Ints) -> None:
        """Raise `CorruptionError` unless the counts and twins agree with the holders of each block on either side."""
        self.pool.check(here)
        if len(self.pool.cache):
            raise CorruptionError("a block on the host has a key, but nothing is looked up there")
        paired, twins = np.flatnonzero(self.of_device), np.flatnonzero(self.of_host)
        if len(paired) != len(twins) or (self.of_host[self.of_device[paired]] != paired).any():
            raise CorruptionError("device and host disagree on which blocks are twins")
        for block, twin in zip(paired.tolist(), self.of_device[paired].tolist(), strict=True):
            if not on_device[block] or not here[twin]:
                raise CorruptionError(f"device block {block} and host block {twin} are twins, but one of them is free")


def _lone(table: BlockTable, rows: Sequence[int], twins: Ints) -> int:
    """Count the blocks of some rows that have no twin on the other side."""
    if len(rows) == 1:  # the blocks of a row are all different
        return int(np.count_nonzero(twins[table.held(rows[0])] == 0))
    blocks = np.concatenate([np.zeros(0, np.int64), *(table.held(row) for row in rows)])
    return len(np.unique(blocks[twins[blocks] == 0]))


def _part(blocks: Ints, twins: Ints, back: Ints) -> None:
    """Forget the twins of some blocks."""
    back[twins[blocks]] = 0
    twins[blocks] = 0


def _cross(cells: Ints, twins: Ints, pool: BlockPool) -> tuple[Ints, Ints]:
    """Give each block of a row a holder in `pool`: its twin if it has one there, else a new block, now its twin.

    Returns:
        The blocks that had none, and their twins.

    """
    blocks = cells[cells > 0]
    lone = twins[blocks] == 0
    if not lone.all():
        pool.share(twins[blocks[~lone]])
        blocks = blocks[lone]
    targets, _ = pool.take(len(blocks))
    twins[blocks] = targets
    return blocks, targets
