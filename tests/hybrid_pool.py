"""Pools of hybrid models, and the groups of layers of shipped ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from allocators import registry
from allocators.answers import Ask, Grant
from allocators.content import Segments
from allocators.hybrid import HybridAllocator
from allocators.table import Ints

GEOMETRIES = {
    "gemma-2-9b": "sliding 21x8192/4096, full 21x8192",
    "gemma-3-12b": "sliding 40x8192/1024, full 8x8192",
    "gpt-oss-20b": "sliding 12x2048/128, full 12x2048",
    "jamba-v0.1": "state 28x311296, full 4x4096",
    "qwen3-next-80b": "state 36x1097728, full 12x2048",
}


def made(groups: str, paging: str, pages: int = 64, **options: Any) -> HybridAllocator:
    """Make a pool of some pages for sequences of up to 8192 tokens."""
    measure = registry.measure("hybrid", {"groups": groups, "paging": paging})
    options = {"max_model_len": 8192, "max_rows": 4, **options}
    allocator = registry.create("hybrid", num_blocks=pages * measure.multiple, groups=groups, paging=paging, **options)
    assert isinstance(allocator, HybridAllocator)
    return allocator


def grown(allocator: HybridAllocator, tokens: int) -> int:
    """Admit a sequence one token shorter and let it grow, so that windows have been left; returns its row."""
    answer = allocator.admit(Ask(Segments([], 1), tokens - 1, tokens - 1))
    assert isinstance(answer, Grant)
    assert allocator.grow(ints(answer.row), ints(tokens)).refusal is None
    return answer.row


def ints(*values: int) -> Ints:
    return np.array(values, np.int64)
