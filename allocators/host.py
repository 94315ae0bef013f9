"""The host pool: where sequences wait that were swapped out, with a block table of their own.

A block shared by several sequences crosses PCIe once each way.  So the pool remembers which
host block is a copy of which device block (its *twin*) for as long as both are held and the
device block has not been written since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.base import AllocatorError, Copy, CorruptionError, Ints, Reason, Refusal, Swap
from allocators.blockpool import BlockPool
from allocators.table import BlockTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.content import Content
    from allocators.rows import SharingRows


class HostPool:
    """Blocks 1 to `num_blocks` on the host, and the rows that hold them."""

    def __init__(self, num_blocks: int, rows: int, width: int) -> None:
        """Make an empty pool, and a table of the same shape as the device's."""
        self.pool = BlockPool(num_blocks)
        self.table = BlockTable(rows, width)
        self.contents: dict[int, Content] = {}
        """What the tokens of rows are, where the device knew."""
        self.of_device: dict[int, int] = {}
        """Device block -> host block with the same K/V."""
        self.of_host: dict[int, int] = {}
        """The other way round."""

    def swap_out(self, device: SharingRows, rows: Sequence[int]) -> list[Swap] | Refusal:
        """Move open device rows here, all or none."""
        new = {block for row in rows for block in device.table.row(row).tolist()} - self.of_device.keys() - {0}
        if len(new) > self.pool.free:
            return Refusal(Reason.HOST, len(new), len(new) - self.pool.free)
        return [self._out(device, row) for row in rows]

    def swap_in(self, device: SharingRows, rows: Sequence[int], spare: int) -> list[Swap] | Refusal:
        """Move rows back to the device, all or none; leave `spare` blocks free there."""
        new = {block for row in rows for block in self.table.row(row).tolist()} - self.of_host.keys() - {0}
        if len(new) + spare > device.pool.free:
            return Refusal(Reason.BLOCKS, len(new), len(new) + spare - device.pool.free)
        return [self._in(device, row) for row in rows]

    def demand_open(self, row: int) -> None:
        """Raise `AllocatorError` unless `row` is a row of the host's table."""
        if row not in self.table:
            raise AllocatorError(f"row {row} is not swapped out")

    def close(self, row: int) -> None:
        """Close a row; forget the twins of blocks that nobody holds any more."""
        for block in self.pool.let_go(self.table.held(row)[::-1]).tolist():
            if block in self.of_host:
                del self.of_device[self.of_host.pop(block)]
        self.table.close(row)
        self.contents.pop(row, None)

    def part(self, device_blocks: Ints) -> None:
        """Forget the twins of device blocks that nobody holds any more, or that are about to be written."""
        for block in device_blocks.tolist() if self.of_device else ():
            if block in self.of_device:
                del self.of_host[self.of_device.pop(block)]

    def check(self, on_device: Ints, here: Ints) -> None:
        """Raise `CorruptionError` unless the counts and twins agree with the holders of each block on either side."""
        self.pool.check(here)
        if len(self.pool.cache):
            raise CorruptionError("a block on the host has a key, but nothing is looked up there")
        if {twin: block for block, twin in self.of_device.items()} != self.of_host:
            raise CorruptionError("device and host disagree on which blocks are twins")
        for block, twin in self.of_device.items():
            if not on_device[block] or not here[twin]:
                raise CorruptionError(f"device block {block} and host block {twin} are twins, but one of them is free")

    def _out(self, device: SharingRows, row: int) -> Swap:
        cells, length = device.table.row(row).tolist(), int(device.table.length[row])
        slots = len(cells) * device.block_size
        moves = self._cross(cells, self.of_device, self.of_host, self.pool)
        target = self.table.open()
        self.table.fill(target, np.array([self.of_device.get(block, 0) for block in cells]), length, slots)
        if row in device.contents:
            self.contents[target] = device.contents[row]
        device.close_row(row)
        return Swap(target, slots, moves)

    def _in(self, device: SharingRows, row: int) -> Swap:
        cells, length = self.table.row(row).tolist(), int(self.table.length[row])
        slots = len(cells) * device.block_size
        moves = self._cross(cells, self.of_host, self.of_device, device.pool)
        target = device.open_row(np.array([self.of_host.get(block, 0) for block in cells]), length)
        if length < slots:
            device.tails.add(target)
        if row in self.contents:
            device.contents[target] = self.contents[row]
            blocks = device.table.blocks[target, : length // device.block_size]
            nameless = np.flatnonzero((blocks > 0) & (device.pool.cache.key[blocks] == 0))  # moved now, or by a fork
            device.enter(device.name(np.full(len(nameless), target), nameless))
        self.close(row)
        return Swap(target, slots, moves)

    @staticmethod
    def _cross(cells: list[int], twins: dict[int, int], back: dict[int, int], pool: BlockPool) -> list[Copy]:
        """Give each block of a row a holder in `pool`: its twin if it has one there, else a new block, now its twin."""
        blocks = [block for block in cells if block]
        pool.share(np.array([twins[block] for block in blocks if block in twins], np.int64))
        moved = [block for block in blocks if block not in twins]
        targets = pool.take(len(moved))[0].tolist()
        twins.update(zip(moved, targets, strict=True))
        back.update(zip(targets, moved, strict=True))
        return [Copy(*pair) for pair in zip(moved, targets, strict=True)]
