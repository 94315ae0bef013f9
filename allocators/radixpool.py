"""The pool of a radix allocator: blocks whose cached ones are the pages of a tree.

A cached block is not in the free queue but in the tree (`allocators.radix`); when the queue is empty, the least
recently used leaf that no running sequence uses is evicted with all its blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from allocators.blockpool import BlockPool
from allocators.compiled import mypyc_attr
from allocators.errors import CorruptionError
from allocators.prefix import PrefixCache
from allocators.radix import RadixTree
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Sequence


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Pages(PrefixCache):
    """Which blocks are pages of the tree (`key` is true); their real keys are in the tree."""

    def __init__(self, num_blocks: int) -> None:
        """Make a cache without pages."""
        super().__init__(num_blocks)
        self.key = cast("Ints", np.zeros(num_blocks + 1, np.bool_))

    @property
    def unused(self) -> bool:
        """Whether certainly no block is in the tree; not tracked, so never certain."""
        return False

    def carries(self, block: int, key: int) -> bool:
        """See `PrefixCache.carries`; only asks whether the block has any key."""
        return bool(self.key[block])

    def forget(self, blocks: Ints) -> None:
        """See `PrefixCache.forget`."""
        self.key[blocks] = 0

    def check(self) -> None:
        """Do nothing: `RadixPool.check` compares this with the tree."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class RadixPool(BlockPool):
    """A block pool whose cached blocks are pages of a radix tree."""

    def __init__(self, num_blocks: int) -> None:
        """Make a pool in which every block is free."""
        super().__init__(num_blocks)
        self._counts_references = True  # from the start: of what is not in the queue, the tree may hold some
        self.cache = Pages(num_blocks)
        self.tree = RadixTree()

    @property
    def free(self) -> int:
        """Blocks that can be taken: those in the queue, and pages that are on no sequence's path."""
        return len(self.queue) + self.tree.evictable

    @property
    def held(self) -> int:
        """Blocks that some sequence holds."""
        return self.num_blocks - len(self.queue) - self.cached

    def take(self, count: int) -> tuple[Ints, Sequence[int]]:
        """See `BlockPool.take`; evicts whole leaves when the queue runs short."""
        evicted: list[int] = []
        if count > len(self.queue):
            evicted = [0] * count
            self._make_room(count, evicted)
        blocks = self.queue.take(count)
        self.references[blocks] = 1
        return blocks, evicted

    def _make_room(self, count: int, evicted: list[int]) -> None:
        """Evict leaves until the queue has `count` blocks; notes in `evicted` how many for each block to be taken."""
        place = len(self.queue)
        for leaf in self.tree.evict(count - place):
            self.cache.forget(leaf)
            self.queue.give_back(leaf)
            self.cached -= len(leaf)
            self.evicted += len(leaf)
            evicted[place] = len(leaf)
            place += len(leaf)

    def add(self, blocks: Ints) -> None:
        """Mark blocks, which the tree holds by now, as its pages."""
        self.cache.key[blocks] = 1

    def forget(self) -> None:
        """Drop every key, and the tree; its blocks go to the back of the queue."""
        self.queue.give_back(self.cached_blocks())
        self.tree = RadixTree()
        super().forget()

    def _keep(self, blocks: Ints) -> None:
        """Leave cached blocks in the tree."""

    def _revive(self, blocks: Ints) -> None:
        """Leave cached blocks in the tree."""

    def queued(self) -> Ints:
        """See `BlockPool.queued`."""
        return np.flatnonzero((self.references[1:] == 0) & (self.cache.key[1:] == 0)) + 1

    def check(self, references: Ints) -> None:
        """See `BlockPool.check`."""
        super().check(references)
        self.tree.check()
        pages = sorted(block for node in self.tree for block in node.blocks.tolist())
        if pages != np.flatnonzero(self.cache.key).tolist():
            raise CorruptionError("the tree does not hold just the blocks that count as its pages")
