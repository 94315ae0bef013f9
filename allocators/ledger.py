"""The ledger: how every token slot of the pool is used at one instant.

The seven shares always sum to the capacity.  An allocator knows what is held, cached and free
(`Usage`).  Only the engine knows how long each sequence will become, so only it can divide slots
that are held but empty into `reserved` (will be used) and `internal` (will never be used).  The
terms are those of the PagedAttention paper, section 3.1 and figure 2: its "external fragmentation
and others" is `external + rounding` here.
"""

from __future__ import annotations

from typing import NamedTuple

from allocators.answers import Usage


class Ledger(NamedTuple):
    """Token slots by use.  The first seven sum to the capacity of the pool."""

    live: int
    """Hold K/V of a running sequence; a shared slot counts once."""
    reserved: int
    """Held for a running sequence, which will use them before it ends."""
    internal: int
    """Reserved by policy, or the unused end of a last block: will never be used."""
    rounding: int
    """Held only because placement rounds up (buddy sizes, page multiples)."""
    cached: int
    """Hold K/V that is kept for reuse and can be evicted."""
    external: int
    """Free, but not in a hole large enough for the request at the head of a queue that memory blocks."""
    free: int
    """Free and usable."""
    shared_savings: int
    """Not in the sum: slots that sharing saves."""
    swapped: int
    """Not in the sum: slots on the host."""

    @property
    def total(self) -> int:
        """Sum of the seven shares: the capacity."""
        return sum(self[:7])


def split(capacity: int, usage: Usage, live: int, internal: int, stranded: int) -> Ledger:
    """Make the ledger from what the allocator counts and what the engine knows.

    Args:
        capacity: token slots in the pool.
        usage: the allocator's count.
        live: slots with K/V of running sequences that exists or is written by the current step; a shared slot counts
            once.
        internal: held slots that no sequence will ever use, without placement rounding.
        stranded: free slots in holes too small for the head of the queue; 0 unless memory blocks it.

    """
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
