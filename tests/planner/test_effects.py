"""Effects: what a change of settings does, and what cannot be told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from analysis.planner.advising import _span
from analysis.planner.effects import effect


def record(good: list[float], slow: list[float], count: float = 10.0) -> dict[str, Any]:
    """A run whose batches have so many good requests, and such latencies."""
    latency = "normalized_latency_s"
    sums = [one * count for one in slow]
    batches = {"requests": [count] * len(good), "good": good, latency: sums, f"n.{latency}": [count] * len(slow)}
    return {"batches": batches}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((-1.234, -1.5, -0.9), "-1.23 (-1.50 to -0.90)"),
        ((0.0, 0.0, 0.0), "0 (0 to 0)"),
        ((-1.2e-5, -1.3e-5, -1.1e-5), "-0.00001 (-0.00001 to -0.00001)"),  # clearly better, so not "0"
    ],
)
def test_a_difference_that_is_none_alone_is_written_as_none(values: tuple[float, float, float], said: str) -> None:
    assert _span(dict(zip(("mean", "low", "high"), values, strict=True)), 1) == said


def test_an_effect_over_replications_is_students() -> None:
    before = [record([good] * 99, [slow] * 99) for good, slow in ((5.0, 0.1), (6.0, 0.2), (4.0, 0.3))]
    after = [record([good] * 99, [slow] * 99) for good, slow in ((7.0, 0.1), (8.1, 0.2), (5.9, 0.3))]
    found = effect(before, after)
    apart = np.array([0.2, 0.21, 0.19])
    assert found.good.value == pytest.approx(apart.mean())
    assert found.good.high - found.good.value == pytest.approx(4.30265273 * np.std(apart, ddof=1) / 3**0.5)
    assert (found.tells, found.basis) == ("better", "replications")


def test_the_same_few_requests_more_in_every_replication_may_be_chance() -> None:
    before, after = ([record([good], [0.1]), record([good + 1], [0.1])] for good in (5.0, 6.0))
    found = effect(before, after)
    assert found.good.value == pytest.approx(0.1)
    assert found.good.low < 0 < found.good.high
    assert found.tells == "same"
    many = ([record([good] * 99, [0.1] * 99), record([good + 1] * 99, [0.1] * 99)] for good in (5.0, 6.0))
    assert effect(*many).tells == "better"


def test_an_effect_on_a_trace_is_over_batches_of_the_same_requests() -> None:
    rng = np.random.default_rng(1)
    slow = rng.uniform(0.1, 0.3, 50)
    before = [record([5.0] * 50, slow.tolist())]
    found = effect(before, [record([5.0] * 50, (slow - 0.01).tolist())])
    assert found.basis == "requests"
    assert found.latency.value == pytest.approx(-0.01)
    assert (found.latency.low, found.latency.high) == pytest.approx((-0.01, -0.01))  # the same for all: no doubt
    assert found.tells == "better"
    noisy = effect(before, [record([5.0] * 50, (slow + rng.normal(0, 0.05, 50)).tolist())])
    assert noisy.tells == "same"


def test_requests_that_did_not_all_come_to_both_are_drawn_for_each_by_itself() -> None:
    """In a closed loop that a horizon ends, a faster engine serves more."""
    rng = np.random.default_rng(3)
    slow, fast = (rng.normal(mean, 0.02, many).tolist() for mean, many in ((0.2, 23), (0.1, 41)))
    before, after = ([record([5.0] * len(some), some)] for some in (slow, fast))
    found = effect(before, after)
    assert found.basis == "requests"
    assert found.tells == "better"
    spread = 1.96 * 0.02 * (1 / 23 + 1 / 41) ** 0.5
    assert found.latency.high - found.latency.low == pytest.approx(2 * spread, rel=0.5)


def test_nothing_different_is_not_the_same_as_nothing_known() -> None:
    one = [record([5.0] * 50, [0.1] * 50)]
    assert effect(one, one).tells == "none"
    assert effect(one[:1] * 3, one[:1] * 3).tells == "none"


def test_the_slo_counts_before_latency() -> None:
    before, after = [record([5.0] * 50, [0.1] * 50)], [record([6.0] * 50, [0.2] * 50)]
    assert effect(before, after).tells == "better"
    assert effect(after, before).tells == "worse"


@pytest.mark.parametrize(
    ("good", "slow", "tells"),
    [
        (5.0, 0.0995, "slight"),
        (5.04, 0.1, "slight"),
        (5.0, 0.0985, "better"),
        (5.0, 0.1015, "worse"),
        (5.04, 0.12, "worse"),  # what the SLO gains is too little to count before it
        (5.2, 0.12, "better"),
    ],
)
def test_what_is_clear_but_not_worth_a_change_is_called_slight(good: float, slow: float, tells: str) -> None:
    before, after = [record([5.0] * 50, [0.1] * 50)], [record([good] * 50, [slow] * 50)]
    assert effect(before, after).tells == tells
    assert effect(before * 3, after * 3).tells == tells
