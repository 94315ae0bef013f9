"""`calibrate` from end to end on a tiny model; how long anything takes is not judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from allocators.content import Segments
from sim.cli import main
from sim.cli.app import FAULT
from sim.costs.calibration import load_calibration
from sim.costs.load import Load
from sim.costs.power import orders
from sim.costs.shapes import MIXED_TOKENS, Shapes
from sim.decode import testbed as module
from sim.decode.grid import Extent, block_scenes
from sim.decode.model import load
from sim.decode.peaks import peaks_of, shipped_name
from sim.decode.rehearsal import Clocked, prefill_host_s
from sim.decode.scene import Patience, Scene
from sim.decode.series import series
from sim.decode.stage import Stage
from sim.decode.store import KVStore
from sim.decode.testbed import engine_for, rehearsal
from sim.engine.jobs import Job
from sim.engine.plan import Chunk, Plan
from sim.engine.serving import Serving
from sim.results.claims import unused
from sim.setup import prepare
from tests.decode.room import CPU, workload

SMALL = Extent(seats=8, tokens=16, longest=128)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.EXTENTS, "cpu", SMALL)
    monkeypatch.setattr(module, "HOST_GIB", 0.01)


def test_a_calibration_is_measured_written_shown_and_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["calibrate", "--model", "tiny-llama", "--device", "cpu", "--seconds", "-1"]) == FAULT
    assert capsys.readouterr().err == "--seconds -1: give seconds to measure, at least 0\n"
    assert main(["calibrate", "--model", "tiny-lama", "--device", "cpu"]) == FAULT
    assert capsys.readouterr().err.startswith("model: tiny-lama is neither shipped nor ")  # and no empty line before
    assert main(["calibrate", "--model", "tiny-llama", "--device", "cpu", "--seconds", "0", "--out", "c.toml"]) == 0
    shown = capsys.readouterr().out
    found = load_calibration(Path("c.toml"))
    for point in found.points:
        assert point.name in shown
    assert "residual" in shown
    assert "median error" in shown
    assert {point.route for point in found.points} == {"blocks", "tensors", "recompute"}
    alike = {point.name: point.load for point in found.points if point.load.decode_repeated}
    assert alike.keys() == {"decode 2 x 30, 2 alike", "decode 8 x 30, 8 alike", "decode 8 x 30, 2 alike"}
    assert alike["decode 8 x 30, 2 alike"].decode_repeated == 4 * 16
    assert {"step_overhead_s", "pcie_efficiency"} <= {*found.fitted}
    assert found.peaks.keys() == {"memory_gib", "bandwidth_tbps", "bf16_tflops"}

    assert main(["calibrate", "--refit", "c.toml", "--out", "d.toml", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in document["steps"]] == [point.name for point in found.points]
    assert load_calibration(Path("d.toml")).points == found.points

    for given in (["--refit", "c.toml"], ["--model", "tiny-llama", "--device", "cpu"]):
        assert main(["calibrate", *given, "--out", "d.toml"]) == FAULT  # said before anything is measured
        assert capsys.readouterr().err == "d.toml: exists already; give another name, or --force to replace it\n"
    Path("d.toml").write_text("", encoding="utf-8")
    assert main(["calibrate", "--refit", "c.toml", "--out", "d.toml", "--force"]) == 0
    assert load_calibration(Path("d.toml")).points == found.points
    assert unused(Path("e.toml")) == Path("e.toml")
    assert unused(Path("d.toml")) == Path("d-2.toml")

    settings = [
        "--set",
        "costs.calibration=c.toml",
        "--set",
        f"device={json.dumps({**found.peaks, 'kv_memory_gib': 0.01})}",
    ]
    assert main(["run", "quickstart", "--set", "model=tiny-llama", "--set", "requests.count=5", *settings]) == 0


def test_one_of_two_things_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate"]) == 2
    assert "give either --model, to measure, or --refit" in capsys.readouterr().err


def test_points_carry_the_load_of_their_steps() -> None:
    stage = make_stage({"kind": "paged", "block_size": 4})
    point = stage.measure(Scene("mixed", (10, 20), ((5, 3),)), Patience(warmup=1, most=3, seconds=0, least=3))
    assert point.load.heat_ns > 0, "no decodes before it, but others like it"
    assert point.load._replace(heat_ns=0) == Load(
        prefill_tokens=3,
        prefill_pairs=3 * 5 + 6,
        prefill_context=8,
        prefill_seqs=1,
        decode_seqs=2,
        decode_context=10 + 20 + 2 * 3,  # the third of four steps
        samples=3,
        decode_longest=20 + 3,
    )
    assert point.measured_s > 0
    stage.allocator.check()
    assert stage.allocator.usage().held == 0


def watched(stage: Stage) -> list[bool]:
    """Let each step of a stage be told to take a microsecond more than the last; lists which of them have chunks."""
    seen: list[bool] = []
    run = stage._executor.run

    def told(plan: Plan, serving: Serving) -> int:
        seen.append(bool(plan.chunks))
        run(plan, serving)
        return 1000 * len(seen)

    stage._executor.run = told  # type: ignore[method-assign]  # a stand-in for the device's clock
    return seen


def test_steps_in_a_row_are_run_and_the_last_one_counts() -> None:
    stage = make_stage({"kind": "paged", "block_size": 4})
    seen = watched(stage)
    point = stage.measure(Scene("row", (4,), ((0, 3),), 2, 3), Patience(warmup=1, most=2, seconds=0, least=1))
    assert seen == [False, False, True, True, True] * 2
    assert point.measured_s == pytest.approx(10e-6)
    assert (point.load.heat_ns, point.load.behind_ns) == (8000 + 9000, 0)
    assert point.load.decode_context == 4 + 5 + 5
    row = stage.measure(Scene("in a row", chunks=((0, 3),)), Patience(warmup=1, most=2, seconds=0, least=1))
    assert row.load.heat_ns == 11_000, "no decodes before it"


def test_series_say_what_ran_and_what_was_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make_stage({"kind": "paged", "block_size": 4})
    monkeypatch.setattr(stage, "times", lambda _, prefills: np.where(prefills, 0.1, 0.004))
    found = series(stage, Extent(seats=8, tokens=100, longest=128), 15)
    assert {(each.tokens, each.launched) for each in found} == {(10, False), (20, True)}
    assert [each.order for each in found] == [*orders(0.1, 0.004)] * 2
    for each in found:
        assert each.seconds == [0.1 if step == "p" else 0.004 for step in each.order]


def test_steps_can_be_run_in_any_order() -> None:
    stage = make_stage({"kind": "paged", "block_size": 4})
    seen = watched(stage)
    order = [False, True, True, False, True]
    assert stage.times(Scene("row", (4, 4), ((0, 3),)), order) == pytest.approx(np.arange(1, 6) / 1e6)
    assert seen == order
    assert stage.allocator.usage().held == 0


def test_no_sequence_grows_in_a_series() -> None:
    stage = make_stage({"kind": "paged", "block_size": 4})
    held: list[tuple[list[int], int]] = []
    run = stage._executor.run

    def watched(plan: Plan, serving: Serving) -> int:
        decoding = serving.decoding
        held.append((decoding.column(decoding.LENGTH).tolist(), serving.allocator.usage().held))
        return run(plan, serving)

    stage._executor.run = watched  # type: ignore[method-assign]  # looks on, and runs what it stands for
    stage.times(Scene("row", (3, 4), ((0, 3),)), [False, True] * 9)
    assert held == [([3, 4], (1 + 2 + 1) * 4)] * 18, "4 tokens need a second block for the next one"


def test_sequences_that_are_alike_hold_the_same_blocks() -> None:
    stage = make_stage({"kind": "paged", "block_size": 4})
    seen: list[tuple[list[list[int]], int]] = []
    run = stage._executor.run

    def watched(plan: Plan, serving: Serving) -> int:
        table, rows = serving.allocator.table, serving.decoding.column(serving.decoding.ROW)
        seen.append(([table.row(row)[:3].tolist() for row in rows.tolist()], serving.allocator.usage().saved))
        return run(plan, serving)

    stage._executor.run = watched  # type: ignore[method-assign]  # looks on, and runs what it stands for
    point = stage.measure(Scene("alike", (14,) * 5, alike=2, shared=10), Patience(warmup=1, most=3, least=3))
    assert point.load == Load(
        decode_seqs=5, decode_context=5 * 14 + 5 * 3, samples=5, decode_repeated=2 * 8, decode_longest=17
    )
    assert [saved for _, saved in seen] == [2 * 8] * 4
    for blocks, _ in seen:
        assert [len({row[place] for row in blocks}) for place in range(3)] == [3, 3, 5], "10 tokens fill 2 blocks"
    stage.allocator.check()
    assert stage.allocator.usage().held == 0
    assert (stage._serving.tokens, stage._serving.context) == (0, 0)
    again = stage.measure(Scene("mixed", (9, 9), ((0, 3),), alike=2, shared=8), Patience(warmup=0, most=3, least=3))
    assert (again.load.prefill_tokens, again.load.decode_seqs, again.load.decode_repeated) == (3, 2, 8)


@pytest.mark.parametrize("kind", ["growing", "no-cache"])
def test_tensors_and_nothing_are_measured_too(kind: str) -> None:
    stage = make_stage({"kind": kind})
    point = stage.measure(Scene("decode", (10, 20)), Patience(warmup=0, most=3, least=3, seconds=0))
    if kind == "growing":
        assert (point.route, point.load.decode_context) == ("tensors", 34)
        assert point.load.copied_tokens > 0
    else:
        assert (point.route, point.load.prefill_tokens) == ("recompute", 34)


def test_a_rehearsal_clocks_the_host_where_there_are_prefills(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1000, 10_000, 1000))
    monkeypatch.setattr("sim.decode.rehearsal.time.perf_counter_ns", lambda: next(now))

    class Waiting:
        waited = 0

        def run(self, plan: Plan, serving: Serving) -> int:
            self.waited += 300 if plan.chunks else 700
            return 5

    stage = make_stage({"kind": "paged", "block_size": 4})
    clocked = Clocked(Waiting())  # type: ignore[arg-type]  # a stand-in for an executor
    job = Job(0, 0, 9, 9, 1, Segments([], 0))
    for plan in (Plan(chunks=[Chunk(job, 0, 5)]), Plan(1), Plan(1, [Chunk(job, 5, 4)]), Plan(2)):
        assert clocked.run(plan, Serving(stage.allocator)) == 5
    assert clocked.prefills == [1000 - 300]  # what came before the first step is not known


def test_a_rehearsal_serves_the_model_that_is_calibrated() -> None:
    setup = prepare(rehearsal(engine_for("tiny-llama", None, peaks_of(CPU), "paged", SMALL)))
    assert setup.workload.engine.max_num_seqs == 32
    decoder = load("tiny-llama", setup.geometry, CPU)
    assert 0 < prefill_host_s(decoder, setup.workload, "torch") < 10


def test_swaps_really_move_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    monkeypatch.setattr(KVStore, "swap_out", lambda _, moves: moved.append(len(list(moves))))
    stage = make_stage({"kind": "paged", "block_size": 4, "host_blocks": 20})
    point = stage.measure(Scene("out", (10,), out=7), Patience(warmup=1, most=3, least=3))
    assert moved == [7] * 4
    assert (point.load.transfers, point.load.swapped_bytes) == (7, 7 * 4 * stage_token_bytes())


def test_what_does_not_fit_is_known() -> None:
    stage = make_stage({"kind": "paged", "block_size": 4, "host_blocks": 3})
    assert stage.fits(Scene("small", (10, 20)))
    assert not stage.fits(Scene("too long", (80,)))
    assert not stage.fits(Scene("too many", (1,) * 9))
    assert not stage.fits(Scene("too much swapped", (1,), out=4))


def make_stage(allocator: dict[str, object]) -> Stage:
    setup = prepare(workload("tiny-llama", allocator, kv_kib=2048))
    decoder = load("tiny-llama", setup.geometry, CPU)
    return Stage(decoder, setup, backend="torch", longest=32, seats=8)


def stage_token_bytes() -> int:
    return prepare(workload("tiny-llama", {"kind": "paged"})).geometry.kv_bytes_per_token


def test_steps_that_show_how_long_launches_take_are_held_by_no_graph_and_compute_little() -> None:
    launched = [scene for scene in block_scenes(Extent(256, 8192, 4096)) if scene.name.startswith("prefill 9 x 25")]
    assert [scene.behind > 0 for scene in launched] == [True, False]
    for scene in launched:
        tokens = sum(count for _, count in scene.chunks)
        assert Shapes(256, 8192).fit(len(scene.decodes), tokens, len(scene.chunks)) is None
        assert tokens < MIXED_TOKENS[-1] / 4


def test_the_grid_reaches_as_far_as_it_says() -> None:
    scenes = block_scenes(Extent(256, 8192, 4096))
    assert len({scene.name for scene in scenes}) == len(scenes)
    assert max(len(scene.decodes) for scene in scenes) == 256
    assert 4096 < max(sum(tokens for _, tokens in scene.chunks) for scene in scenes) <= 8192
    assert max(start + tokens for scene in scenes for start, tokens in scene.chunks) <= 4096
    assert any(scene.decodes and scene.chunks for scene in scenes)


def test_devices_are_known_by_what_they_call_themselves() -> None:
    assert shipped_name("NVIDIA H100 80GB HBM3") == "h100-80gb"
    assert shipped_name("NVIDIA H200") == "h200"
    assert shipped_name("NVIDIA GeForce RTX 4090") == "rtx-4090"
    assert shipped_name("NVIDIA H100 PCIe") is None
    assert all(value > 0 for value in peaks_of(torch.device("cpu")).values())
