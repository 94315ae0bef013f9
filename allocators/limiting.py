"""A limit on the number of blocks that an allocator may hold, whatever its pool has: an adaptor.

Admission and swapping in are told to leave free what is withheld.  Growth cannot be told: it stops at the
limit, and a fork beyond it is undone.
"""

from __future__ import annotations

from collections.abc import Sequence

from allocators.adaptors import Adaptor
from allocators.answers import Ask, Grant, Growth, Leap, Reason, Refusal, Swap
from allocators.base import Allocator
from allocators.content import Content
from allocators.errors import AllocatorError
from allocators.table import Ints


class LimitingAdaptor(Adaptor):
    """Limits the number of blocks that an allocator may hold."""

    def __init__(self, inner: Allocator, blocks: int) -> None:
        """Let `inner` hold at most `blocks` blocks, which must be from 1 to all it has."""
        if not 1 <= blocks <= inner.num_blocks:
            raise AllocatorError(f"a limit is 1 to {inner.num_blocks} blocks, got {blocks}")
        super().__init__(inner)
        self.limit = blocks
        self._withheld = inner.num_blocks - blocks

    @property
    def left(self) -> int:
        """Blocks that may still be taken."""
        return self.limit - -(-self.inner.usage().held // self.block_size)

    def never(self, ask: Ask, final: int) -> Refusal | None:
        """See `Allocator.never`; what is withheld must stay free."""
        final = max(final, ask.whole)
        return self.inner.never(ask._replace(whole=final, spare=ask.spare + self._withheld), final)

    def admit(self, ask: Ask) -> Grant | Refusal:
        """See `Allocator.admit`; what is withheld must stay free."""
        return self.around(self.inner.admit, ask._replace(spare=ask.spare + self._withheld))

    def grow(self, rows: Ints, lengths: Ints) -> Growth:
        """See `Allocator.grow`; stops at the first row that might exceed the limit."""
        total = self.inner.demand(rows, lengths).cumsum()
        over = total > self.left
        granted = int(over.argmax()) if over.any() else len(rows)
        left = self.left
        growth = self.around(self.inner.grow, rows[:granted], lengths[:granted])
        if growth.refusal is not None or granted == len(rows):
            return growth
        need = int(total[granted] - (total[granted - 1] if granted else 0))
        return growth._replace(refusal=self._short(need, int(total[granted]) - left))

    def can_grow(self, rows: Ints, lengths: Ints) -> bool:
        """See `Allocator.can_grow`."""
        return self.inner.can_grow(rows, lengths) and int(self.inner.demand(rows, lengths).sum()) <= self.left

    def advance(self, rows: Ints, lengths: Ints, steps: int) -> Leap:
        """See `Allocator.advance`; leaps as far as the limit allows."""
        low, high = 0, int(min(steps, self.max_model_len - lengths.max(initial=0)))
        while low < high:
            middle = (low + high + 1) // 2
            if int(self.inner.demand(rows, lengths + middle).sum()) <= self.left:
                low = middle
            else:
                high = middle - 1
        if low:
            return self.around(self.inner.advance, rows, lengths, low)
        return Leap.none()

    def fork(self, row: int, output: int | None = None, content: Content | None = None) -> Grant | Refusal:
        """See `Allocator.fork`; a fork that takes too much room is undone."""
        grant = self.around(self.inner.fork, row, output, content)
        if isinstance(grant, Refusal) or self.left >= 0:
            return grant
        need, missing = self.blocks_for(grant.slots), -self.left
        self.inner.release(grant.row)
        return self._short(max(need, missing), missing)

    def swap_in(self, row: int, spare: int = 0) -> Swap | Refusal:
        """See `Allocator.swap_in`; what is withheld must stay free."""
        return self.around(self.inner.swap_in, row, spare + self._withheld)

    def swap_in_group(self, rows: Sequence[int], spare: int = 0) -> list[Swap] | Refusal:
        """See `Allocator.swap_in_group`; what is withheld must stay free."""
        return self.around(self.inner.swap_in_group, rows, spare + self._withheld)

    def _short(self, need: int, missing: int) -> Refusal:
        return Refusal(Reason.BLOCKS, max(need, 1), missing)
