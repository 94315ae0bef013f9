"""Blocks are read as pages, which are views of the same slots, whatever size either has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from allocators.registry import create
from sim.decode.paging import Paging, pages_of, paging_of

SLOTS, HEADS, SIZE = 480, 2, 4


@pytest.mark.parametrize(
    ("kind", "options", "paging"),
    [
        ("paged", {"block_size": 16}, Paging(16, 16, 16)),
        ("paged", {"block_size": 1}, Paging(1, 1, 1)),
        ("paged", {"block_size": 24}, Paging(24, 24, 24)),
        ("paged", {"block_size": 64}, Paging(64, 16, 16)),
        ("radix", {}, Paging(1, 1, 1)),
        ("contiguous", {}, Paging(1, 16, 1)),
        ("preallocated", {"block_size": 8}, Paging(8, 16, 1)),
        ("preallocated", {"block_size": 16}, Paging(16, 16, 16)),
    ],
)
def test_pages_are_of_16_slots_where_blocks_allow_it(kind: str, options: dict[str, int], paging: Paging) -> None:
    assert paging_of(create(kind, num_blocks=512, max_model_len=128, **options)) == paging


@pytest.mark.parametrize(
    "paging", [Paging(16, 16, 16), Paging(1, 1, 1), Paging(48, 16, 16), Paging(1, 16, 1), Paging(8, 16, 1)]
)
def test_pages_hold_what_the_blocks_hold(paging: Paging) -> None:
    """Every slot holds its own number; so what is read of a sequence must be the numbers of its slots, in order."""
    blocks, size = SLOTS // paging.block_size, paging.block_size
    memory = torch.arange((SLOTS + 16) * HEADS * SIZE, dtype=torch.float64)
    cache = memory[: SLOTS * HEADS * SIZE].view(blocks, size, HEADS, SIZE)
    ids = np.arange(1, blocks, dtype=np.int32)
    if paging.size == size or size % paging.size == 0:
        ids = np.random.default_rng(0).permutation(ids)
    table = np.resize(ids, (3, (blocks - 1) // 3)) if len(ids) >= 6 else ids[None].repeat(3, 0)
    longest = table.shape[1] * size
    contexts = np.array([1, longest // 2, longest])
    rows = np.array([2, 0, 1])
    offsets, names, last = pages_of(table, rows, contexts, paging, 4)
    assert (offsets[-2:].tolist(), names[-1], last[-1]) == ([len(names) - 1, len(names)], 0, 1)
    view = paging.view(cache)
    assert view.data_ptr() == cache.data_ptr()
    places = np.arange(longest)
    for sequence, (row, context) in enumerate(zip(rows, contexts, strict=True)):
        mine = names[offsets[sequence] : offsets[sequence + 1]]
        read = view[torch.from_numpy(mine.astype(np.int64))].flatten(0, 1)[:context]
        assert (len(mine) - 1) * paging.size + last[sequence] == context
        slots = table[row, places // size].astype(np.int64) * size + places % size
        assert torch.equal(read, cache.flatten(0, 1)[torch.from_numpy(slots[:context])])
