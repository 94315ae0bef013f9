"""Checks every invariant of a hybrid allocator by recomputing it from the block tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.audit import audit_keys
from allocators.errors import CorruptionError
from allocators.pieceaudit import audit_pieces
from allocators.table import Ints

if TYPE_CHECKING:
    from allocators.grouprows import GroupRows


def audit(rows: GroupRows) -> None:
    """Raise `CorruptionError` at the first invariant that does not hold.  Changes nothing."""
    table, stride = rows.table, rows.stride
    unused = np.arange(table.width) >= table.count[:, None]
    closed = np.setdiff1d(np.arange(len(table.count)), table.rows())
    if table.blocks[unused].any() or (table.count + table.length + table.slots)[closed].any():
        raise CorruptionError("a table entry that no row uses is not empty")
    references, left = np.zeros(rows.num_blocks + 1, np.int64), 0
    for row in table.rows():
        length, places = int(table.length[row]), rows.places_for(int(table.length[row]))
        if length < 1 or table.slots[row] != places * rows.cut.tokens or table.count[row] != rows.blocks_for(length):
            raise CorruptionError(f"row {row} of {length} tokens lists {table.count[row]} blocks")
        for group, cells in enumerate(rows.cells_of(row)):
            held, piece = cells[cells > 0], rows.pieces[group]
            behind = rows.windows[group].behind(length) if group in rows.windows else 0
            if not cells[behind:].all() or (np.diff(np.sign(cells)) < 0).any() or len(np.unique(held)) < len(held):
                raise CorruptionError(f"row {row} lacks a block of group {group}, or lists one twice")
            if (rows.pool.group[rows.pool.page(held)] != group).any():
                raise CorruptionError(f"row {row} lists a block of another group as one of group {group}")
            for block in range(piece.blocks):
                column, step = rows.first_column[group] + block, stride if group in rows.attention else table.width
                if (table.blocks[row, column : table.count[row] : step] != np.where(cells > 0, cells + block, 0)).any():
                    raise CorruptionError(f"row {row} lists a piece of group {group} in part")
            references[held] += 1
        left += rows.left_by(row)
    if left != rows.left:
        raise CorruptionError(f"{left} slots are left behind, counted {rows.left}")
    audit_pieces(rows.pool, references)
    rows.host.check(references, _on_host(rows))
    _audit_writers(rows, references)
    audit_keys(rows)


def _on_host(rows: GroupRows) -> Ints:
    """Return int64[host blocks + 1]: how many rows of the host's table hold the piece that starts at each block."""
    table = rows.host.table
    references = np.zeros(rows.host.pool.num_blocks + 1, np.int64)
    for row in table.rows():
        for cells in rows.cells_of(row, table):
            references[cells[cells > 0]] += 1
    return references


def _audit_writers(rows: GroupRows, references: Ints) -> None:
    """What a row may write into is its own, or it knows better."""
    table, tokens = rows.table, rows.cut.tokens
    if not rows.forked <= set(table.rows()):
        raise CorruptionError("a row that is not open has a twin")
    for row in table.rows():
        length = int(table.length[row])
        for group, cells in enumerate(rows.cells_of(row)):
            written = cells[-1:] if group in rows.states or length % tokens else cells[:0]
            shared = (references[written] > 1).any() or rows.host.of_device[written].any()
            if shared and row not in rows.forked:
                raise CorruptionError(f"row {row} would write into a block of group {group} without copying it")
            if (rows.pool.cache.key[written] != 0).any():
                raise CorruptionError(f"a block of row {row} has a key before it is full")
