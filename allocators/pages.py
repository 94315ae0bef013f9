"""The page pool: pages of one size, each with a reference count for the pieces of the group to which it belongs.

Pages of which no piece is held are in one queue, whatever group their cached pieces belong to: empty pages at the
front, those with cached pieces at the back, in order of release.  Taking a page from the queue evicts what is cached in
it.

Here are the counts, and what is done with pieces that are whole pages: they come and go like the blocks of
`allocators.blockpool`.  What pages of several pieces need besides is in `allocators.pieces`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.compiled import mypyc_attr
from allocators.freequeue import FreeQueue
from allocators.prefix import PrefixCache, parted
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from allocators.groups import Piece


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PagePool:
    """Pages with a reference count for each piece.  A piece is identified by the first of its blocks.

    Several pieces of a group are passed as int64[k] of such blocks.
    """

    def __init__(self, num_blocks: int, page_blocks: int, pieces: Sequence[Piece]) -> None:
        """Make a pool of empty pages: of `num_blocks` blocks, `page_blocks` each; `pieces` are what groups take."""
        self.num_blocks, self.page_blocks, self.pieces = num_blocks, page_blocks, tuple(pieces)
        self._sizes = [piece.blocks for piece in pieces]
        pages = num_blocks // page_blocks
        self.references = np.zeros(num_blocks + 1, np.int64)
        """int64[num_blocks + 1]: rows that hold the piece which starts at each block."""
        self.group = np.full(pages + 1, -1, np.int64)
        """int64[pages + 1]: the group to which a page belongs; -1 if it is empty."""
        self.inside = np.zeros(pages + 1, np.int64)
        """int64[pages + 1]: pieces held in each page."""
        self.queue = FreeQueue(pages)
        """Pages in which no piece is held."""
        self.cache = PrefixCache(num_blocks)
        self.held = [0] * len(self.pieces)
        """By group: pieces that are held by at least one row."""
        self.cached = [0] * len(self.pieces)
        """By group: pieces that no row holds and that have a key."""
        self.shared = [0] * len(self.pieces)
        """By group: the sum over held pieces of references - 1."""
        self.evicted = 0
        """Cached blocks evicted so far."""
        self.idle = 0
        """Pages in the queue that contain cached pieces."""

    @property
    def blocks_held(self) -> int:
        """Blocks of pieces that are held."""
        return self.blocks_of(self.held)

    @property
    def blocks_cached(self) -> int:
        """Blocks of pieces that are only cached."""
        return self.blocks_of(self.cached)

    @property
    def blocks_free(self) -> int:
        """Blocks that no row holds, cached ones included, whatever page they are in."""
        return self.num_blocks - self.blocks_held

    def blocks_of(self, counts: list[int]) -> int:
        """Blocks that so many pieces of each group are."""
        blocks = 0
        for group, count in enumerate(counts):
            blocks += count * self._sizes[group]
        return blocks

    def page(self, blocks: Ints) -> Ints:
        """Return int64[k]: the pages, from 1, in which blocks lie."""
        return blocks if self.page_blocks == 1 else (blocks - 1) // self.page_blocks + 1

    def take_pages(self, group: int, need: int) -> Ints:
        """Take pieces that are whole pages, in the order of the queue."""
        pages = self.queue.take(need)
        if self.page_blocks == 1:
            self._evict_blocks(pages)
        else:
            for page in pages[self.group[pages] >= 0].tolist():
                self.evict(page)
        self.group[pages], self.inside[pages] = group, 1
        return pages if self.page_blocks == 1 else (pages - 1) * self.page_blocks + 1

    def take_in_turn(self, groups: Sequence[int], times: int) -> tuple[Ints, Sequence[int]]:
        """Take a piece for each of some groups, several times over, if all pages are pieces of one block.

        There must be enough of them.

        Returns:
            The pieces, and how many cached blocks were evicted to take each; empty if none was.

        """
        pages = self.queue.take(times * len(groups))
        evicted = self._evict_blocks(pages)
        self.references[pages] = self.inside[pages] = 1
        for place, group in enumerate(groups):
            self.group[pages[place :: len(groups)]] = group
            self.held[group] += times
        return pages, evicted

    def keep_in_turn(self, groups: Sequence[int], pages: Sequence[int]) -> None:
        """Give back pieces of some groups, in order, each of which is a page of one block with a key and one holder."""
        pieces = np.array(pages, np.int64)
        self.references[pieces] = self.inside[pieces] = 0
        for group in groups:
            self.held[group] -= 1
            self.cached[group] += 1
        self.idle += len(pages)
        self.queue.give_back(pieces)

    def own(self, owners: Mapping[int, int]) -> None:
        """Set which group holds each of some pieces that are pages of one block, -1 for none."""
        pages = np.fromiter(owners.keys(), np.int64, len(owners))
        groups = np.fromiter(owners.values(), np.int64, len(owners))
        self.group[pages] = groups
        self.references[pages] = self.inside[pages] = groups >= 0

    def evict(self, page: int) -> None:
        """Forget what is cached in a page of which no piece is held."""
        self.forget_pieces(int(self.group[page]), [block for block in self.within(page) if self.cache.key[block]])
        self.idle -= 1

    def _evict_blocks(self, pages: Ints) -> Sequence[int]:
        """Do `evict` for pages of one block, just taken; return how many cached blocks were in each, if any were."""
        lost = self.idle - self.queue.size  # pages with cached pieces are at the back of the queue
        if lost <= 0:
            return ()
        cached = pages[len(pages) - lost :]
        for group in self.group[cached].tolist():
            self.cached[group] -= 1
        self.cache.forget(cached)
        self.idle -= lost
        self.evicted += lost
        return [0] * (len(pages) - lost) + [1] * lost

    def forget_pieces(self, group: int, blocks: list[int]) -> None:
        """Forget the keys of cached pieces of a group, which are taken for other tokens."""
        self.cache.forget(np.array(blocks, np.int64))
        self.cached[group] -= len(blocks)
        self.evicted += len(blocks) * self.pieces[group].blocks

    def within(self, page: int) -> range:
        """Return the pieces of a page that belongs to a group."""
        first = (page - 1) * self.page_blocks + 1
        return range(first, first + self.page_blocks, self.pieces[self.group[page]].blocks)

    def let_go_of_pages(self, group: int, blocks: Ints) -> Ints:
        """Put pieces that are whole pages in the queue, if no row holds them any more."""
        idle = blocks[self.references[blocks] == 0] if self.shared[group] else blocks
        pages = self.page(idle)
        keyed, empty = (pages[:0], pages) if self.cache.unused else parted(self.cache.key[idle], pages)
        self.shared[group] -= len(blocks) - len(idle)
        self.held[group] -= len(idle)
        self.cached[group] += len(keyed)
        self.idle += len(keyed)
        self.inside[pages] = 0
        self.group[empty] = -1
        self.queue.give_front(empty)
        self.queue.give_back(keyed)
        return idle

    def cached_blocks(self) -> Ints:
        """Return int64[k]: the blocks of pieces that no row holds and that have a key."""
        if not any(self.cached):
            return np.zeros(0, np.int64)
        first = np.flatnonzero((self.cache.key != 0) & (self.references == 0))
        sizes = np.array([piece.blocks for piece in self.pieces])[self.group[self.page(first)]]
        return np.repeat(first - sizes.cumsum() + sizes, sizes) + np.arange(sizes.sum())
