"""The bound: what a memory manager could do at best with this pool and these tokens.

Token slots are handed out one by one, so nothing is empty and no hole is too small; sequences share
what they have in common; and a preempted sequence goes to a host without end and comes back
at no cost.  First come, first served, as for everyone: so batch and throughput of any other
allocator are a percentage of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np

from allocators.base import BLOCK_SIZE, Ints, Refusal, Swap
from allocators.blockpool import BlockPool
from allocators.freequeue import FreeQueue
from allocators.options import Option
from allocators.paged import PagedAllocator
from allocators.prefix import PrefixCache


class EndlessPool(BlockPool):
    """A pool without a prefix cache that doubles whenever it runs out."""

    @property
    def free(self) -> int:
        """More than anyone can ask for."""
        return 1 << 60

    def take(self, count: int) -> tuple[Ints, Ints]:
        """Give `count` blocks one holder each."""
        while count > len(self.queue):
            self._double()
        return super().take(count)

    def _double(self) -> None:
        free = self.queue.order()
        self.references = np.concatenate([self.references, np.zeros(self.num_blocks, np.int64)])
        self.queue = FreeQueue(2 * self.num_blocks)
        self.queue.remove(np.setdiff1d(np.arange(1, self.num_blocks + 1), free))
        self.cache = PrefixCache(2 * self.num_blocks)
        self.num_blocks *= 2


class IdealAllocator(PagedAllocator):
    """Pages of one token, and swapping that is always possible and free."""

    kind = "ideal"
    options = MappingProxyType(
        {
            "block_size": BLOCK_SIZE._replace(default=1, choices=(1,)),
            "prefix_cache": Option(bool, False, "keep tokens for sequences that begin alike", fact="shared_prefixes"),
        }
    )
    free_preemption = True

    def __init__(
        self, num_blocks: int, block_size: int, max_model_len: int, max_rows: int = 256, *, prefix_cache: bool = False
    ) -> None:
        """Make an empty pool."""
        super().__init__(num_blocks, block_size, max_model_len, max_rows, prefix_cache=prefix_cache)
        self.host.pool = EndlessPool(1024)

    def swap_out_group(self, rows: Sequence[int]) -> list[Swap] | Refusal:
        """See `Allocator.swap_out_group`.  Never refused, and no move is due: none could be free of cost."""
        swaps = super().swap_out_group(rows)
        return swaps if isinstance(swaps, Refusal) else [swap._replace(moves=()) for swap in swaps]

    def swap_in_group(self, rows: Sequence[int], spare: int = 0) -> list[Swap] | Refusal:
        """See `Allocator.swap_in_group`.  No move is due."""
        swaps = super().swap_in_group(rows, spare)
        return swaps if isinstance(swaps, Refusal) else [swap._replace(moves=()) for swap in swaps]
