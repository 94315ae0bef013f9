"""The power limit, found in series of steps: planted ones, and those of an H200, whose coefficients are shipped."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from sim.costs.calibration import find_calibration, load_calibration
from sim.costs.coefficients import Coefficients
from sim.costs.heat import PowerLimit
from sim.costs.power import NAMES, ORDERS, Series, fit_power

MEASURED = Path(__file__).parents[1] / "analysis" / "results" / "power_nvidia-h200.json"
DECODE_S = 0.005


def planted(true: Coefficients, noise: float = 0.002, *, waits_s: float = 0.0) -> list[Series]:
    """Run series on a device with such a power limit; steps behind those that are launched wait for the host."""
    rng, limit = np.random.default_rng(5), PowerLimit(true)
    found = []
    for (tokens, prefill_s), order in product(((800, 0.02), (1600, 0.035)), ORDERS):
        heat, now, seconds, waits = limit.heat(), 0, [], False
        for step in order:
            level = heat.at(now)
            if step == "p":
                took = prefill_s + limit.delay(level, prefill_s, max)
            else:
                took = DECODE_S * (1 + limit.slowdown(level)) + waits * waits_s
            took *= 1 + rng.normal(0, noise)
            if step == "p":
                heat.add(now, round(1e9 * took))
            waits = step == "p" and tokens > 1000
            now += round(1e9 * took)
            seconds.append(float(took))
        found.append(Series(tokens, order, seconds, launched=tokens > 1000))
    return found


@pytest.mark.parametrize("throttle", [0.08, 0.16])
def test_planted_coefficients_are_found(throttle: float) -> None:
    true = dict(zip(NAMES, (throttle, 0.03, 0.05, 0.04), strict=True))
    found = fit_power(planted(Coefficients(**true), waits_s=0.001))
    assert found.keys() == true.keys()
    for name, value in true.items():
        assert found[name] == pytest.approx(value, rel=0.15), name


def test_where_nothing_is_lost_nothing_is_found() -> None:
    found = fit_power(planted(Coefficients()))
    assert (found["power_throttle"], found["power_reserve_s"], found["power_slowdown"]) == (0, 0, 0)


@pytest.mark.parametrize(("model", "captured"), [("llama-3.1-8b", 1024), ("llama-3.2-1b", 2048)])
def test_shipped_coefficients_are_those_of_the_measured_series(model: str, captured: int) -> None:
    rows = [row for row in json.loads(MEASURED.read_text())["models"][model] if row["prefill_tokens"] in {800, 1600}]
    many = [
        Series(
            row["prefill_tokens"],
            row["order"],
            [1e-3 * each for each in row["ms"]],
            launched=row["prefill_tokens"] > captured,
        )
        for row in rows
    ]
    shipped = load_calibration(find_calibration(f"h200-{model}"))
    for name, value in fit_power(many).items():
        assert getattr(shipped.coefficients, name) == pytest.approx(value, rel=0.02), name
    assert not {*NAMES} & {*shipped.fitted}
