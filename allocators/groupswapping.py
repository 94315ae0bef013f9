"""Swapping with several groups of layers: moving a group of rows to the host or back, either all of them or none.

Pieces of which the other side still has a copy are not moved again (`allocators.grouphost`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import Copy, Reason, Refusal, Swap
from allocators.table import BlockTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.grouprows import GroupRows


def swap_out(device: GroupRows, rows: Sequence[int]) -> list[Swap] | Refusal:
    """Do `Allocator.swap_out_group`."""
    for row in rows:
        device.demand_open(row)
    device.demand_each_once(rows)
    for row in rows:
        device.rejoin(row)
    host = device.host.pool
    needs = _lone(device, device.table, rows, device.host.of_device)
    if not host.fits(needs):
        need = device.blocks_of(needs)
        return Refusal(Reason.HOST, max(need, 1), max(need - host.blocks_free, 1))
    return [_out(device, row) for row in rows]


def swap_in(device: GroupRows, rows: Sequence[int], spare: int) -> list[Swap] | Refusal:
    """Do `Allocator.swap_in_group`."""
    for row in rows:
        device.host.demand_open(row)
    device.demand_each_once(rows)
    needs = _lone(device, device.host.table, rows, device.host.of_host)
    need = device.blocks_of(needs)
    # A token may take a block in every group, and its state may have to be copied first.
    ahead = len(rows) if spare else 0
    missing = need + max(spare, ahead * device.blocks_for(1)) - device.pool.blocks_free
    if missing > 0 or not device.pool.fits([count + ahead for count in needs]):
        return Refusal(Reason.BLOCKS, max(need, 1), max(missing, 1))
    return [_in(device, row) for row in rows]


def _lone(device: GroupRows, table: BlockTable, rows: Sequence[int], twins: dict[int, int]) -> list[int]:
    """Count, by group, the pieces of some rows of either table that have no twin on the other side."""
    found: list[set[int]] = [set() for _ in device.pieces]
    for row in rows:
        for group, cells in enumerate(device.cells_of(row, table)):
            found[group].update(cell for cell in cells.tolist() if cell and cell not in twins)
    return [len(pieces) for pieces in found]


def _out(device: GroupRows, row: int) -> Swap:
    host, slots, moves = device.host, int(device.table.slots[row]), list[Copy]()
    target = host.table.open()
    for group, cells in enumerate(device.cells_of(row)):
        here, crossing = host.receive(group, cells)
        device.write(host.table, target, device.first_column[group], here, group)
        moves += crossing
    _fill(host.table, target, device.table, row)
    if row in device.contents:
        host.contents[target] = device.contents[row]
    device.release(row)
    return Swap(target, slots, moves)


def _in(device: GroupRows, row: int) -> Swap:
    host, moves = device.host, list[Copy]()
    slots = int(host.table.slots[row])
    target = device.table.open()
    groups = device.cells_of(row, host.table)
    for group, cells in enumerate(groups):
        there, crossing = host.send(group, cells, device.pool)
        device.write(device.table, target, device.first_column[group], there, group)
        device.left += int(np.count_nonzero(cells == 0)) * device.pieces[group].full
        moves += crossing
    _fill(device.table, target, host.table, row)
    device.forked.add(target)  # what it writes may be what others wait for on the host
    if row in host.contents:
        device.know(target, host.contents[row])
        device.name_again(target)
    host.close(row, groups)
    return Swap(target, slots, moves)


def _fill(table: BlockTable, row: int, other: BlockTable, source: int) -> None:
    """Take over what a row on the other side counts."""
    table.count[row], table.length[row] = other.count[source], other.length[source]
    table.slots[row] = other.slots[source]
