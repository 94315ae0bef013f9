"""The power limit, found in series of steps: planted ones, and those of an H200, whose coefficients are shipped."""

from __future__ import annotations

import numpy as np
import pytest

from sim.costs.calibration import find_calibration, load_calibration
from sim.costs.coefficients import Coefficients
from sim.costs.heat import PowerLimit
from sim.costs.power import COOL_S, FEWEST, HOT_S, NAMES, REST, Series, fit_power, orders

DECODE_S = 0.005


def planted(true: Coefficients, noise: float = 0.002, *, waits_s: float = 0.0, faster: float = 1.0) -> list[Series]:
    """Run series on a device with such a power limit; steps behind those that are launched wait for the host.

    A smaller model is `faster`: all its steps are so many times as short.
    """
    rng, limit, decode_s = np.random.default_rng(5), PowerLimit(true), DECODE_S / faster
    found = []
    for tokens, slow_s in ((800, 0.02), (1600, 0.035)):
        prefill_s = slow_s / faster
        for order in orders(prefill_s, decode_s):
            heat, now, seconds, waits = limit.heat(), 0, [], False
            for step in order:
                level = heat.at(now)
                if step == "p":
                    took = prefill_s + limit.delay(level, prefill_s, max)
                else:
                    took = decode_s * (1 + limit.slowdown(level)) + waits * waits_s
                took *= 1 + rng.normal(0, noise)
                if step == "p":
                    heat.add(now, round(1e9 * took))
                waits = step == "p" and tokens > 1000
                now += round(1e9 * took)
                seconds.append(float(took))
            found.append(Series(tokens, tokens > 1000, order, seconds))
    return found


def test_series_last_long_enough_however_short_the_steps_are() -> None:
    for prefill_s, decode_s in ((0.08, 0.005), (0.004, 0.001)):
        for order in orders(prefill_s, decode_s):
            assert order.startswith("d" * REST + "p")
            assert order.count("p") * prefill_s >= HOT_S
            assert order.count("p") >= FEWEST
        row = orders(prefill_s, decode_s)[0]
        assert (len(row) - row.rindex("p") - 1) * decode_s >= COOL_S


@pytest.mark.parametrize("noise", [0.002, 0.01])
def test_a_small_model_that_hardly_loses_anything_is_told_so(noise: float) -> None:
    true = dict(zip(NAMES, (0.04, 0.04, 0.03, 0.01), strict=True))
    found = fit_power(planted(Coefficients(**true), noise, faster=5))
    for name, value in true.items():
        assert found[name] == pytest.approx(value, rel=0.3), name


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


@pytest.mark.parametrize("model", ["llama-3.1-8b", "llama-3.2-1b"])
def test_shipped_coefficients_are_those_of_the_measured_series(model: str) -> None:
    shipped = load_calibration(find_calibration(f"h200-{model}"))
    for name, value in fit_power(shipped.series).items():
        assert getattr(shipped.coefficients, name) == pytest.approx(value, rel=0.02), name
    assert not {*NAMES} & {*shipped.fitted}
