"""Arrival processes have the rate and the burstiness that they are asked for."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from workloads.arrivals import Arrivals, Batch, Closed, Process
from workloads.streams import stream

KINDS = [
    {"kind": "poisson", "rate": 8.0},
    {"kind": "gamma", "rate": 8.0, "cv": 3.0},
    {"kind": "gamma", "rate": 8.0, "cv": 0.2},
    {"kind": "fixed", "rate": 8.0},
    {"kind": "on-off", "on_rate": 30.0, "off_rate": 2.0, "on_s": 5.0, "off_s": 15.0},
    {"kind": "on-off", "on_rate": 30.0, "on_s": 0.5, "off_s": 1.5},
    {"kind": "diurnal", "rate": 8.0, "swing": 1.0, "period_s": 50.0, "phase": 0.3},
    {"kind": "profile", "bin_s": 10.0, "rates": [1.0, 0.0, 30.0, 1.0]},
]


def process(**block: Any) -> Process:
    arrivals = TypeAdapter(Arrivals).validate_python(block)
    assert isinstance(arrivals, Process)
    return arrivals


@pytest.mark.parametrize("block", KINDS)
def test_rate_is_as_asked(block: dict[str, Any]) -> None:
    arrivals = process(**block)
    times = arrivals.draw(stream(0, "arrivals"), 60_000)
    assert len(times) == 60_000
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert 60_000 / times[-1] == pytest.approx(arrivals.mean_rate(), rel=0.05)


@pytest.mark.parametrize("block", KINDS)
@settings(max_examples=40)
@given(count=st.integers(1, 400), more=st.integers(0, 400), seed=st.integers(0, 2**40))
def test_the_first_arrivals_do_not_depend_on_how_many_are_drawn(
    block: dict[str, Any], count: int, more: int, seed: int
) -> None:
    few = process(**block).draw(stream(seed, "arrivals"), count)
    many = process(**block).draw(stream(seed, "arrivals"), count + more)
    assert (few == many[:count]).all()


@pytest.mark.parametrize("block", [KINDS[0], KINDS[1], KINDS[3]])
def test_another_rate_is_the_same_pattern_faster(block: dict[str, Any]) -> None:
    slow = process(**block).draw(stream(5, "arrivals"), 100)
    fast = process(**{**block, "rate": 16.0}).draw(stream(5, "arrivals"), 100)
    assert fast == pytest.approx(slow / 2)


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.5])
def test_gamma_gaps_have_the_cv(cv: float) -> None:
    gaps = np.diff(process(kind="gamma", rate=3.0, cv=cv).draw(stream(1, "arrivals"), 200_000))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_fixed_gaps_start_at_zero() -> None:
    assert process(kind="fixed", rate=4.0).draw(stream(0, "x"), 4).tolist() == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(("swing", "phase"), [(1.0, 0.0), (0.5, 0.25), (0.8, 0.6)])
def test_a_day_peaks_and_sleeps_where_the_sine_says(swing: float, phase: float) -> None:
    block = {"kind": "diurnal", "rate": 100.0, "swing": swing, "phase": phase, "period_s": 100.0}
    times = process(**block).draw(stream(2, "arrivals"), 100_000)
    counts, _ = np.histogram(times % 100, bins=10, range=(0, 100))
    middle = np.arange(5, 100, 10)
    expected = 1 + swing * np.sin(2 * np.pi * (middle / 100 + phase))
    assert counts / counts.sum() * 10 == pytest.approx(expected, abs=0.06)


def test_a_profile_is_quiet_in_its_empty_bins() -> None:
    times = process(kind="profile", bin_s=10.0, rates=[2.0, 0.0, 6.0]).draw(stream(3, "arrivals"), 9000)
    counts, _ = np.histogram(times % 30, bins=3, range=(0, 30))
    assert counts[1] == 0
    assert counts[2] / counts[0] == pytest.approx(3, rel=0.1)


def test_a_faster_profile_is_the_same_in_less_time() -> None:
    block = {"kind": "profile", "bin_s": 10.0, "rates": [2.0, 0.0, 6.0]}
    slow, fast = (process(**block, rate_scale=scale) for scale in (1.0, 4.0))
    times = slow.draw(stream(3, "arrivals"), 500)
    np.testing.assert_allclose(fast.draw(stream(3, "arrivals"), 500), times / 4)
    assert fast.mean_rate() == 4 * slow.mean_rate()


def test_bursts_are_burstier_than_poisson() -> None:
    times = process(kind="on-off", on_rate=50.0, on_s=2.0, off_s=8.0).draw(stream(4, "arrivals"), 20_000)
    gaps = np.diff(times)
    assert gaps.std() / gaps.mean() > 2


def test_batch_and_closed_are_no_open_loops() -> None:
    for block in ({"kind": "batch"}, {"kind": "closed", "users": 3}):
        assert isinstance(TypeAdapter(Arrivals).validate_python(block), Batch | Closed)


def test_streams_are_told_apart_by_name_and_repeat_and_nothing_else() -> None:
    def draw(*key: Any) -> float:
        return float(stream(*key).random())

    assert draw(0, "arrivals") == draw(0, "arrivals", 0)
    assert len({draw(0, "arrivals"), draw(1, "arrivals"), draw(0, "lengths"), draw(0, "arrivals", 1)}) == 4
