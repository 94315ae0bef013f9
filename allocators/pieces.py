"""The piece pool: pages of one size, each cut into pieces for whichever group of layers needs them.

Pages of which no piece is held are in one queue, whatever group their cached pieces belong to: empty
pages at the front, those with cached pieces at the back, in order of release.  Taking a page from the
queue evicts what is cached in it.  A page in use belongs to its group until its last held piece is given
back; its other pieces are *blank*, or *kept* for the prefix cache.  They are taken before another page
is: blank ones first, kept ones only when few pages are empty.  (Jenga instead gives each request pages of
its own as long as it can.)

If a page is a single piece, this behaves exactly like `allocators.blockpool`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.compiled import mypyc_attr
from allocators.freequeue import FreeQueue
from allocators.prefix import PrefixCache, parted
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from allocators.groups import Piece


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PiecePool:
    """Pages with a reference count for each piece.  A piece is identified by the first of its blocks.

    Several pieces of a group are passed as int64[k] of such blocks.
    """

    def __init__(self, num_blocks: int, page_blocks: int, pieces: Sequence[Piece], ample: int) -> None:
        """Make a pool of empty pages.

        Args:
            num_blocks: blocks of a whole number of pages.
            page_blocks: blocks per page.
            pieces: what each group takes at a time.
            ample: as long as more pages than this are empty, kept pieces of pages in use are not taken.

        """
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
        self.blank: list[dict[int, None]] = [{} for _ in self.pieces]
        """By group: pieces of pages in use that hold nothing; the first is taken next."""
        self.kept: list[dict[int, None]] = [{} for _ in self.pieces]
        """By group: pieces of pages in use that are only cached, in order of release."""
        self.held = [0] * len(self.pieces)
        """By group: pieces that are held by at least one row."""
        self.cached = [0] * len(self.pieces)
        """By group: pieces that no row holds and that have a key."""
        self.shared = [0] * len(self.pieces)
        """By group: the sum over held pieces of references - 1."""
        self.evicted = 0
        """Cached blocks evicted so far."""
        self._ample = ample
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

    @property
    def blocks_blank(self) -> int:
        """Blocks of blank pieces."""
        return self.blocks_of([len(blank) for blank in self.blank])

    def blocks_of(self, counts: list[int]) -> int:
        """Blocks that so many pieces of each group are."""
        blocks = 0
        for group, count in enumerate(counts):
            blocks += count * self._sizes[group]
        return blocks

    def fits(self, needs: Sequence[int], hits: Sequence[Ints] = ()) -> bool:
        """Return whether `needs[g]` pieces of each group g can be taken at once, if `hits[g]` are held too."""
        pages = len(self.queue)
        for group, (need, piece) in enumerate(zip(needs, self.pieces, strict=True)):
            spare = len(self.blank[group]) + len(self.kept[group])
            if len(hits) and len(hits[group]):
                idle = hits[group][self.references[hits[group]] == 0]
                opened = np.unique(self.page(idle))
                opened = opened[self.inside[opened] == 0]
                pages -= len(opened)
                spare += len(opened) * piece.pieces - len(idle)
            pages -= -(-max(0, need - spare) // piece.pieces)
        return pages >= 0

    def page(self, blocks: Ints) -> Ints:
        """Return int64[k]: the pages, from 1, in which blocks lie."""
        return blocks if self.page_blocks == 1 else (blocks - 1) // self.page_blocks + 1

    def take(self, needs: Sequence[int]) -> list[Ints]:
        """Take `needs[g]` pieces of each group g, each with one holder; they must fit."""
        return [self.take_some(group, need) for group, need in enumerate(needs)]

    def take_some(self, group: int, need: int) -> Ints:
        """Take `need` pieces of one group, each with one holder; they must fit."""
        found = self._take_pages(group, need) if self.pieces[group].pieces == 1 else self._take_parts(group, need)
        self.references[found] = 1
        self.held[group] += need
        return found

    def _take_pages(self, group: int, need: int) -> Ints:
        """Take pieces that are whole pages, in the order of the queue."""
        pages = self.queue.take(need)
        if self.page_blocks == 1:
            self._evict_blocks(pages)
        else:
            for page in pages[self.group[pages] >= 0].tolist():
                self._evict(page)
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
        self.group[pages.reshape(times, len(groups))] = groups
        for group in groups:
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

    def _take_parts(self, group: int, need: int) -> Ints:
        """Take pieces of pages in use as long as there are any, then open further pages."""
        blank, kept, taken = self.blank[group], self.kept[group], list[int]()
        while len(taken) < need:
            if not blank and kept and len(self.queue) - self.idle <= self._ample:
                block = next(iter(kept))
                del kept[block]
                self._forget(group, [block])
            else:
                if not blank:
                    self._open(group)
                block = next(iter(blank))
                del blank[block]
            taken.append(block)
            self.inside[(block - 1) // self.page_blocks + 1] += 1
        return np.array(taken, np.int64)

    def _open(self, group: int) -> None:
        """Take the next page from the queue for `group`; its pieces become blank."""
        page = int(self.queue.take(1)[0])
        if self.group[page] >= 0:
            self._evict(page)
        self.group[page] = group
        self.blank[group].update(dict.fromkeys(self.within(page)))

    def _evict(self, page: int) -> None:
        """Forget what is cached in a page of which no piece is held."""
        self._forget(int(self.group[page]), [block for block in self.within(page) if self.cache.key[block]])
        self.idle -= 1

    def _evict_blocks(self, pages: Ints) -> Sequence[int]:
        """Do `_evict` for pages of one block, just taken; return how many cached blocks were in each, if any were."""
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

    def _forget(self, group: int, blocks: list[int]) -> None:
        self.cache.forget(np.array(blocks, np.int64))
        self.cached[group] -= len(blocks)
        self.evicted += len(blocks) * self.pieces[group].blocks

    def within(self, page: int) -> range:
        """Return the pieces of a page that belongs to a group."""
        first = (page - 1) * self.page_blocks + 1
        return range(first, first + self.page_blocks, self.pieces[self.group[page]].blocks)

    def share(self, group: int, blocks: Ints) -> None:
        """Add a holder to each piece, held or cached."""
        idle = blocks[self.references[blocks] == 0]
        for block in idle.tolist():
            self._revive(group, block)
        self.shared[group] += len(blocks) - len(idle)
        self.references[blocks] += 1

    def _revive(self, group: int, block: int) -> None:
        page = (block - 1) // self.page_blocks + 1
        if not self.inside[page]:
            self.queue.remove(np.array([page]))
            self.idle -= 1
            for other in self.within(page):
                (self.kept if self.cache.key[other] else self.blank)[group][other] = None
        del self.kept[group][block]
        self.inside[page] += 1
        self.held[group] += 1
        self.cached[group] -= 1

    def touch(self, group: int, block: int) -> None:
        """Count a cached piece as used now, although no row will hold it."""
        self.share(group, np.array([block]))
        self.let_go(group, np.array([block]))

    def let_go(self, group: int, blocks: Ints) -> Ints:
        """Remove a holder from each piece, in order of release (the last piece of a sequence first).

        Returns:
            The pieces that no row holds any more.

        """
        self.references[blocks] -= 1
        if self.pieces[group].pieces == 1:
            return self._let_go_of_pages(group, blocks)
        pages, idle = list[int](), list[int]()
        for block in blocks.tolist():
            if self.references[block]:
                self.shared[group] -= 1
                continue
            idle.append(block)
            page, keyed = (block - 1) // self.page_blocks + 1, bool(self.cache.key[block])
            self.held[group] -= 1
            self.cached[group] += keyed
            self.inside[page] -= 1
            (self.kept if keyed else self.blank)[group][block] = None
            if not self.inside[page]:
                pages.append(page)
        self._close(group, pages)
        return np.array(idle, np.int64)

    def _let_go_of_pages(self, group: int, blocks: Ints) -> Ints:
        """Put pieces that are whole pages in the queue, if no row holds them any more."""
        idle = blocks[self.references[blocks] == 0] if self.shared[group] else blocks
        keyed, empty = parted(self.cache.key[idle], self.page(idle))
        self.shared[group] -= len(blocks) - len(idle)
        self.held[group] -= len(idle)
        self.cached[group] += len(keyed)
        self.idle += len(keyed)
        self.inside[self.page(idle)] = 0
        self.group[empty] = -1
        self.queue.give_front(empty)
        self.queue.give_back(keyed)
        return idle

    def _close(self, group: int, pages: Iterable[int]) -> None:
        """Put pages of which no piece is held any more in the queue."""
        empty, idle = list[int](), list[int]()
        for page in pages:
            keyed = False
            for block in self.within(page):
                self.blank[group].pop(block, None)
                keyed |= block in self.kept[group]
                self.kept[group].pop(block, None)
            (idle if keyed else empty).append(page)
        self.group[empty] = -1
        self.queue.give_front(np.array(empty, np.int64))
        self.queue.give_back(np.array(idle, np.int64))
        self.idle += len(idle)

    def forget(self) -> None:
        """Forget every key; no piece may be held."""
        for page in self.queue.order().tolist():
            self.group[page] = -1
        self.cache.clear()
        self.cached = [0] * len(self.pieces)
        self.idle = 0

    def cached_blocks(self) -> Ints:
        """Return int64[k]: the blocks of pieces that no row holds and that have a key."""
        if not any(self.cached):
            return np.zeros(0, np.int64)
        first = np.flatnonzero((self.cache.key != 0) & (self.references == 0))
        sizes = np.array([piece.blocks for piece in self.pieces])[self.group[self.page(first)]]
        return np.repeat(first - sizes.cumsum() + sizes, sizes) + np.arange(sizes.sum())
