"""Decodes of which one has a context much longer than the others: between what was measured, and beyond it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.costs.calibration import load_calibration
from sim.costs.captured import CapturedStep
from sim.costs.curve import Curve
from tests.captures import MS, captured
from tests.test_captured_files import calibrated

LANES, MOST = 40, 4096
EVEN = [(1, 5.0), (256, 5.4), (1024, 6.6)]
RAGGED = [(127, 5.3, 400), (511, 6.0, 1500), (1023, 7.0, 3000), (2047, 9.0, 4096)]
LONE = [(300, 6.6), (1100, 7.6)]


def steps(lanes: int = LANES) -> list[CapturedStep]:
    """Decodes of one shape: (mean context, ms), and the longest of those that differ."""
    even = [CapturedStep(lanes, 0, 0, lanes * mean, round(ms * MS, 7), mean) for mean, ms in EVEN]
    ragged = [CapturedStep(lanes, 0, 0, lanes * mean, round(ms * MS, 7), longest) for mean, ms, longest in RAGGED]
    lone = [CapturedStep(lanes, 0, 0, lanes * mean, round(ms * MS, 7), MOST, mean - 90) for mean, ms in LONE]
    return [*even, *ragged, *lone]


def curve(lanes: int = LANES, *, lone: bool = True) -> Curve:
    found = captured(lanes, 32, [step for step in steps(lanes) if lone or not step.others]).decoding(lanes)
    assert found is not None
    return found


def test_the_longest_says_where_between_the_measured_ones_a_step_lies() -> None:
    context = LANES * 700
    even, served = 5.4 + 1.2 * (700 - 256) / 768, 6.0 + 189 / 512
    longest, alone = 1500 + 1500 * 189 / 512, 6.6 + 0.5
    expected = {
        700: even,
        round((700 + longest) / 2): (even + served) / 2,
        round(longest): served,
        round((longest + MOST) / 2): (served + alone) / 2,
        MOST: alone,
        MOST + 1000: alone + (alone - even) * 1000 / (MOST - 700),
    }
    found = {most: curve().at(context, most) / MS for most in expected}
    assert found == pytest.approx(expected, rel=1e-3)


def test_where_lengths_as_in_service_reach_as_far_a_single_long_one_says_nothing_more() -> None:
    context = LANES * 2047
    assert curve().spread is not None
    for longest in (3000, 4096, 5000, 8000):
        assert curve().at(context, longest) == curve(lone=False).at(context, longest)


def test_a_step_takes_no_less_the_longer_its_longest_is() -> None:
    for mean in (300, 511, 1023, 1500, 1900, 2000, 2040):
        each = [curve().at(LANES * mean, longest) for longest in range(mean, 9000, 100)]
        assert each == sorted(each)
        assert each[-1] < 20 * MS


def test_many_contexts_give_the_same_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    contexts = np.sort(rng.integers(LANES, LANES * 3000, 500)).astype(np.float64)
    longest = np.maximum(1, (contexts / LANES * rng.uniform(1, 12, 500))).astype(np.int64)
    for some in (slice(None), slice(9), slice(200, 210), slice(499, 500)):
        each = curve().at_each(contexts[some], longest[some]).tolist()
        pairs = zip(contexts[some].tolist(), longest[some].tolist(), strict=True)
        assert each == [curve().at(context, most) for context, most in pairs]


def test_files_keep_what_the_others_read(tmp_path: Path) -> None:
    path = calibrated(tmp_path / "one.toml", captured=tuple(steps()))
    assert sorted(load_calibration(path).captured) == sorted(steps())
    assert f"[{LANES}, 0, 0, {LANES * 300}, 0.0066, {MOST}, 210]" in path.read_text()
