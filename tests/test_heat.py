"""Heat: rises and falls with time, between nothing and the most there can be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sim.costs.heat import Heat


@given(
    most=st.integers(0, 50),
    steps=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=20),
    later=st.integers(0, 60),
)
def test_it_is_what_counting_nanosecond_by_nanosecond_gives(
    most: int, steps: list[tuple[int, int]], later: int
) -> None:
    heat, now, level = Heat(most), 0, 0
    for pause, duration in steps:
        level = max(0, level - pause)
        now += pause
        assert heat.at(now) == level
        heat.add(now, duration)
        for _ in range(duration):
            level = min(most, level + 1)
        now += duration
    assert heat.at(now + later) == max(0, level - later)
