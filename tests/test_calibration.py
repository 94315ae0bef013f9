"""Calibrations: a fit finds what is planted, the file keeps it, and `run` takes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.costs.calibration import Point
from sim.costs.captured import CapturedStep, CapturedSteps
from sim.costs.coefficients import Coefficients
from sim.costs.evidence import seconds
from sim.costs.fit import HELD, LAUNCHES, fit, fit_launches
from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.costs.shapes import Shapes, padded_sizes
from sim.costs.splitting import Splitting
from tests.planted import H100, LLAMA, POWER, TRUE, loads, points


def test_a_step_that_a_graph_replays_has_no_floor_of_launches() -> None:
    true = replace(TRUE, captured_tokens=100.0)
    found = fit(among_decodes(points(true)), LLAMA, H100, facts={**POWER, "captured_tokens": 100.0})
    assert found.coefficients.captured_tokens == 100
    assert found.coefficients.launch_layer_s == pytest.approx(TRUE.launch_layer_s, rel=0.12)
    clean = seconds(points(noise=0.0), LLAMA, H100, true)
    assert np.abs(np.array(found.seconds) / clean - 1).max() < 0.03


def among_decodes(some: list[Point]) -> list[Point]:
    """Say that each step with a prefill came behind decodes."""
    return [
        point._replace(load=point.load._replace(behind_ns=max(1, point.load.behind_ns)))
        if point.load.prefill_tokens
        else point
        for point in some
    ]


@pytest.mark.parametrize("launch_layer_s", [0.0, 1e-3])
def test_what_a_gpu_loses_under_one_long_prefill_after_another_is_no_floor(launch_layer_s: float) -> None:
    true = replace(TRUE, captured_tokens=1000.0, launch_layer_s=launch_layer_s)
    alone = [point for point in points(true) if point.load.prefill_tokens > 1000]
    slower = [point._replace(measured_s=1.25 * point.measured_s) for point in alone]
    found = fit([*slower, *among_decodes(points(true))], LLAMA, H100, facts={**POWER, "captured_tokens": 1000.0})
    assert ("launch_layer_s" in found.fitted) == bool(launch_layer_s)
    assert found.coefficients.launch_layer_s == pytest.approx(launch_layer_s, rel=0.05)
    assert found.coefficients.compute_efficiency == pytest.approx(TRUE.compute_efficiency, rel=0.05)


def test_a_point_that_was_not_steady_does_not_start_the_search() -> None:
    broken = points()
    broken[7] = broken[7]._replace(measured_s=1e-9, spread=1e5)
    found = fit(broken, LLAMA, H100, facts=POWER)
    clean = seconds(points(noise=0.0), LLAMA, H100, TRUE)
    assert np.median(np.abs(np.array(found.seconds) / clean - 1)) < 0.01


def test_where_nothing_was_steady_what_there_is_must_do() -> None:
    wild = [point._replace(spread=0.9) for point in points()]
    found = fit(wild, LLAMA, H100, facts=POWER)
    assert np.median(np.abs(np.array(found.seconds) / [point.measured_s for point in wild] - 1)) < 0.01


@pytest.mark.parametrize("outliers", [0, 3])
def test_a_fit_finds_the_planted_coefficients(outliers: int) -> None:
    found = fit(points(outliers=outliers), LLAMA, H100, facts=POWER)
    planted = {name for name, value in vars(TRUE).items() if value != getattr(Coefficients(), name)}
    assert set(found.fitted) == planted - {*HELD, *POWER}
    # overheads of a step and of a sequence, and the time to read the weights, can only roughly be told apart
    sharp = (
        "attention",
        "compute",
        "copy",
        "launch",
        "recompute",
        "repeated",
        "separate",
        "swap",
        "sequence_launch",
    )
    for name in found.fitted:
        if name.startswith(sharp) and not outliers:
            assert getattr(found.coefficients, name) == pytest.approx(getattr(TRUE, name), rel=0.12), name
    clean = seconds(points(noise=0.0), LLAMA, H100, TRUE)
    errors = np.abs(np.array(found.seconds) / clean - 1)
    assert np.median(errors) < 0.005
    assert errors.max() < (0.04 if outliers else 0.03)


def test_how_uncertain_coefficients_are_said_to_be_is_how_far_off_they_are() -> None:
    strays = []
    for seed in range(6):
        found = fit(points(noise=0.01, seed=seed), LLAMA, H100, facts=POWER)
        for name, error in zip(found.fitted, found.uncertain, strict=True):
            if name.endswith("_efficiency") and error < 0.2:
                strays.append(np.log(getattr(found.coefficients, name) / getattr(TRUE, name)) / error)
    assert len(strays) >= 18
    assert 0.3 < np.sqrt(np.mean(np.square(strays))) < 2.0


def test_of_another_host_the_launches_alone_are_fitted() -> None:
    slower = {name: getattr(TRUE, name) * 1.4 for name in LAUNCHES}
    launched = [point for point in points(replace(TRUE, **slower), outliers=2) if not point.load.transfers]
    assert fit_launches(launched, LLAMA, H100, TRUE) == pytest.approx(slower, rel=0.05)
    apart = [point for point in launched if point.route != "blocks"]
    growing = [point for point in apart if point.route == "tensors"]
    named = {"separate_launch_layer_s", "sequence_launch_layer_s"}
    assert fit_launches(growing, LLAMA, H100, TRUE).keys() == named, "the others change no such step"
    with pytest.raises(ValueError, match="no points"):
        fit_launches([], LLAMA, H100, TRUE)


def test_a_floor_that_no_step_touches_is_not_fitted() -> None:
    never = replace(TRUE, launch_layer_s=1e-5)  # shorter than every step with a prefill
    found = fit(points(never, noise=1e-4), LLAMA, H100, facts=POWER)
    assert "launch_layer_s" not in found.fitted
    assert found.coefficients.launch_layer_s == Coefficients().launch_layer_s
    assert dict(zip(found.fitted, found.uncertain, strict=True))["compute_efficiency"] < 0.05


def test_what_is_read_again_is_found_where_captured_steps_are_looked_up() -> None:
    """Whatever the roofline says, their times at a context tell how much of it was read."""
    model = CostModel(LLAMA, H100, TRUE)
    steps = [Load(decode_seqs=n, decode_context=n * c, samples=n) for n in padded_sizes(64) for c in (1, 512, 4096)]
    captured = [
        CapturedStep(load.decode_seqs, 0, 0, load.decode_context, model.step_ns(load) * 0.9e-9) for load in steps
    ]
    bare = [Point(name, load, 1.0) for name, load in loads().items() if name.startswith("alike")]
    times = seconds(bare, LLAMA, H100, TRUE, CapturedSteps(Shapes(64, 0), captured, Splitting.of(LLAMA, H100))).tolist()
    alike = [point._replace(measured_s=time) for point, time in zip(bare, times, strict=True)]
    found = fit(
        [*alike, *(point for point in points() if "64 x" in point.name)], LLAMA, H100, facts=POWER, captured=captured
    )
    assert "repeated_reads_cached" in found.fitted
    assert found.coefficients.repeated_reads_cached == pytest.approx(TRUE.repeated_reads_cached, abs=0.02)


def test_what_small_blocks_take_is_found_where_captured_steps_are_looked_up() -> None:
    planted = replace(TRUE, paged_block_overhead=0.2)
    model = CostModel(LLAMA, H100, TRUE)
    steps = [Load(decode_seqs=n, decode_context=n * c, samples=n) for n in padded_sizes(64) for c in (1, 512, 4096)]
    captured = [CapturedStep(load.decode_seqs, 0, 0, load.decode_context, model.step_ns(load) * 1e-9) for load in steps]
    bare = [Point(f"small {load}", load, 1.0, block_size=1) for load in steps if load.decode_context > load.decode_seqs]
    times = seconds(
        bare, LLAMA, H100, planted, CapturedSteps(Shapes(64, 0), captured, Splitting.of(LLAMA, H100))
    ).tolist()
    small = [point._replace(measured_s=time) for point, time in zip(bare, times, strict=True)]
    found = fit(
        [*small, *(point for point in points() if "64 x" in point.name)], LLAMA, H100, facts=POWER, captured=captured
    )
    assert "paged_block_overhead" in found.fitted
    assert found.coefficients.paged_block_overhead == pytest.approx(0.2, rel=0.05)


def test_what_was_not_measured_keeps_its_default() -> None:
    found = fit([point for point in points() if point.name.startswith("decode")], LLAMA, H100, facts=POWER)
    unseen = {"pcie_efficiency", "copy_efficiency", "launch_layer_s", "repeated_reads_cached"}
    assert not unseen & {*found.fitted}
    assert all(getattr(found.coefficients, name) == getattr(Coefficients(), name) for name in unseen)
    with pytest.raises(ValueError, match="no points"):
        fit([], LLAMA, H100)


def test_launches_are_a_floor_under_steps_that_prefill() -> None:
    costs = CostModel(LLAMA, H100, replace(TRUE, launch_layer_s=1e-3))
    floor = round((1.5e-3 + 32 * 1e-3) * 1e9)
    prefill = Load(16, 136, 16, 1, samples=1)
    assert costs.step_ns(prefill) == floor
    assert costs.step_ns(prefill._replace(copied_tokens=1000)) > floor
    assert costs.step_ns(Load(decode_seqs=1, decode_context=16, samples=1)) < floor
    ahead = np.array([16, 100_000])
    fields = ("prefill_tokens", "prefill_pairs", "prefill_context")
    leapt = costs.leap_ns(prefill, **dict.fromkeys(fields, ahead))
    each = [costs.step_ns(prefill._replace(**dict.fromkeys(fields, n))) for n in ahead.tolist()]
    assert leapt.tolist() == each
    assert each[0] == floor < each[1]


def test_launches_without_a_cache_are_a_floor_under_every_step_however_many_sequences() -> None:
    costs = CostModel(LLAMA, H100, TRUE, route="recompute")
    few = Load(prefill_tokens=90, prefill_pairs=4095, prefill_context=90, prefill_seqs=1, samples=1)
    floor = round((1.5e-3 + 32 * 4e-4) * 1e9)
    assert costs.step_ns(few) == costs.step_ns(few._replace(prefill_seqs=9)) == floor
    tokens = np.array([90, 9000])
    each = [costs.step_ns(few._replace(prefill_tokens=count)) for count in tokens.tolist()]
    assert costs.leap_ns(few, prefill_tokens=tokens).tolist() == each
    assert each[1] > floor


def test_without_a_cache_the_clock_of_a_device_at_its_power_limit_stays_low() -> None:
    free = CostModel(LLAMA, H100, replace(TRUE, recompute_slowdown=0.0), route="recompute")
    held = CostModel(LLAMA, H100, TRUE, route="recompute")
    many = Load(prefill_tokens=9000, prefill_pairs=9000 * 90, prefill_context=9000, prefill_seqs=50, samples=50)
    assert held.step_ns(many) == pytest.approx(1.12 * free.step_ns(many))
    assert not held.throttles, "nothing has to be kept count of"


def test_appending_to_tensors_is_launched_for_each_sequence_and_hides_copies() -> None:
    load = Load(decode_seqs=50, decode_context=5000, samples=50, copied_tokens=4950)
    costs = CostModel(LLAMA, H100, TRUE, route="tensors")
    floor = round((1.5e-3 + 32 * (2e-4 + 50 * 1e-4)) * 1e9)
    assert costs.step_ns(load) == costs.step_ns(load._replace(copied_tokens=0)) == floor
    copied = load._replace(copied_tokens=10**7)
    copying = 2 * 10**7 * LLAMA.kv_bytes_per_token / (H100.bandwidth * 0.6)
    assert (
        floor / 1e9 < copying < costs.step_ns(copied) / 1e9 < copying + CostModel(LLAMA, H100, TRUE).step_ns(load) / 1e9
    )
    contexts = np.array([5000, 10**7], np.float64)
    each = [costs.step_ns(load._replace(decode_context=n, copied_tokens=n - 50)) for n in (5000, 10**7)]
    assert costs.decode_ns(50, contexts, copied=True).tolist() == each
