"""`run`: what it leaves and what it prints."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis.reading import open_directory
from sim.cli import main
from sim.cli.app import DONE, FAULT
from sim.models.shipped import read_config
from tests.small import SMALL

Capture = pytest.CaptureFixture[str]


def test_what_differs_between_replications_is_noted_of_the_first_and_said_to_be(
    workload: Path, capsys: Capture
) -> None:
    session = "requests.session={kind: turns, turns: {kind: gamma, mean: 6, cv: 1}}"
    line = [str(workload), "--set", session, "--set", "requests.count=60", "--quiet"]
    assert main(["run", *line, "--out", "x", "--repeat", "3"]) == 0
    (note,) = json.loads(Path("x/manifest.json").read_text(encoding="utf-8"))["notes"]
    capsys.readouterr()
    assert main(["check", *line[:-1], "--json"]) == 0
    (first,) = json.loads(capsys.readouterr().out)["requests"]["notes"]
    assert "sessions end early" in first
    assert note == f"{first} (replication 1 of 3)"


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


@pytest.mark.parametrize("command", ["run", "check"])
def test_labels_that_differ_in_case_alone_would_share_a_folder_on_some_machines(
    command: str, workload: Path, capsys: Capture
) -> None:
    labels = ["--set", "allocators=[{kind: paged, label: A}, {kind: ideal, label: a}]"]
    assert main([command, str(workload), *labels]) == FAULT
    assert "allocators: two labels give the same folder name" in capsys.readouterr().err
    assert not Path("runs/small").exists()


@pytest.mark.parametrize("label", ["manifest.json", "Summary.json", "report.html"])
def test_a_folder_has_no_name_of_a_file_beside_it(label: str, workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--set", f"allocators=[{{kind: paged, label: {label}}}]"]) == FAULT
    assert f"allocators: {label.lower()} is the name of a file of the results" in capsys.readouterr().err
    assert not Path("runs/small").exists()


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


@pytest.mark.parametrize(("condensed", "seen"), [(10_000, range(7, 21)), (131 * 5, range(2, 6)), (130, range(1, 3))])
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


def test_a_run_that_stops_early_has_as_many_snapshots_as_one_that_does_not(workload: Path) -> None:
    seen = {}
    for horizon in ("null", "0.5"):
        changes = ("telemetry.instants=8", f"horizon_s={horizon}", "requests.arrivals={kind: poisson, rate: 20}")
        settings = [word for change in changes for word in ("--set", change)]
        assert main(["run", str(workload), "--out", horizon, "--quiet", *settings]) == 0
        times = pq.read_table(Path(horizon, "paged", "blocks.parquet"), columns=["time_s"])["time_s"].to_pylist()
        seen[horizon] = len(set(times)), max(times)
    assert seen["0.5"][0] >= 4
    assert seen["0.5"][1] < seen["null"][1] / 2


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


def test_a_name_of_any_letters_stays_below_runs(workload: Path, capsys: Capture) -> None:
    name = "../../what: a/name?"
    assert main(["run", str(workload), "--quiet", "--set", f"name={name!r}"]) == 0
    capsys.readouterr()
    assert [path.name for path in Path("runs").iterdir()] == ["what-a-name"]


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
