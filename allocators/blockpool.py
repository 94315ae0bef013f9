"""The block pool: a reference count for each block, and a queue of free ones.

The policy is vLLM's, and it determines every block id.  A block that loses its last holder
joins the free queue: at the back if it is cached, at the front if not.  Blocks with nothing
to reuse are therefore taken first, then cached ones in order of release (LRU); and because
sequences release their last blocks first, a prefix is evicted after what follows it.  A cached
block is evicted when it is taken for other tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.compiled import copied_whole, mypyc_attr
from allocators.errors import CorruptionError
from allocators.freequeue import FreeQueue
from allocators.prefix import PrefixCache, parted
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Sequence


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class BlockPool:
    """Blocks 1 to `num_blocks` with reference counts, a free queue and a prefix cache.

    Several blocks are passed as int64[k] of physical ids.
    """

    def __init_subclass__(cls) -> None:
        """Make copies of instances complete where this class is compiled (see `allocators.compiled`)."""
        super().__init_subclass__()
        copied_whole(cls)

    def __init__(self, num_blocks: int) -> None:
        """Make a pool in which every block is free."""
        self.num_blocks = num_blocks
        self._references = np.zeros(num_blocks + 1, np.int64)
        self._counts_references = False
        """Whether those are kept up to date."""
        self.queue = FreeQueue(num_blocks)
        self.cache = PrefixCache(num_blocks)
        self.cached = 0
        """Blocks that no row holds and that have a key."""
        self.evicted = 0
        """Cached blocks evicted so far, because they were taken for other tokens."""
        self.shared = 0
        """Blocks saved by sharing: the sum over held blocks of references - 1."""

    @property
    def references(self) -> Ints:
        """int64[num_blocks + 1]: how many rows hold each block.

        They are counted from when somebody first asks, as before a block is shared: until then, each that is not in the
        queue has one holder.
        """
        if not self._counts_references:
            self._counts_references = True
            self._references[1:] = 1
            self._references[self.queue.order()] = 0
        return self._references

    @property
    def free(self) -> int:
        """Blocks that can be taken, cached ones included."""
        return self.queue.size

    @property
    def held(self) -> int:
        """Blocks that are held by at least one row."""
        return self.num_blocks - self.queue.size

    def cached_blocks(self) -> Ints:
        """Return int64[k]: the blocks that no row holds and that have a key."""
        if not self.cached:
            return np.zeros(0, np.int64)
        return np.flatnonzero((self.cache.key != 0) & (self.references == 0))

    def take(self, count: int) -> tuple[Ints, Sequence[int]]:
        """Take `count` free blocks, each with one holder; there must be that many.

        Returns:
            The blocks, and how many cached blocks were evicted to take each; empty if none was.

        """
        blocks = self.queue.take(count)
        if self._counts_references:
            self._references[blocks] = 1
        lost = self.cached - self.queue.size  # cached ones are at the back of the queue
        if lost <= 0:
            return blocks, ()
        self.cache.forget(blocks[count - lost :])
        self.cached -= lost
        self.evicted += lost
        return blocks, [0] * (count - lost) + [1] * lost

    def revived(self, blocks: Ints) -> int:
        """Count those of some blocks that no row holds: sharing them would take them from the free queue."""
        return int(np.count_nonzero(self.references[blocks] == 0))

    def share(self, blocks: Ints) -> None:
        """Add a holder to each block, held or cached."""
        idle = blocks[self.references[blocks] == 0]
        self._revive(idle)
        self.cached -= len(idle)
        self.shared += len(blocks) - len(idle)
        self.references[blocks] += 1

    def let_go(self, blocks: Ints) -> Ints:
        """Remove a holder from each block, in order of release (the last block of a sequence first).

        Returns:
            The blocks that no row holds any more.

        """
        idle = blocks
        if self.shared:
            self.references[blocks] -= 1
            idle = blocks[self.references[blocks] == 0]
            self.shared -= len(blocks) - len(idle)
        elif self._counts_references:
            self._references[blocks] = 0
        if self.cache.unused:
            self.queue.give_front(idle)
            return idle
        keyed, bare = parted(self.cache.key[idle], idle)
        self.queue.give_front(bare)
        self._keep(keyed)
        self.cached += len(keyed)
        return idle

    def _keep(self, blocks: Ints) -> None:
        """Store cached blocks that have lost their last holder.

        They wait behind all in the queue that are not cached, as `take` relies on, in the order in which to evict them.
        """
        self.queue.give_back(blocks)

    def _revive(self, blocks: Ints) -> None:
        """Undo `_keep` for cached blocks that get a holder again."""
        self.queue.remove(blocks)

    def queued(self) -> Ints:
        """Return the blocks that should be in the free queue, ascending."""
        return np.flatnonzero(self.references[1:] == 0) + 1

    def forget(self) -> None:
        """Forget every key; the order of the free queue does not change."""
        self.cache.clear()
        self.cached = 0

    def check(self, references: Ints) -> None:
        """Raise `CorruptionError` unless the pool is consistent and has the given reference counts.

        Args:
            references: int64[num_blocks + 1], rows that hold each block, counted from the block tables.

        """
        wrong = np.flatnonzero(references != self.references)
        if len(wrong):
            block = int(wrong[0])
            raise CorruptionError(f"block {block} has {references[block]} holders, counted {self.references[block]}")
        self.queue.check()
        if not np.array_equal(np.sort(self.queue.order()), self.queued()):
            raise CorruptionError("the free queue does not hold exactly the blocks that no row holds")
        self.cache.check()
        cached = self.cache.key[self.queue.order()] != 0
        if cached[: len(cached) - np.count_nonzero(cached)].any():
            raise CorruptionError("a cached block would be taken before one that is not")
        if self.cache.key[0]:
            raise CorruptionError("the null block is cached")
        if len(self.cached_blocks()) != self.cached:
            raise CorruptionError(f"{len(self.cached_blocks())} blocks are cached, counted {self.cached}")
        shared = int(references.sum()) - self.held
        if shared != self.shared:
            raise CorruptionError(f"sharing avoids {shared} blocks, counted {self.shared}")
