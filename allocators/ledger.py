"""The ledger: where every token slot of the pool is at one instant.

The seven shares always sum to the capacity.  An allocator knows what is held, cached and
free (`Usage`); only the engine knows how long each sequence will get, so only it can split
slots that are held but empty into `reserved` (will be used) and `internal` (never will).  The
terms are those of the PagedAttention paper, section 3.1 and figure 2: its "external
fragmentation and others" is `external + rounding` here.
"""

from __future__ import annotations

from typing import NamedTuple

from allocators.answers import Usage


class Ledger(NamedTuple):
    """Token slots by use.  The first seven sum to the capacity of the pool."""

    live: int
    """Hold K/V of a running sequence; a shared slot once."""
    reserved: int
    """Held for a running sequence, which will use them before it ends."""
    internal: int
    """Held by policy or as the rest of a last block; will never be used."""
    rounding: int
    """Held only because placement rounds up (buddy sizes, page multiples)."""
    cached: int
    """Kept for reuse, evictable."""
    external: int
    """Free, but in no hole large enough for the request that memory keeps at the head of the queue."""
    free: int
    """Free and usable."""
    shared_savings: int
    """Outside the sum: slots that sharing avoids."""
    swapped: int
    """Outside the sum: slots on the host."""

    @property
    def total(self) -> int:
        """Sum of the seven shares: the capacity."""
        return sum(self[:7])


def split(capacity: int, usage: Usage, written: int, internal: int, stranded: int) -> Ledger:
    """Make the ledger from what the allocator counts and what the engine knows.

    Args:
        capacity: token slots in the pool.
        usage: the allocator's count.
        written: sum over running sequences of the slots that tokens take whose K/V exists, or is written by the
            current step.
        internal: held slots that no sequence will ever use, placement rounding not counted.
        stranded: free slots in holes too small for the blocked head of the queue, 0 if memory blocks none.

    """
    live = written + usage.states - usage.saved - usage.dropped
    return Ledger(
        live=live,
        reserved=usage.held - usage.rounding - live - internal,
        internal=internal,
        rounding=usage.rounding,
        cached=usage.cached,
        external=stranded,
        free=capacity - usage.held - usage.cached - stranded,
        shared_savings=usage.saved,
        swapped=usage.swapped,
    )
