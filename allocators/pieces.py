"""The piece pool: a page pool whose pages are cut into pieces for whichever group of layers needs them.

A page in use belongs to its group until its last held piece is given back; its other pieces are *blank*, or *kept* for
the prefix cache.  They are taken before another page is: blank ones first, kept ones only when few pages are empty.
(Jenga instead gives each request pages of its own as long as it can.)

If a page is a single piece, this behaves exactly like `allocators.blockpool`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.compiled import mypyc_attr
from allocators.pages import PagePool
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from allocators.groups import Piece


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PiecePool(PagePool):
    """Pages of which several rows may hold pieces."""

    def __init__(self, num_blocks: int, page_blocks: int, pieces: Sequence[Piece], ample: int) -> None:
        """Make a pool of empty pages.

        Args:
            num_blocks: blocks of a whole number of pages.
            page_blocks: blocks per page.
            pieces: what each group takes at a time.
            ample: as long as more pages than this are empty, kept pieces of pages in use are not taken.

        """
        super().__init__(num_blocks, page_blocks, pieces)
        self.blank: list[dict[int, None]] = [{} for _ in self.pieces]
        """By group: pieces of pages in use that hold nothing; the first is taken next."""
        self.kept: list[dict[int, None]] = [{} for _ in self.pieces]
        """By group: pieces of pages in use that are only cached, in order of release."""
        self._ample = ample

    @property
    def blocks_blank(self) -> int:
        """Blocks of blank pieces."""
        return self.blocks_of([len(blank) for blank in self.blank])

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

    def take(self, needs: Sequence[int]) -> list[Ints]:
        """Take `needs[g]` pieces of each group g, each with one holder; they must fit."""
        return [self.take_some(group, need) for group, need in enumerate(needs)]

    def take_some(self, group: int, need: int) -> Ints:
        """Take `need` pieces of one group, each with one holder; they must fit."""
        found = self.take_pages(group, need) if self.pieces[group].pieces == 1 else self._take_parts(group, need)
        self.references[found] = 1
        self.held[group] += need
        return found

    def _take_parts(self, group: int, need: int) -> Ints:
        """Take pieces of pages in use as long as there are any, then open further pages."""
        blank, kept, taken = self.blank[group], self.kept[group], list[int]()
        while len(taken) < need:
            if not blank and kept and len(self.queue) - self.idle <= self._ample:
                block = next(iter(kept))
                del kept[block]
                self.forget_pieces(group, [block])
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
            self.evict(page)
        self.group[page] = group
        self.blank[group].update(dict.fromkeys(self.within(page)))

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
            return self.let_go_of_pages(group, blocks)
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
