"""Allocators that reserve: how much, what their audit finds, and what an oracle must be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from allocators import registry
from allocators.answers import Ask, Grant, Reason
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
    ("reserve", "prompt", "output", "slots"),
    [
        ("max", 100, 25, 2048),
        ("pow2", 100, 25, 132),  # the paper's example: an output of 25 tokens reserves 32
        ("pow2", 100, 32, 132),
        ("pow2", 100, 33, 164),
        ("pow2", 100, 1, 101),
        ("pow2", 1900, 140, 2048),  # but not beyond the context
        ("oracle", 100, 25, 124),  # the last token's K/V is never written
        ("oracle", 100, 1, 100),
    ],
)
def test_a_policy_reserves_what_the_paper_says(reserve: str, prompt: int, output: int, slots: int) -> None:
    allocator = registry.create("contiguous", num_blocks=4096, max_model_len=2048, reserve=reserve)
    grant = allocator.admit(ask(prompt, output=output))
    assert isinstance(grant, Grant)
    assert grant.slots == slots


def test_a_reservation_has_room_for_all_that_is_known() -> None:
    """A request that was preempted, and so has more tokens than its prompt, and one that comes in chunks."""
    allocator = registry.create("contiguous", num_blocks=64, max_model_len=64, reserve="oracle")
    known = Ask(ask(8).content, prompt=8, tokens=4, whole=12, output=2)
    grant = allocator.admit(known)
    assert isinstance(grant, Grant)
    assert grant.slots == 12


@pytest.mark.parametrize(
    ("blocks", "samples", "spare", "shortfall"),
    [
        (8, 2, 0, 0),
        (7, 2, 0, 4),  # room for 8 in all, but the second hole of four is missing
        (8, 2, 1, 1),
        (12, 2, 4, 0),
        (12, 2, 5, 1),
    ],
)
def test_what_never_fits_is_said_beforehand_to_the_block(blocks: int, samples: int, spare: int, shortfall: int) -> None:
    allocator = registry.create("preallocated", num_blocks=blocks, max_model_len=4)
    refusal = allocator.never(ask(3)._replace(samples=samples, spare=spare), 4)
    assert (refusal.shortfall if refusal else 0) == shortfall
    assert refusal is None or refusal.reason is Reason.NEVER


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
