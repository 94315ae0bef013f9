"""Paged allocation: blocks on demand, as in PagedAttention and vLLM.

A sequence holds exactly the blocks that its tokens need.  They may lie anywhere in the pool
and are listed in its row of the block table; the only slots it wastes are the unused end of
its last block.  Because all blocks are alike, sequences can share them:

* a *prefix*: each full block has a key, and a sequence that begins with the same tokens uses
  the same blocks, even after the sequences that computed them have ended (`allocators.prefix`);
* a *fork*: parallel samples and beams hold the same blocks until one of them writes into a
  shared last block, which is copied first (copy-on-write, `allocators.rows`);
* a *swap*: a shared block is moved to the host and back only once (`allocators.swapping`).

Blocks are taken in the same order as in vLLM (`allocators.blockpool`).  `allocators.ondemand` lets rows grow.
What vLLM's block manager has besides, the watermark and who is preempted, is the scheduler's here: it says with
every request how many blocks must stay free (`Ask.spare`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from allocators.answers import MISS, Ask, Grant, Hit, Reason, Refusal
from allocators.audit import audit
from allocators.compiled import mypyc_attr
from allocators.content import Content
from allocators.errors import AllocatorError
from allocators.ondemand import OnDemandRows
from allocators.options import BLOCK_SIZE, HOST_BLOCKS, Option
from allocators.table import Ints


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PagedAllocator(OnDemandRows):
    """A pool whose blocks are taken one by one, as sequences grow, and shared where they can be."""

    kind: ClassVar[str] = "paged"
    options: ClassVar[Mapping[str, Option]] = MappingProxyType(
        {
            "block_size": BLOCK_SIZE,
            "prefix_cache": Option(bool, False, "keep full blocks for sequences that begin alike"),
            "sliding_window": Option(
                int, None, "tokens that a token attends to; all of them if unset", minimum=1, fact="sliding_window"
            ),
            "host_blocks": HOST_BLOCKS,
        }
    )
    shares: ClassVar[bool] = True
    scattered: ClassVar[bool] = True

    @property
    def settled(self) -> bool:
        """See `Allocator.settled`."""
        return not self.prefix_cache and not self.windowed

    def check(self) -> None:
        """See `Allocator.check`."""
        audit(self)

    # -- admission -------------------------------------------------------------------------

    def lookup(self, content: Content, tokens: int) -> Hit:
        """See `Allocator.lookup`.  Stops at the first miss; with a sliding window, only its last blocks must hit."""
        if not self.prefix_cache or content.unheard:
            return MISS
        full = (tokens - 1) // self.block_size
        while True:
            blocks = self.find(content, full)
            if not blocks:
                return MISS
            if not self.wake([content.key(self.block_size, len(blocks) - 1)]):
                return Hit(len(blocks) * self.block_size, tuple(blocks))

    def find(self, content: Content, count: int) -> list[int]:
        """Return the blocks of the longest prefix hit among the first `count` blocks of a content."""
        cache = self.pool.cache
        if not (self.windowed or (count and cache.find(content.key(self.block_size, 0)))):
            return []  # the usual case, in which no other key need be computed
        keys = content.keys(self.block_size, count)[:count]
        if not self.windowed:
            return cache.run(keys)
        self.wake(keys)
        return cache.window(keys, self.window.reach)

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """See `Allocator.never`.  Refuses what exceeds `max_model_len` or the pool."""
        if max(ask.tokens, ask.whole, final) > self.max_model_len:
            return self.too_long(max(ask.tokens, ask.whole, final))
        most = self.window.most(ask.tokens, final, ask.samples)
        need = max(most, self.blocks_for(max(ask.tokens, ask.whole)) + ask.spare)
        return Refusal(Reason.NEVER, need, need - self.num_blocks) if need > self.num_blocks else None

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`.  Blocks of the hit that no row holds leave the free queue."""
        hit, size, table = ask.hit, self.block_size, self.table
        if not len(hit.blocks) * size == hit.tokens < ask.tokens:
            raise AllocatorError(f"{ask.tokens} token slots are not more than the {hit.tokens} of the prefix hit")
        if hit.blocks and not self.prefix_cache:
            raise AllocatorError("there is no prefix cache to hit")
        whole = max(ask.tokens, ask.whole)
        if whole > self.max_model_len:
            return self.too_long(whole)
        if not self.prefix_cache:  # nothing can be shared, which saves most of the array operations below
            last = -(-whole // size)
            if last + ask.spare > self.pool.free:
                return self._short_of(last, ask.spare)
            need = -(-ask.tokens // size)
            return Grant(self.open_row(self.pool.take(need)[0], ask.tokens), need * size)
        blocks, need = np.array(hit.blocks, np.int64), self.blocks_for(whole) - len(hit.blocks)
        if len(blocks):
            if not self.is_fresh(ask.content, blocks):
                raise AllocatorError("the prefix hit is stale: a block of it was taken since the look-up")
            need += self.pool.revived(blocks[blocks > 0])
        if need + ask.spare > self.pool.free:
            return self._short_of(need, ask.spare)
        if len(blocks):
            self.take_part(ask.content, blocks)
        taken, _ = self.pool.take(self.blocks_for(ask.tokens) - len(blocks))
        row = self.open_row(np.concatenate([blocks, taken]) if len(blocks) else taken, ask.tokens)
        self.know(row, ask.content)
        self.enter_row(row, len(blocks), ask.tokens // size)
        return Grant(row, int(table.slots[row]))

    def is_fresh(self, content: Content, blocks: Ints) -> bool:
        """Whether the blocks of a prefix hit still hold the tokens that `lookup` found in them."""
        keys = content.keys(self.block_size, len(blocks))[: len(blocks)]
        return bool((self.pool.cache.key[blocks] == np.array(keys, np.int64))[blocks > 0].all())

    def take_part(self, content: Content, blocks: Ints) -> None:
        """Take a reference to the blocks of a prefix hit, for a row that is about to be opened."""
        self.meet([content.key(self.block_size, len(blocks) - 1)])
        self.pool.share(blocks[blocks > 0])

    def reset(self) -> Refusal | None:
        """Forget every cached prefix.  Refused while any block is held."""
        if self.pool.held:
            return Refusal(Reason.BLOCKS, self.num_blocks, self.pool.held)
        self.pool.forget()
        return None
