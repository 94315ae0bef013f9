"""How fast sequences grow: 256 sequences of 128-token prompts, 480 one-token appends each, 10,000 blocks of 16.

    python -m pytest tests/benchmarks/test_append.py --benchmark-enable

One round is 122,880 appends.  On one pinned core, in thousands of appends a second, the same
work takes vLLM 0.33's KVCacheManager 217 without its prefix cache and 194 with it, and
nano-vllm's BlockManager about 3,100 and 1,800.  Nothing is asserted about time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from allocators.answers import Ask, Grant
from allocators.content import Segments, Tokens
from allocators.paged import PagedAllocator
from allocators.table import Ints

SEQUENCES, PROMPT, APPENDS, BLOCKS, SIZE = 256, 128, 480, 10_000, 16


def filled(kind: str) -> tuple[tuple[PagedAllocator, Ints], dict[str, Any]]:
    """A pool in which every sequence has its prompt: without a cache, or with token ids or content segments."""
    allocator = PagedAllocator(BLOCKS, SIZE, 1024, SEQUENCES, prefix_cache=kind != "uncached")
    rows = []
    for name in range(SEQUENCES):
        tokens = np.random.default_rng(name).integers(0, 32_000, PROMPT + APPENDS).tolist()
        content = Tokens(tokens) if kind == "token ids" else Segments([(name, PROMPT)], tail=1000 + name)
        grant = allocator.admit(Ask(content, PROMPT, PROMPT))
        assert isinstance(grant, Grant)
        rows.append(grant.row)
    return (allocator, np.array(rows)), {}


def report(benchmark: Any) -> None:
    """Add appends a second to what pytest-benchmark shows and saves."""
    if benchmark.stats:
        benchmark.extra_info["million appends a second"] = SEQUENCES * APPENDS / benchmark.stats.stats.min / 1e6


@pytest.mark.parametrize("kind", ["uncached", "segments", "token ids"])
def test_a_batch_at_once(benchmark: Any, kind: str) -> None:
    def grow(allocator: PagedAllocator, rows: Ints) -> None:
        lengths = np.full(SEQUENCES, PROMPT)
        for _ in range(APPENDS):
            lengths = lengths + 1
            allocator.grow(rows, lengths)

    benchmark.pedantic(grow, setup=lambda: filled(kind), rounds=5)
    report(benchmark)


@pytest.mark.parametrize("kind", ["uncached", "segments", "token ids"])
def test_one_sequence_at_a_time(benchmark: Any, kind: str) -> None:
    def grow(allocator: PagedAllocator, rows: Ints) -> None:
        single = [rows[place : place + 1] for place in range(SEQUENCES)]
        for length in range(PROMPT + 1, PROMPT + APPENDS + 1):
            lengths = np.array([length])
            for row in single:
                allocator.grow(row, lengths)

    benchmark.pedantic(grow, setup=lambda: filled(kind), rounds=3)
    report(benchmark)


@pytest.mark.parametrize("kind", ["uncached", "segments", "token ids"])
def test_all_steps_in_one_leap(benchmark: Any, kind: str) -> None:
    def leap(allocator: PagedAllocator, rows: Ints) -> None:
        assert allocator.advance(rows, np.full(SEQUENCES, PROMPT), APPENDS).steps == APPENDS

    benchmark.pedantic(leap, setup=lambda: filled(kind), rounds=5)
    report(benchmark)
