"""No cache: every step recomputes all tokens so far and keeps nothing.

The baseline that shows why a KV cache exists: memory never runs out, but the time per token
grows with the context.  K/V exists only during a layer's forward pass, so it belongs to the
activations, not to the pool.
"""

from __future__ import annotations

from allocators.answers import Ask, Grant, Refusal, Usage
from allocators.compiled import mypyc_attr
from allocators.content import Content
from allocators.errors import AllocatorError, CorruptionError
from allocators.reserving import ReservingAllocator


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class NoCacheAllocator(ReservingAllocator):
    """Rows without blocks; only what exceeds `max_model_len` is refused."""

    kind = "no-cache"
    recomputes = True

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """See `Allocator.never`."""
        longest = max(final, ask.whole)
        return self.too_long(longest) if longest > self.max_model_len else None

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`.  The row may grow to `max_model_len`."""
        if ask.tokens < 1:
            raise AllocatorError(f"{self.kind}: a sequence has at least one token, got {ask.tokens}")
        if max(ask.tokens, ask.whole) > self.max_model_len:
            return self.too_long(max(ask.tokens, ask.whole))
        return Grant(self._open(self.max_model_len, ask.tokens), self.max_model_len)

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant | Refusal:
        """See `Allocator.fork`.  There is nothing to share or copy."""
        self.demand_open(row)
        return Grant(self._open(self.max_model_len, int(self.table.length[row])), self.max_model_len)

    def release(self, row: int) -> None:
        """See `Allocator.release`."""
        self.demand_open(row)
        self.table.close(row)

    def usage(self) -> Usage:
        """See `Allocator.usage`.  Nothing is ever held."""
        return Usage(held=0)

    def check(self) -> None:
        """See `Allocator.check`.  No row may list a block, and every length must be one that was granted."""
        table = self.table
        rows = table.rows()
        if table.count.any() or table.blocks.any():
            raise CorruptionError("a row lists blocks, but nothing is ever held")
        if any(not 0 < table.length[row] <= table.slots[row] for row in rows):
            raise CorruptionError("a row's length is not between 1 and its slots")
        if int(table.length.sum()) != sum(int(table.length[row]) for row in rows):
            raise CorruptionError("a closed row has tokens")
