"""Heat: the average of power, in closed form the one that small steps of time give, and which steps add to it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.costs.coefficients import Coefficients
from sim.costs.heat import RESTED, Heat, PowerLimit
from sim.costs.load import Load
from tests.costs import model

MS = 1_000_000
"""Nanoseconds."""


@given(
    constant=st.integers(5, 80),
    steps=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), min_size=1, max_size=8),
    later=st.integers(0, 200),
)
def test_it_follows_the_average_of_what_is_drawn(constant: int, steps: list[tuple[int, int]], later: int) -> None:
    heat, now, average = Heat(constant * MS), 0, 0.0
    fine = math.exp(-0.1 / constant)  # a tenth of a millisecond

    def agrees() -> bool:
        """Compare shares: near 1 a level says no more."""
        level = heat.at(now)
        if not level:
            return average < RESTED + 1e-6
        return -math.expm1(-level / (constant * MS)) == pytest.approx(average, abs=1e-6)

    for pause, duration in steps:
        for _ in range(10 * pause):
            average *= fine
        now += pause * MS
        assert agrees()
        average *= heat.at(now) > 0  # at rest it is
        heat.add(now, duration * MS)
        for _ in range(10 * duration):
            average = 1 - (1 - average) * fine
        now += duration * MS
        assert agrees()
    for _ in range(10 * later):
        average *= fine
    now += later * MS
    assert agrees()


def test_without_a_pause_it_counts_time() -> None:
    heat = Heat(40 * MS)
    for step in range(5):
        assert heat.at(step * 7 * MS) == step * 7 * MS
        heat.add(step * 7 * MS, 7 * MS)


@given(
    level=st.floats(0, 0.3),
    seconds=st.floats(0.001, 0.2),
    reserve=st.floats(0, 0.1),
    constant=st.floats(0.005, 0.1),
)
def test_a_delay_is_the_sum_of_what_each_moment_loses(
    level: float, seconds: float, reserve: float, constant: float
) -> None:
    limit = PowerLimit(Coefficients(power_throttle=0.2, power_reserve_s=reserve, power_constant_s=constant))
    each = seconds / 2000
    moments = (max(level + (nth + 0.5) * each - reserve, 0.0) for nth in range(2000))
    lost = sum(0.2 * (1 - math.exp(-beyond / constant)) * each for beyond in moments)
    assert limit.delay(level * 1e9, seconds, max) == pytest.approx(lost, abs=1e-6)


def test_a_clock_that_follows_at_once_falls_at_once() -> None:
    limit = PowerLimit(Coefficients(power_throttle=0.2, power_reserve_s=0.03, power_constant_s=0.0))
    assert limit.delay(0, 0.05, max) == pytest.approx(0.2 * 0.02)


@pytest.mark.parametrize(("tokens", "decodes", "heats"), [(400, 0, True), (400, 600, True), (100, 0, False)])
def test_a_step_heats_if_its_prompts_do(tokens: int, decodes: int, heats: bool) -> None:
    cost = model("llama-3.1-8b", coefficients=Coefficients(power_throttle=0.2))
    load = Load(prefill_tokens=tokens, prefill_seqs=1, decode_seqs=decodes)
    assert bool(cost.heats(load)) is heats
    beside = load._replace(decode_seqs=600)
    assert cost.computes(beside)
    assert bool(cost.heats(beside)) is heats, "what decodes draw is in their own times"
