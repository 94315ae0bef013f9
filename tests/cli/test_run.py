"""`run`: what it leaves, what it prints, what it refuses, and how it goes on after an interruption."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis.reading import open_directory
from sim.cli import main
from sim.cli.app import DONE, FAULT, INTERRUPTED
from sim.models.shipped import read_config
from sim.rundir import alone
from sim.serve import Progress
from tests.small import SMALL

Capture = pytest.CaptureFixture[str]


def test_a_run_leaves_its_directory_and_shows_tables(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload)]) == 0
    out, err = capsys.readouterr()
    folder = Path("runs/small")
    assert {path.name for path in folder.iterdir()} == {
        *("manifest.json", "summary.json", "report.html"),
        *("preallocated", "paged"),
    }
    for label in ("preallocated", "paged"):
        assert {"requests.parquet", "steps.parquet", "blocks.parquet"} <= {
            path.name for path in (folder / label).iterdir()
        }
        assert label in out
    assert "runs/small/" in out.splitlines()[-1]
    assert err.splitlines() == ["preallocated: 40 requests", "paged: 40 requests"]


def test_a_run_imports_nothing_that_it_does_not_need(workload: Path) -> None:
    code = "import sys; from sim.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(workload), "--quiet"], capture_output=True, text=True, check=True
    )
    needless = {"numpy.ma", "pandas", "plotly", "pyarrow.compute", "pyarrow.dataset", "rich.progress", "scipy"}
    assert not needless & set(done.stderr.split())


def test_with_a_price_tables_pages_and_comparisons_tell_the_cost(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--quiet"]) == 0
    assert "cost" not in capsys.readouterr().out
    priced = ["--set", "device.price_per_hour=1.8", "--set", "model.tensor_parallel=2", "--out", "priced", "--quiet"]
    assert main(["run", str(workload), *priced]) == 0
    assert "cost: of a million output tokens, at price_per_hour" in " ".join(capsys.readouterr().out.split())
    for entry in json.loads(Path("priced/summary.json").read_text())["runs"]:
        metrics = entry["metrics"]
        assert metrics["cost_per_million_output_tokens"] == pytest.approx(2 * 1.8 / 3600 / metrics["output_tps"] * 1e6)
    assert "Cost of a million output tokens" in Path("priced/report.html").read_text()
    assert "Cost of a million output tokens" not in Path("runs/small/report.html").read_text()
    assert (
        "tiny-llama on 2 h100-80gb GPUs · KV pool of 0.512 MiB on each GPU, " in Path("priced/report.html").read_text()
    )
    assert "KiB a token with this model on each GPU." in Path("priced/report.html").read_text()
    assert "tiny-llama on h100-80gb · KV pool of 0.512 MiB, " in Path("runs/small/report.html").read_text()
    dearer = ["--set", "device.price_per_hour=3.6", "--set", "model.tensor_parallel=2", "--out", "dearer", "--quiet"]
    assert main(["run", str(workload), *dearer]) == 0
    capsys.readouterr()
    assert main(["compare", "priced", "dearer"]) == 0
    assert "cost_per_million_output_tokens" in capsys.readouterr().out


def test_the_block_map_is_whole_sampled_or_not_there_as_asked(workload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.engine.blockmap.AT_ONCE", 64)  # so that it is handed on in several pieces
    instants = {}
    for how in ("whole", "sampled", "off"):
        asked = ["--set", f"telemetry={{blocks: {how}, instants: 5}}", "--out", how, "--quiet"]
        assert main(["run", str(workload), *asked]) == 0
        blocks = pq.ParquetFile(Path(how, "paged", "blocks.parquet"))
        instants[how] = set(blocks.read(["time_s"])["time_s"].to_pylist())
        assert (blocks.num_row_groups > 2) is (how == "whole")
    steps = pq.read_table(Path("whole", "paged", "steps.parquet"), columns=["start_s", "running"]).to_pylist()
    starts = {step["start_s"] for step in steps if step["running"]}
    assert len(instants["whole"]) > 40
    assert len(instants["whole"] & starts) > len(starts) / 2  # what one step leaves, the next one finds, if any follows
    assert 2 <= len(instants["sampled"]) <= 5
    assert instants["off"] == set()
    assert [run["metrics"] for run in _runs("whole")] == [run["metrics"] for run in _runs("off")]


def test_sampled_block_maps_list_no_more_runs_of_blocks_than_there_is_memory_for(
    workload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for most in (1_000_000, 40):
        monkeypatch.setattr("sim.engine.blockmap.MOST_BLOCKS", most)
        assert main(["run", str(workload), "--out", str(most), "--quiet"]) == 0
        blocks = pq.read_table(Path(str(most), "paged", "blocks.parquet"), columns=["time_s", "block", "count"])
        found[most] = blocks.to_pylist()
    assert len(found[40]) <= 40 < len(found[1_000_000])
    often, seldom = (sorted({run["time_s"] for run in runs}) for runs in found.values())
    assert 1 < len(seldom) < len(often)


@pytest.mark.parametrize(("condensed", "seen"), [(10_000, range(9, 21)), (131 * 5, range(3, 6)), (130, range(2, 3))])
def test_of_a_pool_full_of_cached_blocks_there_are_as_many_snapshots_as_their_runs_allow(
    workload: Path, monkeypatch: pytest.MonkeyPatch, condensed: int, seen: range
) -> None:
    monkeypatch.setattr("sim.engine.blockmap.MOST_BLOCKS", 100)
    monkeypatch.setattr("sim.engine.blockmap.FEW", 20)
    monkeypatch.setattr("sim.engine.blockmap.MOST_CONDENSED", condensed)
    asked = "allocators=[{kind: paged, prefix_cache: true}]"
    assert main(["run", str(workload), "--out", "x", "--quiet", "--set", asked]) == 0
    blocks = pq.read_table("x/paged/blocks.parquet").to_pylist()
    snapshots = {run["time_s"] for run in blocks}
    assert len(blocks) <= 100
    assert len(snapshots) in seen


def _runs(folder: str) -> list[dict[str, object]]:
    runs: list[dict[str, object]] = json.loads(Path(folder, "summary.json").read_text(encoding="utf-8"))["runs"]
    return runs


def test_json_is_one_document_and_nothing_else(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--json", "--quiet", "--out", "here"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    assert document["out"] == "here"
    assert document["report"] == "here/report.html"
    assert document["runs"] == json.loads(Path("here/summary.json").read_text(encoding="utf-8"))["runs"]
    assert [run["allocator"] for run in document["runs"]] == ["preallocated", "paged"]


def test_a_run_that_can_serve_nothing_says_so(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--out", "x", "--set", "requests.lengths.prompt=256"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"paged +REFUSED .* 0/40 ", out)
    assert "all: 40 of 40 requests refused (40 longer than max_model_len)" in out
    assert "STABLE" not in out
    page = Path("x/report.html").read_text(encoding="utf-8")
    assert "REFUSED" in page
    assert "could not serve a single request." in page
    assert "Its pool stayed empty." in page


def test_what_was_assumed_and_cut_stands_under_the_tables(workload: Path, capsys: Capture) -> None:
    Path("t.csv").write_text("arrival_ms,prompt_tokens,output_tokens\n0,200,9\n500,200,99\n", encoding="utf-8")
    config = {**read_config("tiny-llama")[1], "model_type": "llama9"}
    Path("config.json").write_text(json.dumps(config), encoding="utf-8")
    settings = ["--set", "requests={trace: t.csv}", "--set", "model=config.json"]
    assert main(["run", str(workload), "--out", "x", "--quiet", *settings]) == 0
    out = capsys.readouterr().out
    assert "all: 1 of 2 outputs cut short where prompt and output reach max_model_len\n" in out
    assert "until the last is done; 2 arrive a second" in " ".join(out.split())
    assert "model type llama9 is not listed: read as a Llama-like decoder" in out
    assert "trace read as csv (your own CSV: " in out
    page = Path("x/report.html").read_text(encoding="utf-8")
    assert "outputs cut short" in page
    assert "Assumed: model type llama9 is not listed" in page


def test_hits_and_the_slo_have_a_column_where_there_are_any(workload: Path, capsys: Capture) -> None:
    line = ["run", str(workload), "--out", "x", "--quiet", "--set", "allocators=[{kind: paged, prefix_cache: true}]"]
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "in SLO" not in out
    assert "hits" not in out
    line += ["--set", "slo={e2e_s: 0.012}", "--set", "requests.shared=[{tokens: 32}]", "--set", "requests.count=100"]
    assert main([*line, "--force"]) == 0
    out = capsys.readouterr().out
    columns = pq.read_table("x/paged/requests.parquet").to_pydict()
    good = [
        finish - arrival <= 0.012 for finish, arrival in zip(columns["finish_s"], columns["arrival_s"], strict=True)
    ]
    assert 0 < sum(good) < 100
    hits = 100 * sum(columns["cached_tokens"]) / sum(columns["prompt_tokens"])
    latency, memory = out.partition("Latency")[2].split("Memory")
    assert re.search(rf"paged .* {sum(good):.1f} *\n", latency)
    assert re.search(rf"paged .* {hits:.1f} *\n", memory)
    page = Path("x/report.html").read_text(encoding="utf-8")
    assert "Goodput, within the SLO" in page
    assert "Prefix hits" in page


def test_the_size_of_the_pool_stands_under_the_memory_table(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--out", "x", "--quiet"]) == 0
    manifest = json.loads(Path("x/manifest.json").read_text(encoding="utf-8"))
    sizes = {run["capacity"] for run in manifest["runs"]}
    assert len(sizes) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert f"% of the pool of {min(sizes):,} to {max(sizes):,} slots, mean over time" in said


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("engine.max_model_len=10000000000000", "engine: preallocated: {} 2,097 blocks and 8 sequences of up to "),
        (f"engine.max_num_seqs={10**22}", "engine: preallocated: {} 2,097 blocks and 10,000,000,"),
        (f"allocators.paged.host_blocks={10**30}", "allocators: paged: {} 131 blocks, 1,000,000,"),
        ("engine.swap_space_gib=1000000000.0", "engine: paged: {} 131 blocks, 262,144,000,"),
    ],
)
def test_tables_too_large_for_this_machine_are_one_line(
    setting: str, said: str, workload: Path, capsys: Capture
) -> None:
    """Whether the system has no room for them, or no array can be so large."""
    assert main(["run", str(workload), "--out", "x", "--quiet", "--set", setting]) == FAULT
    told = capsys.readouterr().err
    assert told.startswith(f"--set {setting}: {said.format('this machine has no memory for the tables of')}")
    assert told.count("\n") == 1


@pytest.mark.parametrize("table", ["steps", "requests"])
def test_a_disk_that_is_full_when_a_table_ends_is_one_line_and_leaves_no_part_of_a_run(
    table: str, workload: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = pq.ParquetWriter.close

    def fill(writer: pq.ParquetWriter) -> None:
        close(writer)
        if Path("x/paged").exists() and ("status" in writer.schema.names) is (table == "requests"):
            raise OSError(errno.ENOSPC, "Error writing bytes to file")

    monkeypatch.setattr(pq.ParquetWriter, "close", fill)
    assert main(["run", str(workload), "--out", "x", "--quiet"]) == FAULT
    assert capsys.readouterr().err == f"x/paged/{table}.parquet: No space left on device\n"
    assert not list(Path("x/paged").iterdir())
    assert Path("x/preallocated/requests.parquet").exists()


def test_a_run_that_ends_before_its_requests_says_so(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--out", "x", "--set", "horizon_s=0.05"]) == 0
    out, err = capsys.readouterr()
    for line in err.splitlines():
        assert re.fullmatch(r"(preallocated|paged): \d+ of 40 requests", line)
    assert len(err.splitlines()) == 2
    assert "unfinished" in out
    assert "the last is done" not in out


def test_the_command_line_changes_the_file(workload: Path, capsys: Capture) -> None:
    line = ["run", str(workload), "--out", "x", "--seed", "7", "--repeat", "2", "--set", "requests.count=5"]
    assert main([*line, "--set", "allocators.1.block_size=4"]) == 0
    manifest = json.loads(Path("x/manifest.json").read_text(encoding="utf-8"))
    assert (manifest["seed"], manifest["repeat"]) == (7, 2)
    assert manifest["workload"]["requests"]["count"] == 5
    assert [run["block_size"] for run in manifest["runs"]] == [1, 4, 1, 4]
    assert capsys.readouterr().err.splitlines()[-1] == "paged, replication 2 of 2: 5 requests"


def test_the_same_file_and_seed_give_the_same_numbers(workload: Path, capsys: Capture) -> None:
    for out in ("one", "two"):
        assert main(["run", str(workload), "--quiet", "--out", out]) == 0
    capsys.readouterr()
    assert Path("one/summary.json").read_bytes() == Path("two/summary.json").read_bytes()


def test_a_directory_of_something_else_is_left_alone(workload: Path, capsys: Capture) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("precious", encoding="utf-8")
    assert main(["run", str(workload), "--out", "mine"]) == FAULT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mine: ")
    assert err.count("\n") == 1
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.txt"]


def test_a_name_of_any_letters_stays_below_runs(workload: Path, capsys: Capture) -> None:
    name = "../../what: a/name?"
    assert main(["run", str(workload), "--quiet", "--set", f"name={name!r}"]) == 0
    capsys.readouterr()
    assert [path.name for path in Path("runs").iterdir()] == ["what-a-name"]


@pytest.mark.parametrize("out", ["small.yaml", "small.yaml/deeper"])
def test_a_directory_that_cannot_be_made_is_one_line(workload: Path, capsys: Capture, out: str) -> None:
    assert main(["run", str(workload), "--out", out]) == FAULT
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "small.yaml" in err


def test_every_fault_of_a_file_is_a_line_with_its_place(workload: Path, capsys: Capture) -> None:
    text = workload.read_text(encoding="utf-8").replace("kind: paged", "kind: paged, block_sise: 8")
    workload.write_text(text.replace("count: 40", "count: forty"), encoding="utf-8")
    assert main(["run", "small.yaml"]) == FAULT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "small.yaml:5:19: requests.count: must be a whole number, got 'forty'",
        "small.yaml:8:19: allocators.1.block_sise: unknown key (did you mean block_size?)",
    ]
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_trace_format_that_is_none_is_a_line_with_its_place(command: str, workload: Path, capsys: Capture) -> None:
    lines = workload.read_text(encoding="utf-8").splitlines()
    lines[4] = "requests: {trace: mine.csv, format: azur}"
    Path("small.yaml").write_text("\n".join(lines), encoding="utf-8")
    Path("mine.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,9,9\n", encoding="utf-8")
    assert main([command, "small.yaml"]) == FAULT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("small.yaml:5:37: requests.format: unknown trace format azur (did you mean azure?)")


def test_weights_that_do_not_fit_are_one_line_that_says_by_how_much(workload: Path, capsys: Capture) -> None:
    for command in ("run", "check"):
        assert main([command, str(workload), "--set", "model=opt-175b", "--set", "device=l4"]) == FAULT
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert "opt-175b" in err
        assert "GiB" in err


@pytest.mark.parametrize(("horizon_s", "late"), [(0.15, 3), (0.2, 2), (0.25, 2), (9.0, 0)])
def test_requests_that_the_horizon_leaves_out_are_counted(
    horizon_s: float, late: int, workload: Path, capsys: Capture
) -> None:
    rows = "".join(f"{0.1 * number},10,5\n" for number in range(5))
    Path("t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n" + rows, encoding="utf-8")
    setting = ["--set", "requests={trace: t.csv}", "--set", f"horizon_s={horizon_s}"]
    assert main(["run", str(workload), "--out", "x", "--quiet", *setting]) == 0
    told = f"{late} of 5 requests arrive after horizon_s and are in no table"
    assert (told in " ".join(capsys.readouterr().out.split())) == bool(late)
    assert [len(run.requests()["arrival_s"]) for run in open_directory("x").runs] == [5 - late] * 2


def test_resume_does_only_what_is_missing(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--out", "x"]) == 0
    before = Path("x/summary.json").read_bytes()
    shutil.rmtree("x/paged")
    capsys.readouterr()
    assert main(["run", str(workload), "--out", "x", "--resume"]) == 0
    assert capsys.readouterr().err.splitlines() == ["paged: 40 requests"]
    assert Path("x/summary.json").read_bytes() == before


def test_resume_does_everything_again_that_another_version_did(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--out", "x"]) == 0
    manifest = json.loads(Path("x/manifest.json").read_text(encoding="utf-8"))
    Path("x/manifest.json").write_text(json.dumps({**manifest, "kvsim": "0.0.1"}), encoding="utf-8")
    capsys.readouterr()
    assert main(["run", str(workload), "--out", "x", "--resume"]) == 0
    assert len(capsys.readouterr().err.splitlines()) == len(manifest["runs"]) > 1


@pytest.mark.parametrize(
    ("table", "length"), [("steps", None), ("steps", 0), ("steps", 500), ("blocks", 0), ("blocks", 500)]
)
def test_resume_does_a_run_again_that_lacks_a_table_or_has_a_piece_of_it(
    table: str, length: int | None, workload: Path, capsys: Capture
) -> None:
    line = ["run", str(workload), "--out", "x"]
    assert main(line) == 0
    path = Path(f"x/paged/{table}.parquet")
    before = path.read_bytes()
    if length is None:
        path.unlink()
    else:
        path.write_bytes(before[:length])
    capsys.readouterr()
    assert main([*line, "--resume"]) == 0
    assert capsys.readouterr().err.splitlines() == ["paged: 40 requests"]
    assert path.read_bytes() == before


def test_resume_keeps_the_replications_there_are_if_more_or_fewer_are_wanted(workload: Path, capsys: Capture) -> None:
    line = ["run", str(workload), "--out", "x", "--json"]
    assert main([*line, "--repeat", "2"]) == 0
    first = {path: path.read_bytes() for path in Path("x").rglob("*.parquet")}
    summaries = {2: Path("x/summary.json").read_bytes()}
    for repeat, done in ((3, 2), (1, 0), (3, 0), (2, 0)):
        capsys.readouterr()
        assert main([*line, "--repeat", str(repeat), "--resume"]) == 0
        out, err = capsys.readouterr()
        assert len(err.splitlines()) == done, "of two allocators one replication more, or nothing"
        assert [run["repeat"] for run in json.loads(out)["runs"]].count(repeat - 1) == 2
        summary = Path("x/summary.json").read_bytes()
        assert summaries.setdefault(repeat, summary) == summary
    assert {path: path.read_bytes() for path in first} == first
    assert main([*line, "--repeat", "1"]) == FAULT
    ways = "give another --out, --resume to keep its simulations, or --force to replace them"
    assert capsys.readouterr().err == f"x: holds other results (repeat was 2, is 1); {ways}\n"


def test_replications_that_are_listed_no_more_are_not_taken_for_those_of_another_workload(
    workload: Path, capsys: Capture
) -> None:
    line = ["run", str(workload), "--out", "x"]
    assert main([*line, "--repeat", "2"]) == 0
    assert main([*line, "--repeat", "1", "--resume"]) == 0
    assert main([*line, "--seed", "5", "--force"]) == 0
    capsys.readouterr()
    assert main([*line, "--seed", "5", "--repeat", "2", "--resume"]) == 0
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_results_of_a_trace_do_not_give_way_to_those_of_another_of_that_name(
    command: str, resume: list[str], workload: Path, capsys: Capture
) -> None:
    trace = Path("mine.csv")
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,5\n", encoding="utf-8")
    line = [command, str(workload), "--out", "x", "--quiet", "--set", f"requests={{trace: {trace}}}"]
    assert main(line) == 0
    before = _files("x")
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,6\n", encoding="utf-8")
    capsys.readouterr()
    assert main([*line, *resume]) == FAULT
    assert re.fullmatch(
        r"x: holds other results \(files\.\S*mine\.csv was \w+, is \w+\); give another --out, or --force .*\n",
        capsys.readouterr().err,
    )
    assert _files("x") == before
    assert main([*line, *resume, "--force"]) == 0
    assert _files("x") != before


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_manifest_of_something_else_stays(command: str, workload: Path, capsys: Capture) -> None:
    Path("x").mkdir()
    Path("x/manifest.json").write_text('{"name": "an app"}', encoding="utf-8")
    Path("x/report.html").write_text("mine", encoding="utf-8")
    before = _files("x")
    for force in ([], ["--force"]):
        assert main([command, str(workload), "--out", "x", "--quiet", *force]) == FAULT
        said = "is not of kvsim, which would replace it; give another --out"
        assert capsys.readouterr().err == f"x/manifest.json: {said}\n"
        assert _files("x") == before


def _files(folder: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("out", [[], ["--out", "x"]])
@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("seed=5", "seed was 0, is 5"),
        ("requests.arrivals.rate=300", "requests.arrivals.rate was 400.0, is 300.0"),
        ("allocators.paged.block_size=8", "allocators.1.block_size was unset, is 8"),
        ("allocators=[{kind: paged}]", "allocators differs"),
    ],
)
def test_only_the_same_workload_replaces_results_unless_forced(
    setting: str, change: str, resume: list[str], out: list[str], workload: Path, capsys: Capture
) -> None:
    line = ["run", str(workload), *out, "--quiet"]
    folder = out[1] if out else "runs/small"
    assert main(line) == 0
    before = _files(folder)
    capsys.readouterr()
    assert main([*line, *resume, "--set", setting]) == FAULT
    refused = f"{folder}: holds other results ({change}); give another --out, or --force to replace them\n"
    assert capsys.readouterr().err == refused
    assert _files(folder) == before
    assert main([*line, *resume, "--set", "remarks=[changes nothing]"]) == 0
    assert main([*line, *resume, "--set", setting, "--force"]) == 0
    assert _files(folder).keys() <= before.keys()
    assert Path(folder, "summary.json").read_bytes() != before[Path(folder, "summary.json")]


def test_a_run_that_finished_nothing_is_nothing_to_lose(workload: Path) -> None:
    assert main(["run", str(workload), "--out", "x", "--quiet"]) == 0
    for table in Path("x").rglob("requests.parquet"):
        table.unlink()
    assert main(["run", str(workload), "--out", "x", "--quiet", "--seed", "5"]) == 0


def test_an_interrupted_run_says_what_it_keeps_and_goes_on(
    workload: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def impatient(*_: object, **__: object) -> Iterator[Callable[[Progress], None]]:
        def interrupt(progress: Progress) -> None:
            if progress.repeat == 1 and progress.label == "paged":
                raise KeyboardInterrupt

        yield interrupt

    line = ["run", str(workload), "--out", "x", "--repeat", "2"]
    with monkeypatch.context() as patched:
        patched.setattr("sim.cli.run.shown", impatient)
        assert main(line) == INTERRUPTED
    assert capsys.readouterr() == ("", "interrupted; 3 of 4 runs are complete in x, --resume keeps them\n")
    assert not Path("x/summary.json").exists()
    assert main([*line, "--resume"]) == 0
    assert capsys.readouterr().err == "paged, replication 2 of 2: 40 requests\n"
    assert len(json.loads(Path("x/summary.json").read_text(encoding="utf-8"))["runs"]) == 4


def test_what_an_earlier_file_left_is_no_part_of_an_interrupted_run(
    workload: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def impatient(*_: object, **__: object) -> Iterator[Callable[[Progress], None]]:
        def interrupt(progress: Progress) -> None:
            if progress.label == "paged":
                raise KeyboardInterrupt

        yield interrupt

    assert main(["run", str(workload), "--out", "x", "--quiet", "--repeat", "2"]) == 0
    Path("x/paged/notes.txt").touch()
    other = ["run", str(workload), "--out", "x", "--seed", "5", "--force"]
    with monkeypatch.context() as patched:
        patched.setattr("sim.cli.run.shown", impatient)
        assert main(other) == INTERRUPTED
    assert "1 of 2 runs is complete" in capsys.readouterr().err
    assert {str(path) for path in Path("x").rglob("*") if path.is_file()} == {
        *("x/manifest.json", "x/paged/notes.txt"),
        *(f"x/preallocated/{table}.parquet" for table in ("requests", "steps", "blocks", "events")),
    }
    assert main([*other, "--resume"]) == 0
    assert main([*other[:2], "--out", "y", "--seed", "5"]) == 0
    assert Path("x/summary.json").read_bytes() == Path("y/summary.json").read_bytes()


def test_two_runs_do_not_write_into_one_directory(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--out", "x", "--quiet"]) == 0
    before = _files("x")
    capsys.readouterr()
    other = ["run", str(workload), "--out", "x", "--quiet", "--seed", "5", "--force"]
    with alone(Path("x")):
        assert main(other) == FAULT
    assert capsys.readouterr().err == "x: another run is writing into it; give another --out\n"
    assert _files("x") == before
    assert main(other) == 0


def test_a_run_takes_no_directory_of_a_sweep(workload: Path, capsys: Capture) -> None:
    assert main(["sweep", str(workload), "--out", "x", "--quiet"]) == 0
    before = _files("x")
    capsys.readouterr()
    assert main(["run", str(workload), "--out", "x"]) == FAULT
    assert capsys.readouterr().err == "x: holds sweep results, not run results; give another --out\n"
    assert _files("x") == before
    Path("x/manifest.json").write_text("{", encoding="utf-8")
    assert main(["run", str(workload), "--out", "x"]) == FAULT
    why = "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    assert capsys.readouterr().err == f"x/manifest.json: not readable as JSON: {why}; give another --out\n"


@pytest.mark.usefixtures("heeding_interrupts")
def test_control_c_ends_a_run_with_the_usual_status(workload: Path) -> None:
    line = [sys.executable, "-m", "sim", "run", str(workload), "--out", "x", "--set", "requests.count=100000"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not Path("x/manifest.json").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "interrupted; none of 2 runs was finished\n"
    assert process.returncode == INTERRUPTED


def test_a_terminal_shows_a_bar_for_each_allocator_by_its_name_whatever_it_is(workload: Path) -> None:
    primary, secondary = pty.openpty()
    line = [sys.executable, "-m", "sim", "run", str(workload), "--set", "allocators.1.label='[red]x[/nope]'"]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=secondary, env=environment) as process:
        os.close(secondary)
        shown = b""
        with suppress(OSError):  # how a pseudo-terminal says that the other end is closed
            while read := os.read(primary, 65536):
                shown += read
    os.close(primary)
    assert process.returncode == 0, shown
    for words in (b"preallocated", b"[red]x[/nope]", b"40/40"):
        assert words in shown


def test_a_bug_shows_its_traceback(workload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sim.cli.run.run_workload", broken)
    with pytest.raises(ZeroDivisionError):
        main(["run", str(workload)])


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(
    ("option", "message"),
    [("--repeat 0", "must be at least 1, got 0"), ("--seed -1", "must be at least 0, got -1")],
)
def test_a_bad_number_is_told_as_it_was_given(
    workload: Path, command: str, option: str, message: str, capsys: Capture
) -> None:
    assert main([command, str(workload), *option.split()]) == FAULT
    assert capsys.readouterr().err == f"{option}: {message}\n"


def test_replications_that_are_all_alike_are_told(workload: Path, capsys: Capture) -> None:
    rows = "".join(f"{at / 400},24,{8 + at % 9}\n" for at in range(20))
    Path("trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n" + rows, encoding="utf-8")
    alike = "replications are all alike"
    for settings, repeat, told in (
        (["--set", "requests={trace: trace.csv}"], "2", True),
        (["--set", "requests={trace: trace.csv}"], "1", False),
        ([], "2", False),
    ):
        assert main(["run", str(workload), "--quiet", "--repeat", repeat, *settings, "--force"]) == 0
        assert (alike in " ".join(capsys.readouterr().out.split())) is told


def test_on_a_narrow_terminal_sentences_fit_and_figures_are_whole(
    workload: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    doubted = ["--set", "engine.max_model_len=600", "--set", "device.kv_memory_gib=0.01", "--set", "slo.ttft_s=1"]
    assert main(["run", str(workload), "--quiet", *doubted]) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    tables, notes = shown[: shown.index("max_model_len 600")], shown[shown.index("max_model_len 600") :]
    assert max(map(len, tables.splitlines())) > 60
    assert max(len(line) for line in notes.splitlines() if not line.startswith("Written")) <= 60


@pytest.mark.parametrize(
    "line",
    [
        ["run", "small.yaml", "--set", "engine.max_num_seqs=a\nb"],
        ["run", "small.yaml", "--set", "foo\nbar=3"],
        ["run", "small.yaml", "--repeat", "x\ny"],
        ["run", "no\nfile.yaml"],
        ["run", "small.yaml", "--fo\rce"],
        ["check", "small.yaml", "--set", "device.name=h100\x1b[31m"],
        ["report", "no\u2028where"],
        ["compare", "a\x85b"],
        ["capacity", "small.yaml", "--slo", "a\nb=2"],
        ["sweep", "small.yaml", "--vary", "a\vb"],
        ["advise", "small.yaml", "--allocator", "pa\nged"],
        ["trace", "describe", "a\nb"],
        ["replay", "a\nb"],
        ["new", "a\u202eb"],
        ["list", "a\nb"],
        ["a\nb"],
    ],
)
@pytest.mark.usefixtures("workload")
def test_an_error_is_one_line_whatever_it_quotes(line: list[str], capsys: Capture) -> None:
    assert main(line) == FAULT
    said = capsys.readouterr().err
    assert said.endswith("\n")
    assert said[:-1].isprintable()


def test_every_fault_of_a_file_has_its_own_line_whatever_it_quotes(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--set", "a\nb=1", "--set", "c\td=2"]) == FAULT
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(r"--set a\nb=1: ")
    assert second.startswith(r"--set c\td=2: ")


def test_what_was_written_is_told_in_one_line(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--quiet", "--out", "two\nlines"]) == DONE
    assert r"Written: two\nlines/ with summary.json" in capsys.readouterr().out


def test_a_run_of_variants_writes_the_page_that_lists_them(workload: Path, capsys: Capture) -> None:
    variants = "variants:\n  - {label: slow}\n  - {label: fast, set: {requests.arrivals.rate: 800}}\n"
    workload.write_text(SMALL + variants, encoding="utf-8")
    assert main(["run", str(workload), "--quiet", "--out", "x"]) == DONE
    assert "Written: x/ with index.html and a run directory for each variant" in capsys.readouterr().out
    page = Path("x/index.html")
    assert re.findall(r'href="([^"]+/report.html)"', page.read_text(encoding="utf-8")) == [
        "slow/report.html",
        "fast/report.html",
    ]
    assert main(["run", str(workload), "--quiet", "--json", "--resume", "--out", "x"]) == DONE
    assert json.loads(capsys.readouterr().out)["report"] == "x/index.html"
    assert main(["report", "x", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["written"] == ["x/index.html"]
