"""Swapping: moving a group of rows that share blocks to the host or back, either all of them or none.

Blocks of which the other side still has a copy are not moved again (`allocators.host`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import Reason, Refusal, Swap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.rows import SharingRows


def swap_out(device: SharingRows, rows: Sequence[int]) -> list[Swap] | Refusal:
    """Implement `Allocator.swap_out_group`."""
    for row in rows:
        device.demand_open(row)
    device.demand_each_once(rows)
    for row in rows:
        device.rejoin(row)
    new, free = device.host.lacking(device.table, rows), device.host.pool.free
    if new > free:
        return Refusal(Reason.HOST, new, new - free)
    return [_out(device, row) for row in rows]


def swap_in(device: SharingRows, rows: Sequence[int], spare: int) -> list[Swap] | Refusal:
    """Implement `Allocator.swap_in_group`."""
    for row in rows:
        device.host.demand_open(row)
    device.demand_each_once(rows)
    new, free = device.host.missing(rows), device.pool.free
    if new + spare > free:
        return Refusal(Reason.BLOCKS, new, new + spare - free)
    return [_in(device, row) for row in rows]


def _out(device: SharingRows, row: int) -> Swap:
    host, table = device.host, device.table
    cells, length, slots = table.row(row).astype(np.int64), int(table.length[row]), int(table.slots[row])
    moves = host.receive(cells)
    target = host.table.open()
    host.table.fill(target, host.of_device[cells], length, slots)
    if row in device.contents:
        host.contents[target] = device.contents[row]
    device.close_row(row)
    return Swap(target, slots, moves)


def _in(device: SharingRows, row: int) -> Swap:
    host = device.host
    cells, length, slots = host.table.row(row).astype(np.int64), int(host.table.length[row]), int(host.table.slots[row])
    moves = host.send(cells, device.pool)
    target = device.open_row(host.of_host[cells], length)
    if length < slots:
        device.tails.add(target)
    if row in host.contents:
        device.know(target, host.contents[row])
        device.name_again(target)
    host.close(row)
    return Swap(target, slots, moves)
