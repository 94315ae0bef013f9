"""Captured steps in calibration files, and in runs that look them up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from allocators.paged import PagedAllocator
from sim.costs.calibration import Calibration, Point, load_calibration, load_captured
from sim.costs.calibration_text import save_calibration
from sim.costs.coefficients import REPLAYED, Coefficients
from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.errors import UserError
from sim.runner import run_case
from sim.setup import prepare
from tests.captures import COEFFICIENTS, H100, LLAMA, LOADS, MS, measured
from workloads.generate import requests as make_requests
from workloads.schema import Workload


def calibrated(path: Path, **changes: Any) -> Path:
    """Write a calibration of the 8B whose captured steps take 5 ms and more."""
    facts: dict[str, Any] = {"parameters": LLAMA.parameters, "captured": tuple(measured(256))} | changes
    point = Point("decode 1 x 8", Load(decode_seqs=1, decode_context=8, samples=1), 5 * MS)
    found = Calibration(
        model="llama-3.1-8b",
        dtype="bf16",
        device="h100-80gb",
        peaks={},
        measured_on="a device",
        backend="flashinfer",
        versions={},
        date="2026-01-02",
        coefficients=COEFFICIENTS,
        fitted=(),
        points=(point,),
        fitted_s=(5 * MS,),
        **facts,
    )
    save_calibration(found, path)
    return path


def workload(path: Path, **changes: Any) -> Workload:
    return Workload.model_validate(
        {
            "name": "w",
            "model": "llama-3.1-8b",
            "device": {"name": "h100-80gb", "kv_memory_gib": 2},
            "engine": {"max_num_seqs": 64, "max_model_len": 2048},
            "requests": {
                "count": 40,
                "arrivals": {"kind": "poisson", "rate": 50},
                "lengths": {"kind": "uniform", "prompt": {"min": 20, "max": 400}, "output": {"min": 5, "max": 60}},
            },
            "allocators": [{"kind": "paged"}],
            "costs": {"calibration": str(path)},
        }
        | changes
    )


def test_a_file_keeps_captured_steps(tmp_path: Path) -> None:
    path = calibrated(tmp_path / "one.toml")
    again = load_calibration(path)
    assert [step[:4] for step in again.captured] == [step[:4] for step in sorted(measured(256))]
    seconds = [[step.seconds for step in steps] for steps in (again.captured, sorted(measured(256)))]
    assert seconds[0] == pytest.approx(seconds[1], rel=1e-5)
    assert again.parameters == LLAMA.parameters
    path.write_text(path.read_text().replace("  [1, 0, 0, 1,", "  [1, 0, 0,"))
    for read in (load_calibration, lambda file: load_captured(file, LLAMA, H100)):
        with pytest.raises(UserError, match=r"one\.toml: captured: \[1, 0, 0, 0\.005.*\] is not decodes, tokens"):
            read(path)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("steps = [[1, 0, 0, 1, nan]]", "is not decodes, tokens, chunks, context, seconds"),
        ("steps = [[1, 0, 0, 1, inf]]", "is not"),
        ("steps = [[1, 0, 0, 1, 0.0]]", "is not"),
        ("steps = [[1, 0, 0, 1, true]]", "is not"),
        ("steps = [[1, 0, 0, 1, '0.1']]", "is not"),
        ("steps = [[-1, 0, 0, 1, 0.1]]", "is not"),
        ("steps = [[1.5, 0, 0, 1, 0.1]]", "is not"),
        ("steps = [[true, 0, 0, 1, 0.1]]", "is not"),
        ("steps = ['10015']", "is not"),
        ("steps = [[1, 32, 0, 1, 0.1]]", "is no step"),
        ("steps = [[1, 0, 1, 1, 0.1]]", "is no step"),
        ("steps = [[0, 0, 0, 1, 0.1]]", "is no step"),
        ("steps = [1]", "int"),
        ("steps = 1", "int"),
        ("", "steps is missing"),
        ("steps = []\nparameters = '8'", 'parameters: "8" is not a whole number'),
        ("steps = []\nparameters = true", "parameters: true is not a whole number"),
    ],
)
def test_captured_steps_that_are_none_are_told_in_one_line(tmp_path: Path, wrong: str, why: str) -> None:
    path = calibrated(tmp_path / "one.toml")
    sound = path.read_text().partition("[captured]")[0]
    parameters = "" if "parameters" in wrong else f"parameters = {LLAMA.parameters}\n"
    path.write_text(f"{sound}[captured]\n{parameters}{wrong}\n")
    for read in (load_calibration, lambda file: load_captured(file, LLAMA, H100)):
        with pytest.raises(UserError, match=f"one.toml: captured: .*{why}") as told:
            read(path)
        assert "\n" not in str(told.value)


def test_a_table_of_captured_steps_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    path = calibrated(tmp_path / "one.toml")
    path.write_text("captured = 3\n" + path.read_text().partition("[captured]")[0])
    for read in (load_calibration, lambda file: load_captured(file, LLAMA, H100)):
        with pytest.raises(UserError, match=r"one\.toml: captured: "):
            read(path)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, True),
        ({"device": {"name": "h100-80gb", "kv_memory_gib": 4}}, True),
        ({"device": {"name": "h100-80gb", "bandwidth_tbps": 4}}, False),
        ({"device": "h200"}, False),
        ({"model": "mistral-7b"}, False),
        ({"model": {"name": "llama-3.1-8b", "kv_heads": 32}}, False),
        ({"model": {"name": "llama-3.1-8b", "kv_dtype": "fp8"}}, False),
        ({"model": {"name": "llama-3.1-8b", "tensor_parallel": 2}}, False),
        ({"engine": {"attention": "naive", "max_model_len": 2048}}, False),
    ],
)
def test_captured_steps_are_of_one_model_on_one_device(tmp_path: Path, changes: dict[str, Any], found: bool) -> None:
    assert bool(prepare(workload(calibrated(tmp_path / "one.toml"), **changes)).captured) == found


HOSTS = {"prefill_host_s", "launch_layer_s", "launch_beside_layer_s", "launch_lead_s"}


def test_whatever_a_captured_step_depends_on_is_known_to_count() -> None:
    """Of a decode and a chunk at the start of its prompt, where the host is fast and there is one GPU."""
    loads = [LOADS[0], Load(200, 20_100, 200, 1, 5, 800, 6)]
    told = [CostModel(LLAMA, H100).step_ns(load) for load in loads]
    for name in Coefficients.__dataclass_fields__:
        value = 2 * getattr(Coefficients(), name) or 0.5
        changed = CostModel(LLAMA, H100, Coefficients().changed({name: min(value, 1.0)}, "costs"))
        if [changed.step_ns(load) for load in loads] != told and name not in HOSTS:
            assert name in REPLAYED, name


def test_who_changes_what_they_stand_in_for_does_without_them(tmp_path: Path) -> None:
    path = str(calibrated(tmp_path / "one.toml"))
    changed = {
        name: not prepare(workload(Path(path), costs={"calibration": path, name: 0.5})).captured
        for name in Coefficients.__dataclass_fields__
    }
    assert {name for name, without in changed.items() if without} == REPLAYED
    assert prepare(workload(Path(path))).cost(PagedAllocator(64, 16, 64)).step_ns(LOADS[0]) == 5_936_000
    assert prepare(workload(calibrated(tmp_path / "two.toml", captured=()))).captured == ()


def test_a_run_with_captured_steps_is_the_same_leapt_over_and_step_by_step(tmp_path: Path) -> None:
    setup = prepare(workload(calibrated(tmp_path / "one.toml")))
    requests = make_requests(setup.workload, 0)
    tables = []
    for leaps in (True, False):
        folder = tmp_path / str(leaps)
        run_case(setup, setup.cases[0], requests, folder, leaps=leaps)
        tables.append({path.name: pq.read_table(path) for path in sorted(folder.glob("*.parquet"))})
    assert {*tables[0]} >= {"steps.parquet", "requests.parquet"}
    assert all(tables[0][name].equals(tables[1][name]) for name in tables[0])
    decodes = tables[0]["steps.parquet"].to_pandas()
    alone = decodes[(decodes.decode_tokens == 8) & (decodes.prefill_tokens == 0)]
    assert len(alone) > 5
    seconds = 5.08 * MS + (alone.live - 8).clip(lower=0) * 1e-6
    assert alone.duration_s.to_numpy() == pytest.approx(seconds.to_numpy(), abs=1e-9)


def test_a_machine_may_replay_wide_steps_and_computing_ones_slower(tmp_path: Path) -> None:
    path = calibrated(tmp_path / "one.toml")

    def cost(**factors: float) -> CostModel:
        costs = {"calibration": str(path), **factors}
        setup = prepare(workload(path, costs=costs, engine={"max_num_seqs": 256, "max_model_len": 2048}))
        return setup.cost(setup.cases[0].allocator())

    usual, other = cost(), cost(step_factor=1.1, wide_factor=0.99, many_factor=1.3, compute_factor=1.2)
    ratios = [(0, 24, 1.1), (0, 32, 1.089), (32, 0, 1.089), (32, 32, 1.089), (512, 32, 1.32), (0, 128, 1.43)]
    for tokens, decodes, ratio in ratios:
        chunks = 8 if tokens else 0
        load = Load(tokens, tokens * (tokens // 8 + 1) // 2, tokens, chunks, decodes, decodes, decodes + chunks)
        load = load._replace(behind_ns=10**9)  # what the host does is hidden
        assert other.step_ns(load) == pytest.approx(ratio * usual.step_ns(load), abs=2)
        if not tokens:
            each = other.decode_ns(decodes, np.array([float(decodes)]))
            assert each.tolist() == [other.step_ns(load)]
