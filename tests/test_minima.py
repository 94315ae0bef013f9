"""Of several minima the deepest counts, unless it is so only by noise and takes more parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.optimize import OptimizeResult, least_squares

from sim.costs.minima import deepest, standard_errors

if TYPE_CHECKING:
    from sim.costs.minima import Floats

NOTHING = -20.0


def test_a_search_that_begins_at_a_local_minimum_finds_the_deepest() -> None:
    def errors(x: Floats) -> Floats:
        return np.array([10 * (4 * x[0] ** 2 - 1), x[0] - 0.49, x[1] - 3])

    def descend(x: Floats) -> OptimizeResult:
        return least_squares(errors, x)

    assert descend(np.array([-0.5, 0.0])).x[0] < 0
    assert deepest(descend, np.array([-0.5, 0.0]), NOTHING).x == pytest.approx([0.5, 3], abs=1e-2)


@pytest.mark.parametrize(("gain", "wanted"), [(1e-3, NOTHING - 1), (0.1, 0.0)])
def test_a_parameter_has_to_explain_more_than_noise(gain: float, wanted: float) -> None:
    calls = 0

    def descend(_: Floats) -> OptimizeResult:
        nonlocal calls
        calls += 1
        plain = calls == 1
        slopes = np.ones((100, 2)) * [1, 0] + np.eye(100, 2, -1) * [0, 1]
        return OptimizeResult(
            x=np.array([0.0, NOTHING - 1 if plain else 0.0]),
            cost=1.0 if plain else 1 - gain,
            fun=np.zeros(100),
            jac=slopes,
        )

    assert deepest(descend, np.zeros(2), NOTHING).x[1] == wanted


def test_what_fits_exactly_has_a_minimum() -> None:
    def descend(x: Floats) -> OptimizeResult:
        return OptimizeResult(x=x, cost=0.0, fun=np.zeros(3), jac=np.eye(3, 2))

    assert deepest(descend, np.array([1.0, 2.0]), NOTHING).x.tolist() == [1, 2]


def test_standard_errors_are_those_of_a_line() -> None:
    x = np.arange(10.0)
    slopes = np.stack([np.ones(10), x, np.zeros(10)], axis=1)
    variance = 14 / 7
    spread = float(((x - x.mean()) ** 2).sum())
    offset = math.sqrt(variance * (1 / 10 + x.mean() ** 2 / spread))
    assert standard_errors(slopes, 14.0) == pytest.approx([offset, math.sqrt(variance / spread), math.inf])
