"""Small paged pools, and their verbs in short."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

from allocators.answers import Ask, Grant
from allocators.content import Content, Segments
from allocators.paged import PagedAllocator
from allocators.table import Ints

_names = count(1)


def pool(blocks: int = 8, size: int = 4, longest: int = 64, **options: Any) -> PagedAllocator:
    return PagedAllocator(blocks, size, longest, 4, **options)


def unique() -> Content:
    return Segments([], tail=next(_names))


def admit(allocator: PagedAllocator, tokens: int, content: Content | None = None, prompt: int = 0) -> int:
    content = content or unique()
    hit = allocator.lookup(content, prompt or tokens)
    grant = allocator.admit(Ask(content, prompt or tokens, tokens, hit))
    assert isinstance(grant, Grant)
    return grant.row


def grow(allocator: PagedAllocator, *to: tuple[int, int]) -> Any:
    """Grow rows, given as (row, length), in one call."""
    rows, lengths = (ints(column) for column in zip(*to, strict=True))
    return allocator.grow(rows, lengths)


def ints(values: Any) -> Ints:
    return np.array(values, np.int64)


def blocks(allocator: PagedAllocator, row: int) -> list[int]:
    result: list[int] = allocator.table.row(row).tolist()
    return result


def state(allocator: PagedAllocator) -> tuple[Any, ...]:
    """All there is to know about an allocator."""
    sides = [
        (
            table.rows(),
            table.blocks.tolist(),
            table.length.tolist(),
            table.slots.tolist(),
            pool.queue.order().tolist(),
            pool.references.tolist(),
            pool.cache.key.tolist(),
        )
        for table, pool in ((allocator.table, allocator.pool), (allocator.host.table, allocator.host.pool))
    ]
    return (*sides, allocator.usage(), allocator.tails, allocator.host.of_device.tolist())
