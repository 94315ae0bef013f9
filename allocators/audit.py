"""Checks every invariant of a paged allocator by recomputing it from the block tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from allocators.errors import CorruptionError
from allocators.runs import keys_in
from allocators.table import BlockTable, Ints

if TYPE_CHECKING:
    from allocators.keyed import KeyedRows
    from allocators.rows import SharingRows


def audit(allocator: SharingRows) -> None:
    """Raise `CorruptionError` at the first invariant that does not hold.  Changes nothing."""
    device, host = allocator.table, allocator.host
    holders = _holders(allocator, device, allocator.num_blocks)
    allocator.pool.check(holders)
    host.check(holders, _holders(allocator, host.table, host.pool.num_blocks))
    left = sum(int(np.count_nonzero(device.row(row) == 0)) for row in device.rows())
    if left != allocator.left:
        raise CorruptionError(f"{left} table entries are left behind, counted {allocator.left}")
    _audit_tails(allocator, holders)
    audit_keys(allocator)


def _holders(allocator: SharingRows, table: BlockTable, num_blocks: int) -> Ints:
    """Check each row by itself; return int64[num_blocks + 1], how many rows hold each block."""
    unused = np.arange(table.width) >= table.count[:, None]
    closed = np.setdiff1d(np.arange(len(table.count)), table.rows())
    if (
        table.blocks[unused].any()
        or table.count[closed].any()
        or table.length[closed].any()
        or table.slots[closed].any()
    ):
        raise CorruptionError("a table entry that no row uses is not empty")
    if table.blocks.min(initial=0) < 0 or table.blocks.max(initial=0) > num_blocks:
        raise CorruptionError(f"the table lists a block outside 1 to {num_blocks}")
    holders = np.zeros(num_blocks + 1, np.int64)
    for row in table.rows():
        cells, length = table.row(row), int(table.length[row])
        if length < 1 or len(cells) != allocator.blocks_for(length):
            raise CorruptionError(f"row {row} of {length} tokens lists {len(cells)} blocks")
        if table.slots[row] != len(cells) * allocator.block_size:
            raise CorruptionError(f"row {row} of {len(cells)} blocks claims {table.slots[row]} slots")
        behind = allocator.window.behind(length)
        if not cells[behind:].all() or (np.diff(np.sign(cells)) < 0).any():
            raise CorruptionError(f"row {row} lacks a block that it can still read")
        np.add.at(holders, cells[cells > 0], 1)
        if len(np.unique(cells[cells > 0])) < np.count_nonzero(cells):
            raise CorruptionError(f"row {row} lists a block twice")
    return holders


def _audit_tails(allocator: SharingRows, holders: Ints) -> None:
    """A last block that is not full may be shared, by rows of one length that know it and before it has a key."""
    table, slack = allocator.table, 0
    ends: dict[int, list[int]] = {}
    for row in table.rows():
        if table.length[row] < table.slots[row]:
            ends.setdefault(int(table.row(row)[-1]), []).append(row)
    for block, rows in ends.items():
        if len(rows) != holders[block] or len({int(table.length[row]) for row in rows}) > 1:
            raise CorruptionError(f"block {block} is not full, but some of its holders go on behind it")
        if (len(rows) > 1 or allocator.host.of_device[block]) and not allocator.tails.issuperset(rows):
            raise CorruptionError(f"a row would write into block {block} without copying it")
        if allocator.pool.cache.key[block]:
            raise CorruptionError(f"block {block} has a key before it is full")
        slack += (len(rows) - 1) * int(table.slots[rows[0]] - table.length[rows[0]])
    if slack != allocator.shared_slack:
        raise CorruptionError(f"shared last blocks have {slack} empty slots, counted {allocator.shared_slack}")
    if not allocator.tails <= {row for rows in ends.values() for row in rows}:
        raise CorruptionError("a row is noted for a shared last block that it has not")


def audit_keys(rows: KeyedRows) -> None:
    """The full blocks of a row whose tokens are known carry the keys of those tokens, unless they can wait."""
    table, tokens = rows.table, rows.block_tokens
    if not rows.contents.keys() <= set(table.rows()):
        raise CorruptionError("a row that is not open has tokens")
    if rows.entangled != rows.contents.keys() - rows.apart.keys():
        raise CorruptionError("a row whose tokens are known is neither apart nor entangled, or one is that has none")
    if {rows.contents[row].keys(tokens, done)[done - 1]: row for row, done in rows.apart.items()} != rows.tips:
        raise CorruptionError("a row that is apart cannot be found by its last key")
    if not rows.prefix_cache and (rows.contents or len(rows.cache)):
        raise CorruptionError("a block has a key though nothing is cached")
    passed: Counter[int] = Counter()
    for row in rows.contents:
        _audit_blocks(rows, row)
        left = int(np.count_nonzero(_full_cells(rows, row, rows.keeper) == 0))
        passed.update(rows.contents[row].keys(tokens, left)[: min(rows.apart.get(row, left), left)])
    if passed != rows.passed:
        raise CorruptionError("the keys of blocks that windows have passed are miscounted")


def _audit_blocks(rows: KeyedRows, row: int) -> None:
    for group in rows.attention:
        blocks = _full_cells(rows, row, group)[: rows.apart.get(row)].tolist()
        keys = keys_in(group, rows.contents[row].keys(rows.block_tokens, len(blocks))[: len(blocks)])
        for block, key in zip(blocks, keys, strict=True):
            if block and not rows.cache.carries(block, key):
                raise CorruptionError(f"block {block} of row {row} has not the key of its tokens")


def _full_cells(rows: KeyedRows, row: int, group: int) -> Ints:
    return rows.cells(row, group, 0, int(rows.table.length[row]) // rows.block_tokens)
