"""The timed part of `validate`: a "real" run whose steps are planted, so that what must be found is known."""

from __future__ import annotations

import io
import json
import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console

from analysis.machines import FACTORS, LAUNCHED
from analysis.machines import differing as told
from analysis.reading import open_directory
from analysis.timing import gathered
from sim.costs.calibration import Calibration, Point
from sim.costs.calibration_text import save_calibration
from sim.costs.captured import CapturedStep, on_machine
from sim.costs.coefficients import Coefficients
from sim.costs.fit import LAUNCHES
from sim.costs.load import Load
from sim.decode import main_validate, timed
from sim.decode.machine import differing, launching, slower
from sim.decode.model import load
from sim.decode.quiet import Quiet
from sim.decode.timed import calibration_of, on_this_machine
from sim.engine.executor import Executor, Simulated
from sim.errors import UserError
from sim.setup import prepare
from tests.decode.room import CPU, workload
from tests.gpu.timed import BLIND, HEADLINE, HELD_OUT, SEEN, document, pieces, simulated_again, workload_of
from workloads.loader import presets
from workloads.machine import Device

if TYPE_CHECKING:
    import numpy.typing as npt

    from allocators.base import Allocator
    from sim.case import Case
    from sim.decode.model import Decoder
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving
    from workloads.requests import Requests
    from workloads.schema import Workload

PEAKS = {"memory_gib": 2.0, "bandwidth_tbps": 1.0, "bf16_tflops": 1.0}
SLOW = Coefficients(step_overhead_s=0.004)
"""What the planted "device" is like."""


class Planted(Executor):
    """Takes `slower` times as long as the cost model says."""

    def __init__(self, executor: Simulated, slower: float) -> None:
        self.executor = executor
        self.slower = slower

    def run(self, plan: Plan, serving: Serving) -> int:
        return round(self.executor.run(plan, serving) * self.slower)

    def errors(self) -> npt.NDArray[np.int64]:
        return np.zeros(0, np.int64)


@dataclass
class Assembled:
    executor: Planted
    padded: None = None


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = Calibration(
        model="tiny-llama",
        dtype="fp32",
        device="custom",
        peaks=PEAKS,
        measured_on="planted",
        backend="torch",
        versions={},
        date="2026-01-01",
        coefficients=SLOW,
        fitted=("step_overhead_s",),
        points=(Point("step", Load(decode_seqs=1, decode_context=1, samples=1), 0.004),),
        fitted_s=(0.004,),
    )
    path = tmp_path_factory.mktemp("planted") / "planted.toml"
    save_calibration(found, path)
    return str(path)


def work(*kinds: str) -> Workload:
    allocators = [{"kind": kind} for kind in kinds or ("paged", "contiguous")]
    requests = {"count": 30, "arrivals": {"kind": "poisson", "rate": 40}}
    made = workload("tiny-llama", allocators[0], kv_kib=512, requests=requests)
    return type(made).model_validate({**made.resolved(), "allocators": allocators})


def validated(
    monkeypatch: pytest.MonkeyPatch, out: Path, slower: float, calibration: str | None, *kinds: str
) -> tuple[int, str, dict[str, Any]]:
    def assemble(_: Decoder, case: Case, allocator: Allocator, *__: Requests, **___: object) -> Assembled:
        setup = prepare(work(*kinds))
        cost = type(setup)(setup.workload, setup.geometry, setup.device, SLOW, setup.cases).cost(allocator)
        real = Simulated(cost, recomputes=allocator.recomputes, block_bytes=case.pool.block_bytes)
        return Assembled(Planted(real, slower))

    monkeypatch.setattr(timed, "assemble", assemble)
    console = Console(file=io.StringIO(), width=160)
    status = main_validate(work(*kinds), out, console, device="cpu", part="timed", calibration=calibration)
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue(), json.loads((out / "validation.json").read_text())["timing"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, calibration: str) -> dict[float, dict[str, Any]]:
    """What is found of blocks on a device as fast as its calibration says, and on one that is a quarter slower."""
    with pytest.MonkeyPatch.context() as patched:
        out = tmp_path_factory.mktemp("found")
        return {slow: validated(patched, out / str(slow), slow, calibration, "paged")[2] for slow in (1.0, 1.25)}


@pytest.fixture
def timing(found: dict[float, dict[str, Any]]) -> dict[str, Any]:
    """What is found on the slower one, to be changed."""
    return deepcopy(found[1.25])


def test_a_prediction_that_holds_is_status_0(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calibration: str) -> None:
    status, text, timing = validated(monkeypatch, tmp_path / "out", 1.0, calibration, "paged")
    assert status == 0
    assert "within the tolerances" in text
    assert timing["judged"]
    assert timing["passed"]
    assert max(abs(error) for run in timing["runs"] for error in run["errors"].values()) < 1e-6
    assert "planted.toml" in (tmp_path / "out" / "validation.html").read_text()


@pytest.mark.parametrize("slower", [0.8, 1.25])
def test_a_planted_difference_is_status_1_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calibration: str, slower: float
) -> None:
    status, text, timing = validated(monkeypatch, tmp_path / "out", slower, calibration)
    assert status == 1
    assert "NOT within the tolerances" in text
    assert not timing["passed"]
    faults = " ".join(timing["faults"])
    assert "tpot_s.p50: off by" in faults
    assert "paged: tpot_s.p99:" in faults
    for run in timing["runs"]:
        assert run["errors"]["tpot_s.p50"] == pytest.approx(1 / slower - 1, abs=0.03)


def test_without_a_calibration_nothing_is_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status, text, timing = validated(monkeypatch, tmp_path / "out", 3.0, None, "paged")
    assert status == 0
    assert "not judged" in text
    for side in ("measured", "simulated"):
        assert len([line for line in text.splitlines() if re.search(rf" {side} +\d", line)]) == len(timing["runs"])
    assert "median error" not in text  # it does not foretell this device
    assert "`calibrate --model MODEL` measures this one" in text
    assert (timing["judged"], timing["passed"], timing["faults"] != []) == (False, True, True)


def test_what_the_calibration_has_not_seen_is_not_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calibration: str
) -> None:
    status, _, timing = validated(monkeypatch, tmp_path / "out", 2.0, calibration, "growing")
    assert status == 0
    assert [run["judged"] for run in timing["runs"]] == [False]
    assert timing["medians"] == {}


def test_both_parts_in_one_file(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=160)
    assert main_validate(work("paged"), tmp_path / "out", console, device="cpu") == 0
    written = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert written["runs"][0]["passed"]
    assert written["timing"]["runs"][0]["finished"] == [30, 30]
    assert not (tmp_path / "out" / "timed").exists()


def test_a_calibration_is_asked_for_named_or_shipped(monkeypatch: pytest.MonkeyPatch, calibration: str) -> None:
    name = "NVIDIA H100 80GB HBM3"
    monkeypatch.setattr(timed, "shipped_for", lambda model, device, dtype: f"{device}-{model}-{dtype}")
    assert calibration_of(work(), name, "fp32") == "h100-80gb-tiny-llama-fp32"
    assert calibration_of(work(), "CPU x86_64", "fp32") is None
    assert calibration_of(work(), "CPU x86_64", "fp32", calibration) == calibration
    own = type(work()).model_validate({**work().resolved(), "costs": {"calibration": calibration}})
    assert calibration_of(own, "planted", "fp32") == calibration
    assert calibration_of(own, "CPU x86_64", "fp32") is None
    assert calibration_of(own, name, "fp32") == "h100-80gb-tiny-llama-fp32"
    with pytest.raises(UserError, match=r"costs\.calibration: nowhere is neither shipped nor a file"):
        calibration_of(work(), name, "fp32", "nowhere")


def test_a_simulation_is_as_fast_as_where_its_calibration_is_from(tmp_path: Path, calibration: str) -> None:
    elsewhere = work("paged").model_copy(update={"device": Device(name="l4", kv_memory_gib=0.0005)})
    timed.simulate(elsewhere, tmp_path / "out", calibration, None)
    device = open_directory(tmp_path / "out").manifest["workload"]["device"]
    assert (device["bandwidth_tbps"], device["kv_memory_gib"]) == (1.0, 0.0005)
    assert device["memory_gib"] == pytest.approx(22.03)
    assert device.get("name") is None


def test_validations_are_judged_together(found: dict[float, dict[str, Any]]) -> None:
    both = gathered([found[slower] for slower in (1.0, 1.0, 1.25)])
    assert len(both.runs) == 3
    assert both.medians["tpot_s.p50"] < 1e-6
    assert all("p99" in fault for fault in both.faults)
    assert not both.passed


def test_every_piece_of_the_script_names_a_workload_that_loads() -> None:
    names = [piece.name for piece in pieces()]
    assert len(set(names)) == len(names)
    groups = {"blind": BLIND, "heldout": HELD_OUT, "timed": SEEN}
    found = {f"validate_{group}_{name}" for group, names in groups.items() for name in names}
    shipped = {preset for preset in presets() if preset.startswith(tuple(f"validate_{group}_" for group in groups))}
    assert shipped == found, "each is served by the script, in one group"
    assert {piece.preset for piece in pieces()} == found | {HEADLINE}
    for piece in pieces():
        loaded = workload_of(piece)
        assert len(loaded.allocators) == 1 or piece.group != "sosp23"


def test_the_scripts_document_judges_held_out_pieces_only(found: dict[float, dict[str, Any]]) -> None:
    done = {"a": {"group": "held-out", "timing": found[1.0]}, "b": {"group": "sosp23", "timing": found[1.25]}}
    assert document("planted", {}, done)["passed"]
    done["b"]["group"] = "held-out"
    assert not document("planted", {}, done)["passed"]


def test_what_was_measured_is_judged_anew_with_another_calibration(timing: dict[str, Any], calibration: str) -> None:
    named = {**work("paged").resolved(), "costs": {"calibration": calibration, "step_overhead_s": 0.005}}
    timing["held_up"] = [0.001, 0.002]
    again = simulated_again(type(work()).model_validate(named), "planted", timing)
    assert again["held_up"] == timing["held_up"]
    (before,), (after,) = timing["runs"], again["runs"]
    assert after["measured"] == before["measured"]
    assert abs(after["errors"]["tpot_s.p50"]) < 0.02 < abs(before["errors"]["tpot_s.p50"])
    assert after["errors"]["makespan_s"] == pytest.approx(0, abs=0.02)


def test_how_fast_the_machine_was_found_to_be_counts_unless_the_workload_says_otherwise(
    timing: dict[str, Any], calibration: str
) -> None:
    assert timing["machine"] == {}, "of a CPU nothing is known before"
    timing["machine"] = {"step_factor": 1.25}
    named = {**work("paged").resolved(), "costs": {"calibration": calibration}}
    again = simulated_again(type(work()).model_validate(named), "planted", timing)
    assert again["machine"] == timing["machine"]
    (run,) = again["runs"]
    assert run["errors"]["tpot_s.p50"] == pytest.approx(0, abs=0.01)
    low, high = run["reach"]["tpot_s.p50"]
    assert low < run["simulated"]["tpot_s.p50"] < high
    usual = {**named, "costs": {"calibration": calibration, "step_factor": 1.0}}
    (run,) = simulated_again(type(work()).model_validate(usual), "planted", timing)["runs"]
    assert run["errors"]["tpot_s.p50"] == pytest.approx(1 / 1.25 - 1, abs=0.01)


def test_a_device_without_room_for_what_would_be_measured_is_taken_as_calibrated(
    monkeypatch: pytest.MonkeyPatch, calibration: str
) -> None:
    def full(*_: object, **__: object) -> dict[str, float]:
        raise UserError("no room")

    monkeypatch.setattr(timed, "factors_of", full)
    setup = prepare(work("paged"))
    decoder = load("tiny-llama", setup.geometry, CPU)
    with pytest.warns(UserWarning, match="as fast as the calibrated one: no room"):
        assert on_this_machine(decoder, work("paged"), calibration, Quiet(0.0), backend="torch") == {}
    monkeypatch.undo()
    assert on_this_machine(decoder, work("paged"), calibration, Quiet(0.0), backend="torch") == {}, "is no GPU"
    assert on_this_machine(decoder, work("paged"), None, Quiet(0.0), backend="torch") == {}


def test_a_machine_is_compared_in_the_steps_that_were_calibrated() -> None:
    before = [CapturedStep(count, 0, 0, 10 * count, 0.005, 10) for count in (1, 2, 4)]
    now = [step._replace(seconds=step.seconds * ratio) for step, ratio in zip(before, (1.01, 1.3, 1.02), strict=True)]
    assert slower(tuple(before), [*now, CapturedStep(8, 0, 0, 80, 9.9, 10)]) == pytest.approx(1.02)
    assert slower(tuple(before), []) == 1


@pytest.mark.parametrize("measured", [64, 256])
def test_what_differs_on_a_machine_is_found_by_width_and_holds_for_steps_that_were_not_measured(measured: int) -> None:
    def took(step: CapturedStep) -> float:
        if step.decodes >= 96:
            return 0.97
        return 1.05 if step.width <= 24 else 0.99 if step.width < 200 else 1.02

    sizes, bound = (1, 8, 16, 24, 32, 64, 128, 192, 200, 256), 200
    before = [CapturedStep(8, size, 1, 8, 0.004 + size * 1e-5) for size in sizes] + [
        CapturedStep(size, 0, 0, 10 * size, 0.005, 10) for size in sizes if size < 96 or measured > 64
    ]
    true = [step._replace(seconds=step.seconds * took(step)) for step in before]
    found = differing(before, [step for step in true if step.width <= measured], bound)
    assert found["step_factor"] == pytest.approx(1.05)
    told = Coefficients(**found)
    for step, seen in zip(on_machine(before, told, bound), true, strict=True):
        if step.width < bound or measured > bound:
            assert step.seconds * told.step_factor == pytest.approx(seen.seconds)
        else:
            assert step == before[before.index(step)], "as narrow ones, since nothing is known of those"


def test_launches_are_measured_for_allocators_without_blocks() -> None:
    assert launching(work("paged", "virtual")) == []
    assert launching(work("growing", "paged", "no-cache", "growing")) == ["growing", "no-cache"]
    assert {*LAUNCHED, "launch_lead_s"} == {*LAUNCHES}, "what is measured has words on the page"
    assert {"step_factor", *FACTORS} == differing([], [], 200.0).keys()
    assert told({"step_factor": 1.1, "many_factor": 0.9}) == (
        "decodes take 1.100 times as long as calibrated, steps of 96 and more decodes 0.990 times"
    )


def test_what_other_machines_may_take_is_around_what_the_workload_says(
    timing: dict[str, Any], calibration: str
) -> None:
    slower = {**work("paged").resolved(), "costs": {"calibration": calibration, "step_factor": 1.25}}
    (run,) = simulated_again(type(work()).model_validate(slower), "planted", timing)["runs"]
    low, high = run["reach"]["tpot_s.p50"]
    assert low < run["simulated"]["tpot_s.p50"] < high
    assert high / low == pytest.approx(1.02 / 0.98, rel=0.01)
    assert low < run["measured"]["tpot_s.p50"] < high
