"""Calibrations: a fit finds what is planted, the file keeps it, and `run` takes it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from sim.costs import calibration
from sim.costs.calibration import (
    Calibration,
    Point,
    find_calibration,
    load_calibration,
    load_coefficients,
    shipped_for,
)
from sim.costs.calibration_text import save_calibration
from sim.costs.captured import CapturedStep, CapturedSteps
from sim.costs.coefficients import Coefficients
from sim.costs.evidence import seconds
from sim.costs.fit import HELD, LAUNCHES, fit, fit_launches
from sim.costs.load import Load, Route
from sim.costs.model import CostModel
from sim.costs.shapes import Shapes, padded_sizes
from sim.costs.splitting import Splitting
from sim.devices import resolve_device
from sim.errors import UserError
from sim.models.geometry import resolve_model
from sim.setup import prepare
from workloads.loader import load

H100, LLAMA = resolve_device("h100-80gb"), resolve_model("llama-3.1-8b")
POWER = {"power_throttle": 0.15, "power_reserve_s": 0.02, "power_constant_s": 0.03, "power_slowdown": 0.05}
"""Known otherwise (`sim.costs.power`)."""
TRUE = Coefficients(
    **HELD,
    memory_efficiency=0.8,
    compute_efficiency=0.7,
    overlap_loss=0.25,
    attention_memory_efficiency=0.75,
    attention_compute_efficiency=0.45,
    repeated_reads_cached=0.7,
    step_overhead_s=1.5e-3,
    prefill_layer_s=1.5e-5,
    sequence_overhead_s=1e-5,
    launch_layer_s=3e-4,
    run_ahead=0.8,
    **POWER,
    separate_launch_layer_s=2e-4,
    sequence_launch_layer_s=1e-4,
    recompute_launch_layer_s=4e-4,
    recompute_slowdown=0.12,
    copy_efficiency=0.6,
    pcie_efficiency=0.7,
    swap_overhead_s=8e-4,
    transfer_overhead_s=2e-6,
)


def decodes() -> dict[str, Load]:
    found = {}
    for count in (1, 4, 16, 64, 128, 256):
        for context in (128, 1024, 4096):
            found[f"decode {count} x {context}"] = Load(
                decode_seqs=count, decode_context=count * context, samples=count
            )
    for count, each in ((32, 8), (64, 16), (64, 64)):
        again = (count - count // each) * 384
        found[f"alike {count}, {each} each"] = Load(
            decode_seqs=count, decode_context=count * 512, samples=count, decode_repeated=again
        )
    return found


def loads() -> dict[str, Load]:
    found = decodes() | recomputed()
    for tokens in (16, 64, 256, 1024, 2048, 4096):
        for start in (0, 2048):
            pairs = tokens * start + tokens * (tokens + 1) // 2
            found[f"prefill {tokens} at {start}"] = Load(tokens, pairs, tokens + start, 1, samples=1)
    for tokens in (700, 1300):
        for heat in (20_000_000, 40_000_000, 90_000_000, 200_000_000):
            pairs = tokens * (tokens + 1) // 2
            found[f"prefill {tokens}, heat {heat}"] = Load(tokens, pairs, tokens, 1, samples=1, heat_ns=heat)
    for n in (8, 64):
        for tokens in (16, 64, 128):
            mixed = Load(
                tokens, tokens * (tokens + 1) // 2, tokens, 1, decode_seqs=n, decode_context=512 * n, samples=n + 1
            )
            found[f"mixed {n} + {tokens}"] = mixed
            found[f"mixed {n} + {tokens} behind"] = mixed._replace(behind_ns=3_000_000)
    for blocks in (8, 64):
        moved = {"swapped_bytes": blocks * 16 * LLAMA.kv_bytes_per_token, "transfers": blocks}
        found[f"swap {blocks}"] = Load(decode_seqs=8, decode_context=4096, samples=8, **moved)
    for n in (1, 4, 16, 64):
        for context in (256, 4096, 60_000):
            load = Load(decode_seqs=n, decode_context=n * context, samples=n, copied_tokens=n * context)
            found[f"concatenate {n} x {context}"] = load
    return found


def recomputed() -> dict[str, Load]:
    found = {}
    for n, context in product((1, 4, 16, 64), (128, 1024)):
        tokens, pairs = n * context, n * context * (context + 1) // 2
        found[f"recompute {n} x {context}"] = Load(tokens, pairs, tokens, n, samples=n)
    return found


ROUTES: dict[str, Route] = {"concatenate": "tensors", "recompute": "recompute"}


def points(true: Coefficients = TRUE, noise: float = 0.005, outliers: int = 0, seed: int = 1) -> list[Point]:
    rng = np.random.default_rng(seed)
    bare = [Point(name, load, 1.0, route=ROUTES.get(name.split()[0], "blocks")) for name, load in loads().items()]
    times = seconds(bare, LLAMA, H100, true) * (1 + rng.normal(0, noise, len(bare)))
    times[rng.choice(len(bare), outliers, replace=False)] *= 1.5
    return [point._replace(measured_s=time) for point, time in zip(bare, times.tolist(), strict=True)]


def test_a_step_that_a_graph_replays_has_no_floor_of_launches() -> None:
    true = replace(TRUE, captured_tokens=100.0, run_ahead=0.0)
    found = fit(among_decodes(points(true)), LLAMA, H100, facts={**POWER, "captured_tokens": 100.0})
    assert found.coefficients.captured_tokens == 100
    assert found.coefficients.launch_layer_s == pytest.approx(TRUE.launch_layer_s, rel=0.12)
    clean = seconds(points(noise=0.0), LLAMA, H100, true)
    assert np.abs(np.array(found.seconds) / clean - 1).max() < 0.03


def among_decodes(some: list[Point]) -> list[Point]:
    """Say that each step with a prefill came behind decodes."""
    return [
        point._replace(load=point.load._replace(behind_ns=1)) if point.load.prefill_tokens else point for point in some
    ]


@pytest.mark.parametrize("launch_layer_s", [0.0, 1e-3])
def test_what_a_gpu_loses_under_one_long_prefill_after_another_is_no_floor(launch_layer_s: float) -> None:
    true = replace(TRUE, captured_tokens=1000.0, run_ahead=0.0, launch_layer_s=launch_layer_s)
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
        "run",
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
    faster = {name: getattr(TRUE, name) * 0.7 for name in LAUNCHES}
    apart = [point for point in points(replace(TRUE, **faster), outliers=2) if point.route != "blocks"]
    assert fit_launches(apart, LLAMA, H100, TRUE) == pytest.approx(faster, rel=0.02)
    growing = [point for point in apart if point.route == "tensors"]
    assert fit_launches(growing, LLAMA, H100, TRUE).keys() == {*LAUNCHES[:2]}, "the others change no such step"
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


def made() -> Calibration:
    small = Point("in small blocks", Load(decode_seqs=4, samples=4, decode_context=400), 1.0, block_size=1)
    measured = (*points(), small._replace(measured_s=float(seconds([small], LLAMA, H100, TRUE)[0])))
    return Calibration(
        model="llama-3.1-8b",
        dtype="bf16",
        device="h100-80gb",
        peaks={},
        measured_on='a "device"',
        backend="torch",
        versions={"python": "3.12", "flashinfer-python": "0.5.3"},
        date="2026-01-02T03:04:05+00:00",
        coefficients=TRUE,
        fitted=("memory_efficiency", "run_ahead", "copy_efficiency"),
        uncertain=(0.0123, math.inf, 0.5),
        points=measured,
        fitted_s=tuple(seconds(measured, LLAMA, H100, TRUE).tolist()),
    )


def test_a_file_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    save_calibration(made(), path)
    again = load_calibration(path)
    assert again.name == "h100-80gb-llama-3.1-8b"
    assert again.coefficients == TRUE
    assert [point.load for point in again.points] == [point.load for point in made().points]
    assert [point.block_size for point in again.points] == [point.block_size for point in made().points]
    assert again.residuals == pytest.approx(made().residuals, abs=1e-4)
    assert replace(again, points=(), fitted_s=()) == replace(made(), points=(), fitted_s=())
    text = path.read_text(encoding="utf-8")
    assert "# share of memory bandwidth that matrix products reach (fitted, ± 1.2%)" in text
    assert "(fitted, hardly determined)\nrun_ahead = " in text
    path.write_text(text.replace("uncertain = ", "# before it was told: "), encoding="utf-8")
    older = load_calibration(path)
    assert older.uncertain == ()
    assert older.how_fitted("run_ahead") == "fitted"
    errors = again.errors()
    assert 0 < errors["median"] < errors["p90"] < errors["largest"] < 0.02


def test_a_workload_names_a_file_beside_it_or_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_calibration(made(), tmp_path / "mine.toml")
    monkeypatch.setattr(calibration, "CALIBRATIONS", tmp_path)
    for name in ("mine", "mine.toml"):
        file = tmp_path / "w.yaml"
        file.write_text(
            "name: w\nmodel: llama-3.1-8b\ndevice: h100-80gb\nallocators: [{kind: paged}]\n"
            "requests: {count: 1, arrivals: {kind: batch}, lengths: {kind: fixed, prompt: 1, output: 1}}\n"
            f"costs: {{calibration: {name}, page_map_s: 0.5}}\n"
        )
        assert prepare(load(file)).coefficients == replace(TRUE, page_map_s=0.5)
    assert shipped_for("llama-3.1-8b", "h100-80gb", "bf16") == "mine"
    assert shipped_for("llama-3.1-8b", "h200", "bf16") is None
    with pytest.raises(UserError, match=r"costs.calibration: mime is neither shipped nor a file \(did you mean mine"):
        find_calibration("mime")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("{", "not TOML"),
        ("[coefficients]", "not a calibration"),
        ("schema = 2\n[coefficients]", "not a calibration"),
        ("schema = 1\n[coefficients]\nspeed = 1", "unknown coefficient speed"),
        ("schema = 1\n[coefficients]\nstep_overhead_s = 0.002", "not a whole calibration"),
    ],
)
def test_a_bad_file_gets_one_line(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "calibration.toml"
    if text is not None:
        path.write_text(text)
    read = load_calibration if words == "not a whole calibration" else load_coefficients
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


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
