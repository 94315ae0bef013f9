"""Allocators that reserve: what their audit finds, and what an oracle must be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from allocators import registry
from allocators.answers import Grant
from allocators.base import Allocator
from allocators.errors import AllocatorError, CorruptionError
from tests.conformance.cases import ask


def busy(kind: str) -> Allocator:
    """A pool with two open rows and a closed one."""
    allocator = registry.create(kind, num_blocks=64, max_model_len=16, max_rows=4, block_size=1)
    grants = [allocator.admit(ask(tokens)) for tokens in (5, 6, 7)]
    assert all(isinstance(grant, Grant) for grant in grants)
    allocator.release(2)
    allocator.check()
    return allocator


@pytest.mark.parametrize(
    ("kind", "damage", "words"),
    [
        ("preallocated", lambda a: a.table.open(), r"runs of rows \[0, 1\], open rows \[0, 1, 2\]"),
        ("preallocated", lambda a: a.table.blocks[0].fill(3), r"row 0 lists blocks .*, its run is \[1, 16\]"),
        ("preallocated", lambda a: a.table.length.fill(17), "row 0 has 17 tokens in 16 slots"),
        ("no-cache", lambda a: a.table.blocks[0].fill(3), "a row lists blocks, but nothing is ever held"),
        ("no-cache", lambda a: a.table.open(), "a row's length is not between 1 and its slots"),
        ("no-cache", lambda a: a.table.length.put(2, 5), "a closed row has tokens"),
    ],
)
def test_check_finds_damage(kind: str, damage: Callable[[Allocator], Any], words: str) -> None:
    allocator = busy(kind)
    damage(allocator)
    with pytest.raises(CorruptionError, match=words):
        allocator.check()


@pytest.mark.parametrize("reserve", ["pow2", "oracle"])
def test_an_oracle_that_is_told_nothing_says_so(reserve: str) -> None:
    allocator = registry.create("contiguous", num_blocks=64, max_model_len=16, reserve=reserve)
    with pytest.raises(AllocatorError, match="contiguous: an oracle must be told the output length, got None"):
        allocator.admit(ask(5, oracle=False))
    assert len(allocator.table) == 0
