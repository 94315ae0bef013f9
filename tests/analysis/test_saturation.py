from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pymser.pymser import MSERm_index, calculate_MSEm

from analysis import saturation
from analysis.saturation import Verdict, worst


@pytest.mark.parametrize("seed", range(6))
def test_warmup_agrees_with_pymser(seed: int) -> None:
    rng = np.random.default_rng(seed)
    series = 10 + rng.normal(size=4000) - 30 * np.exp(-np.arange(4000) / (60.0 * (seed + 1)))
    oracle = int(MSERm_index(calculate_MSEm(series, batch_size=5), batch_size=5))
    assert saturation.warmup(series) == oracle


def test_warmup_of_a_flat_series_is_nothing() -> None:
    assert saturation.warmup(np.ones(1000)) == 0
    assert saturation.warmup(np.ones(7)) == 0


@pytest.mark.parametrize(("warm", "full"), [(37, 3), (7, 24), (113, 64), (5, 2)])
def test_a_batch_that_fills_its_seats_is_steady_from_then_on(warm: int, full: int) -> None:
    rng = np.random.default_rng(warm)
    filling = rng.integers(0, full, 5 * warm)
    assert saturation.warmup(np.concatenate([filling, np.full(2000 - 5 * warm, full)])) == 5 * warm


def queue(arrival_rate: float, service_rate: float, count: int = 4000, seed: int = 0) -> list[npt.NDArray[Any]]:
    """Steps of an M/M/1 queue: (arrivals, departures, start, duration, blocked)."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / arrival_rate, count))
    service = rng.exponential(1 / service_rate, count)
    departures = np.empty(count)
    free = 0.0
    for at in range(count):
        free = max(free, arrivals[at]) + service[at]
        departures[at] = free
    edges = np.unique(np.concatenate([[0.0], arrivals, departures]))
    start, duration = edges[:-1], np.diff(edges)
    inside = np.searchsorted(arrivals, start, side="right") - np.searchsorted(departures, start, side="right")
    return [arrivals, departures, start, duration, inside > 1]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.02, Verdict.STABLE),
        (0.15, Verdict.STABLE),  # somebody waits for 0.15^2 = 2 % of the time,
        (0.3, Verdict.BACKLOGGED),  # and here for 9 %
        (0.8, Verdict.BACKLOGGED),
        (1.25, Verdict.OVERLOADED),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_verdict_on_a_queue_with_known_load(rate: float, expected: Verdict, seed: int) -> None:
    assert saturation.verdict(*queue(rate, 1.0, seed=seed)) is expected


@pytest.mark.parametrize(
    ("few", "others", "expected"),
    [
        (0, 0, Verdict.OVERLOADED),
        (0, 300, Verdict.OVERLOADED),  # most requests are of the part that is behind while it comes
        (0, 4100, Verdict.BACKLOGGED),  # most are of others, who come long after it
        (20, 0, Verdict.STABLE),
    ],
)
def test_a_part_of_a_mix_that_is_behind_counts_if_most_requests_are_its(
    few: int, others: int, expected: Verdict
) -> None:
    rate = 0.02 if few else 1.25
    arrivals, departures, start, duration, waits = queue(rate, 1.0)
    late = departures.max() + np.linspace(1e5, 1e6, others)
    mix = [(arrivals, departures), (late, late + 0.5)][: 2 if others else 1]
    together = [np.concatenate(side) for side in zip(*mix, strict=True)]
    assert saturation.verdict(*together, start, duration, waits, mix) is expected
    alone = Verdict.OVERLOADED if not few and not others else Verdict.STABLE
    assert saturation.verdict(*together, start, duration, waits) is alone, "the tail hides what came before"


def test_a_load_that_piles_up_while_it_runs_does_not_fit_though_nobody_waits() -> None:
    arrivals, start, duration = np.arange(400.0), np.arange(800.0), np.ones(800)
    nobody = np.zeros(800, bool)
    assert saturation.verdict(arrivals, arrivals + 5, start, duration, nobody) is Verdict.STABLE
    assert saturation.verdict(arrivals, 2 * arrivals + 5, start, duration, nobody) is Verdict.OVERLOADED
    assert saturation.verdict(arrivals, np.full(400, np.nan), start, duration, nobody) is Verdict.OVERLOADED


@pytest.mark.parametrize(
    ("growth", "arrivals", "falls_behind"),
    [
        (10, 100, False),  # a tenth, but chance may add 3 x 10
        (31, 100, True),
        (490, 10_000, False),  # more than chance, but less than 5 %
        (510, 10_000, True),
    ],
)
def test_a_queue_outgrows_its_arrivals_by_a_share_and_by_more_than_chance(
    growth: int, arrivals: int, *, falls_behind: bool
) -> None:
    assert saturation.outgrows(growth, arrivals) is falls_behind


def test_requests_that_come_all_at_once_are_a_backlog() -> None:
    start, duration = np.arange(10.0), np.ones(10)
    waits = np.arange(10) < 9
    assert saturation.verdict(np.zeros(10), start + 1, start, duration, waits) is Verdict.BACKLOGGED
    assert saturation.verdict(np.zeros(10), start + 1, start, duration, waits & False) is Verdict.STABLE
    assert saturation.verdict(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, bool)) is Verdict.REFUSED


def test_littles_law_holds_and_sees_a_lost_request() -> None:
    arrivals, departures, start, duration, _ = queue(0.5, 1.0)
    inside = np.searchsorted(arrivals, start, side="right") - np.searchsorted(departures, start, side="right")
    assert saturation.little(arrivals, departures, start, duration, inside).gap < 1e-9
    assert saturation.little(arrivals[200:], departures[200:], start, duration, inside).gap > 0.01


def test_littles_law_counts_arrivals_within_a_step_and_requests_that_never_end() -> None:
    """Steps 0-2 and 2-5; one request from 1 to 5, another from 4 on."""
    arrivals, departures = np.array([1.0, 4.0]), np.array([5.0, np.nan])
    law = saturation.little(arrivals, departures, np.array([0.0, 2.0]), np.array([2.0, 3.0]), np.array([0, 1]))
    assert law == pytest.approx((5 / 5, 5 / 5))


def test_the_verdict_of_replications_is_the_worst_and_refused_only_if_none_was_served() -> None:
    assert worst([Verdict.STABLE, Verdict.OVERLOADED, Verdict.BACKLOGGED]) is Verdict.OVERLOADED
    assert worst([Verdict.REFUSED, Verdict.STABLE, Verdict.REFUSED]) is Verdict.STABLE
    assert worst([Verdict.REFUSED, Verdict.REFUSED]) is Verdict.REFUSED
