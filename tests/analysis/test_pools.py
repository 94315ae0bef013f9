"""How large the pool is, in the words of every table."""

from __future__ import annotations

import pytest

from analysis.pools import pool_of, shared_pool


@pytest.mark.parametrize(
    ("slots", "said"),
    [((), "pool"), ((4096, 4096), "pool of 4,096 slots"), ((4096, 2048, 4000), "pool of 2,048 to 4,096 slots")],
)
def test_allocators_whose_blocks_differ_fit_different_numbers_of_slots(slots: tuple[int, ...], said: str) -> None:
    assert pool_of(slots) == said


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((("paged", 100), ("preallocated", 64), ("paged", 100)), "pool of 64 to 100 slots"),
        ((("paged", 100), ("preallocated", 64), ("paged", 200)), ""),
        ((("paged", 100), ("virtual", None)), "pool of 100 slots"),
        ((), ""),
    ],
)
def test_it_is_said_of_several_points_if_each_allocator_has_the_same_at_all(
    sizes: tuple[tuple[str, int | None], ...], said: str
) -> None:
    assert shared_pool(sizes) == said
