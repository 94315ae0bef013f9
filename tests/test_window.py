"""The arithmetic of sliding windows, step by step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from allocators.window import Window

SMALL = st.integers(1, 40)


@given(tokens=SMALL, block_size=st.integers(1, 9), first=SMALL, more=st.integers(0, 120), samples=st.integers(2, 4))
def test_the_most_that_samples_hold_is_found_without_a_look_at_every_length(
    tokens: int, block_size: int, first: int, more: int, samples: int
) -> None:
    window, full, most = Window(tokens, block_size), first // block_size, 0
    for length in range(first, first + more):
        behind = window.behind(length - 1) if length > first else 0  # of those that are still to grow
        own = -(-(length + 1) // block_size) - max(full, behind)
        most = max(most, max(0, full - behind) + samples * own)
    assert window.most(first, first + more, samples) == most


@given(tokens=SMALL, block_size=st.integers(1, 9), blocks=st.integers(40, 80))
def test_a_prefix_hit_needs_exactly_the_blocks_that_its_next_token_attends_to(
    tokens: int, block_size: int, blocks: int
) -> None:
    next_token = blocks * block_size  # its position: the hit ends with a block
    attended = range(next_token - tokens + 1, next_token)
    assert Window(tokens, block_size).reach == len({position // block_size for position in attended})
