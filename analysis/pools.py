"""How large the pool is, in the words of every table.

Allocators whose blocks differ fit different numbers of them into the same memory, so the size may be a range.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


def pool_of(slots: Collection[int]) -> str:
    """Say how many token slots the pool has, as each allocator counts them: `pool of 4,096 slots`."""
    sizes = [f"{size:,}" for size in dict.fromkeys((min(slots), max(slots)))] if slots else []
    return f"pool of {' to '.join(sizes)} slots" if sizes else "pool"


def shared_pool(sizes: Iterable[tuple[str, int | None]]) -> str:
    """Say the same of runs that are shown together; nothing if some allocator has a larger pool in one than in another.

    Args:
        sizes: the allocator of each run and the slots of its pool, None if that is not known.

    """
    known: dict[str, int] = {}
    for label, slots in sizes:
        if slots is not None and known.setdefault(label, slots) != slots:
            return ""
    return pool_of(known.values()) if known else ""
