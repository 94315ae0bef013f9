"""Checks the lists and counts of a piece pool by recomputing them from holders and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from allocators.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.pieces import PiecePool
    from allocators.table import Ints


class _Books(NamedTuple):
    """Pieces of one group."""

    held: set[int]
    cached: set[int]
    blank: set[int]
    kept: set[int]

    def add(self, held: set[int], cached: set[int], used: set[int]) -> None:
        """Add those of a page, `used` being all of them if it is in use."""
        self.held.update(held)
        self.cached.update(cached)
        self.blank.update(used - held - cached)
        self.kept.update(used & cached)


def audit_pieces(pool: PiecePool, references: Ints) -> None:
    """Raise `CorruptionError` unless the pool agrees with itself and with `references`, counted from the table.

    Args:
        pool: the pool.
        references: int64[num_blocks + 1], rows that hold the piece which starts at each block.

    """
    wrong = np.flatnonzero(references != pool.references)
    if len(wrong):
        block = int(wrong[0])
        raise CorruptionError(f"piece {block} has {references[block]} holders, counted {pool.references[block]}")
    pool.queue.check()
    pool.cache.check()
    order = pool.queue.order()
    used = pool.group[order] >= 0
    if used[: len(used) - np.count_nonzero(used)].any():
        raise CorruptionError("a page with cached pieces would be taken before an empty one")
    books = [_Books(set(), set(), set(), set()) for _ in pool.pieces]
    starts, idle = np.zeros(pool.num_blocks + 1, np.bool_), 0
    queued, group, inside = set(order.tolist()), pool.group.tolist(), pool.inside.tolist()
    holders, keys = references.tolist(), pool.cache.key.tolist()
    for page in range(1, len(group)):
        if group[page] < 0 and not inside[page] and page in queued:  # empty, as most pages on a host are
            continue
        within = pool.within(page) if group[page] >= 0 else range(0)
        held = {block for block in within if holders[block]}
        cached = {block for block in within if keys[block]} - held
        if len(held) != inside[page] or (page in queued) == bool(held) or (within and not held | cached):
            raise CorruptionError(f"{len(held)} pieces of page {page} are held, counted {inside[page]}")
        starts[within] = True
        idle += bool(within) and not held
        if within:
            books[group[page]].add(held, cached, set(within) if held else set())
    if (pool.references[~starts] != 0).any() or (pool.cache.key[~starts] != 0).any():
        raise CorruptionError("a piece is held or cached that does not start where its page is cut")
    if idle != pool.idle:
        raise CorruptionError(f"{idle} pages are only cached, counted {pool.idle}")
    _compare(pool, books)


def _compare(pool: PiecePool, books: Sequence[_Books]) -> None:
    for group, book in enumerate(books):
        shared = int(pool.references[list(book.held)].sum()) - len(book.held)
        counted = (pool.held[group], pool.cached[group], pool.shared[group])
        if counted != (len(book.held), len(book.cached), shared):
            raise CorruptionError(f"group {group} counts {counted} pieces held, cached and shared; it has others")
        if book.blank != set(pool.blank[group]) or book.kept != set(pool.kept[group]):
            raise CorruptionError(f"group {group} does not list the free pieces of its pages")
