"""A sweep: what it computes, what it keeps, and what it says of cells that fail."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis.reading import open_directory
from sim.cli import main
from sim.cli.app import FAILED, FAULT
from sim.planner.backends import make
from sim.planner.grid import Base
from sim.planner.job import Failed, work
from sim.planner.sweep import estimate, sweep
from sim.results.rundir import alone
from tests.planner.conftest import GRID, LINE

Capture = pytest.CaptureFixture[str]


def test_a_cell_is_what_a_run_of_that_file_gives(base: Base, capsys: Capture) -> None:
    sweep(base, base.axes(GRID), Path("x"), make())
    rows = pq.read_table("x/results.parquet").to_pylist()
    assert len(rows) == 2 * 2 * 2 * 2  # two values each, two allocators, two replications
    changes = ["requests.arrivals.rate=800", "allocators.1.block_size=4", "telemetry.blocks=off"]
    assert (
        main(["run", "small.yaml", "--quiet", "--repeat", "2", "--out", "one", *(f"--set={one}" for one in changes)])
        == 0
    )
    capsys.readouterr()
    for entry in open_directory("one").summary():
        (row,) = (
            row
            for row in rows
            if (row["requests.arrivals.rate"], row["allocators.paged.block_size"]) == (800, 4)
            and (row["allocator"], row["repeat"]) == (entry["allocator"], entry["repeat"])
        )
        assert row["verdict"] == entry["verdict"]
        for name in ("throughput_rps", "goodput_rps"):
            assert row[name] == entry["metrics"][name]
        assert row["ttft_s"] == entry["metrics"]["ttft_s"]["mean"]
        assert row["ttft_s.p99"] == entry["metrics"]["ttft_s"]["p99"]
        assert row["batch_size.peak"] == entry["metrics"]["batch_size"]["peak"]


def test_cells_share_their_random_numbers_and_what_they_have_in_common(base: Base) -> None:
    grid = list(base.points(base.axes(GRID)))
    keys = [[job.key for job in base.jobs(point.workload, 2)] for point in grid]
    assert keys[0][:2] == keys[1][:2]  # preallocation does not know the block size of paging
    assert keys[0][2:] != keys[1][2:]
    assert len({key for some in keys for key in some}) == 2 * 2 + 4 * 2


def test_the_key_of_a_job_is_what_its_result_depends_on(base: Base, workload: Path) -> None:
    def key(*settings: str) -> str:
        other = Base(str(workload), settings)
        return other.job(other.workload, 1, 0).key

    assert key() == key("name=other") == key("repeat=5") == key("allocators.1.label=mine")
    assert len({key(), key("seed=1"), key("slo.ttft_s=2"), key("engine.max_num_seqs=4")}) == 4
    assert base.job(base.workload, 1, 0).key != base.job(base.workload, 1, 1).key


def test_a_data_file_that_changes_makes_another_job(workload: Path) -> None:
    trace = Path("trace.csv")
    block = f"requests={{trace: {trace}}}"

    def key(row: str) -> str:
        trace.write_text(f"arrival_s,prompt_tokens,output_tokens\n{row}\n", encoding="utf-8")
        base = Base(str(workload), [block])
        return base.job(base.workload, 0, 0).key

    assert key("0,10,5") == key("0,10,5")
    assert key("0,10,5") != key("0,10,6")


def test_results_do_not_depend_on_how_many_processes_there_are(base: Base) -> None:
    over = base.axes(GRID)
    sweep(base, over, Path("one"), make())
    two = make("loky", 2)
    try:
        sweep(base, over, Path("two"), two)
    finally:
        two.close()
    for name in ("results.parquet", "summary.json"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


@pytest.mark.usefixtures("workload")
def test_resume_does_only_the_rest_and_a_grid_may_grow(capsys: Capture) -> None:
    assert main(LINE) == 0
    before = Path("x/results.parquet").read_bytes()
    cells = sorted(Path("x/cells").iterdir())
    for cell in cells[:3]:
        cell.unlink()
    kept = {cell.name: cell.stat().st_mtime_ns for cell in cells[3:]}
    capsys.readouterr()
    assert main([*LINE, "--resume"]) == 0
    assert "9 of 12 simulations are there already" in capsys.readouterr().err
    assert {cell.name: cell.stat().st_mtime_ns for cell in cells[3:]} == kept
    assert Path("x/results.parquet").read_bytes() == before
    assert main([*LINE, "--vary", "engine.max_num_seqs=4,8", "--resume"]) == 0
    assert "12 of 24 simulations are there already" in capsys.readouterr().err
    assert main([*("3" if word == "2" else word for word in LINE), "--resume"]) == 0
    assert "12 of 18 simulations are there already" in capsys.readouterr().err


@pytest.mark.usefixtures("workload")
def test_resume_does_again_what_is_not_whole(capsys: Capture) -> None:
    assert main(LINE) == 0
    summary = Path("x/summary.json").read_bytes()
    cells = sorted(Path("x/cells").iterdir())
    for cell, damaged in zip(cells, (b"", cells[1].read_bytes()[:100], b"\xff", b"{}", b"[1]"), strict=False):
        cell.write_bytes(damaged)
    capsys.readouterr()
    assert main([*LINE, "--resume"]) == 0
    assert f"{len(cells) - 5} of {len(cells)} simulations are there already" in capsys.readouterr().err
    assert Path("x/summary.json").read_bytes() == summary


@pytest.mark.usefixtures("workload")
@pytest.mark.parametrize(
    "command", [LINE[:4], ["capacity", "small.yaml", "--slo", "ttft_s.p99=1"], ["advise", "small.yaml"]]
)
def test_two_at_once_do_not_write_into_one_directory(command: list[str], capsys: Capture) -> None:
    out = Path("x")
    out.mkdir()
    with alone(out):
        assert main([*command, "--out", "x"]) == FAULT
    assert capsys.readouterr().err.splitlines()[-1] == "x: another run is writing into it; give another --out"
    assert not list(out.iterdir())


def test_resume_refuses_what_is_not_its_own(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--out", "x", "--quiet"]) == 0
    assert main(LINE) == FAULT
    assert capsys.readouterr().err == "x: holds run results, not sweep results; give another --out\n"
    assert main([*LINE[:-1], "y", "--quiet"]) == 0
    capsys.readouterr()
    assert main([*LINE[:-1], "y", "--resume", "--seed", "5"]) == FAULT
    refused = "y: holds other results ({}); give another --out, or --force to replace them\n"
    assert refused.format("seed was 0, is 5") in capsys.readouterr().err
    assert main([*LINE[:-1], "y", "--vary", "seed=1,2"]) == FAULT
    ways = "give another --out, --resume to keep its simulations, or --force to replace them"
    assert capsys.readouterr().err == f"y: holds other results (vary differs); {ways}\n"
    assert main([*LINE[:-1], "y", "--quiet"]) == 0  # the same again
    assert main([*LINE[:-1], "y", "--quiet", "--seed", "5", "--force"]) == 0
    capsys.readouterr()
    Path("z").mkdir()
    Path("z/notes.txt").touch()
    assert main([*LINE[:-1], "z"]) == FAULT
    assert "holds other files" in capsys.readouterr().err


def test_a_cell_that_fails_is_reported_and_stops_no_other(workload: Path, capsys: Capture) -> None:
    line = ["sweep", str(workload), "--vary", "device.kv_memory_gib=0.0005,0.0000001", "--out", "x", "--quiet"]
    assert main([*line, "--json"]) == FAILED
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert err == "2 cells failed: x/summary.json says why, under failed\n"
    assert {cell["settings"]["device.kv_memory_gib"] for cell in summary["cells"]} == {0.0005}
    assert [one["allocator"] for one in summary["failed"]] == ["preallocated", "paged"]
    assert all("pool" in one["why"] or "block" in one["why"] for one in summary["failed"])
    assert main(line) == FAILED
    assert "failed: kv_memory_gib=1e-07, preallocated, replication 1: " in capsys.readouterr().out
    alone = [*line[:2], "--vary", "device.kv_memory_gib=0.0000001", "--out", "z", "--quiet"]
    assert main(alone) == FAULT
    assert capsys.readouterr().err.startswith("nothing of it can run; the first: ")
    assert not Path("z").exists()  # or what it held would be lost


def test_what_is_varied_may_be_what_keeps_the_file_from_running(workload: Path, capsys: Capture) -> None:
    line = ["sweep", str(workload), "--set", "model=llama-3.1-70b", "--set", "device=h100-80gb", "--quiet"]
    assert main(line) == FAULT
    said = "--set model=llama-3.1-70b: model: llama-3.1-70b does not fit on h100-80gb: "
    assert capsys.readouterr().err.startswith(said)
    assert not Path("runs").exists()
    assert main([*line, "--vary", "model.tensor_parallel=1,4", "--repeat", "2", "--json"]) == FAILED
    summary = json.loads(capsys.readouterr().out)
    assert [cell["settings"] for cell in summary["cells"]] == [{"model.tensor_parallel": 4}] * 2
    assert [one["where"] for one in summary["failed"]] == [
        f"tensor_parallel=1, {label}, replications 1, 2" for label in ("preallocated", "paged")
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--vary", "model=tiny-llama,tiny-lama"], "--vary model=tiny-lama: model: tiny-lama is neither shipped"),
        (["--vary", "seed=1,2", "--set", "device=b800"], "--set device=b800: device: b800 is not known"),
        (["--vary", "costs.calibration=mine.toml"], "--vary costs.calibration=mine.toml: costs"),
        (["--vary", "seed=1,2", "--set", "requests={trace: none.csv}"], "requests.trace: no such file: none.csv"),
        (["--vary", "requests={trace: t.csv},{trace: empty.csv}"], "empty.csv: "),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_what_is_known_to_be_wrong_is_refused_before_anything_runs(
    words: list[str], said: str, dry: list[str], workload: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,8,8\n", encoding="utf-8")
    Path("empty.csv").write_text("arrival_s,prompt_tokens,output_tokens\n", encoding="utf-8")
    monkeypatch.setattr("sim.planner.job.run_case", lambda *_, **__: pytest.fail("something ran"))
    assert main(["sweep", str(workload), *words, *dry, "--quiet"]) == FAULT
    found = capsys.readouterr().err
    assert said in found
    assert found.count("\n") == 1
    assert not Path("runs").exists()


def test_variants_have_no_part_in_a_sweep_and_that_is_said(workload: Path, capsys: Capture) -> None:
    text = workload.read_text(encoding="utf-8")
    workload.write_text(f"{text}variants:\n  - {{label: fast, set: {{requests.arrivals.rate: 9}}}}\n", encoding="utf-8")
    assert main(["sweep", str(workload), "--quiet"]) == 0
    assert "variants of the file have no part in this: 1 left out" in capsys.readouterr().err


def test_a_bug_in_a_cell_is_a_line_of_the_report(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("sim.planner.job.run_case", broken)
    outcome = work(base.job(base.workload, 0, 0))
    assert outcome == Failed("ZeroDivisionError: by nothing", bug=True)


def test_a_checkout_that_was_never_installed_sweeps_too(workload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> object:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", unknown)
    assert main(["sweep", str(workload), "--out", "x", "--quiet"]) == 0
    assert json.loads(Path("x/manifest.json").read_text())["kvsim"].endswith("+checkout")


def test_a_dry_run_lists_cells_with_an_estimate_and_writes_nothing(workload: Path, capsys: Capture) -> None:
    assert main([*LINE, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "rate=200, block_size=16" in shown
    assert "12 simulations (4 more are shared), about " in shown
    assert main([*LINE, "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["simulations"], document["shared"], len(document["cells"])) == (12, 4, 4)
    assert all(cell["requests"] == 40 for cell in document["cells"])
    assert not Path("x").exists()
    assert workload.exists()


def test_an_estimate_grows_with_the_grid(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    clocked = estimate(base, base.axes(["requests.count=50,60"]), 1)
    assert clocked.seconds > 0
    assert [cell["requests"] for cell in clocked.cells] == [50, 60]
    monkeypatch.setattr("sim.planner.sweep.seconds_per_request", lambda _: 0.25)  # the clock's depend on the machine
    for workers in (1, 2):
        few, many = (estimate(base, base.axes([f"requests.count={count}"]), workers) for count in ("50,60", "500,600"))
        assert few.seconds == 0.25 * few.jobs * (50 + 60) / 2 / workers
        assert many.seconds == 10 * few.seconds


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "0"], "--jobs 0: give a number of processes, or -1 for one a core"),
        (["--jobs", "-2"], "--jobs -2: give a number of processes, or -1 for one a core"),
        (["--address", "127.0.0.1:1"], "--address: loky has no cluster to attach to"),
    ],
)
def test_hands_that_make_no_sense_are_one_line(words: list[str], message: str, workload: Path, capsys: Capture) -> None:
    assert main(["sweep", str(workload), *words]) == FAULT
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(("kind", "package"), [("ray", "ray"), ("dask", "distributed")])
def test_a_cluster_package_that_is_missing_is_one_line(
    kind: str, package: str, workload: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["sweep", str(workload), "--backend", kind]) == FAULT
    said = capsys.readouterr().err
    assert f"pip install {package}" in said
    assert said.count("\n") == 1
