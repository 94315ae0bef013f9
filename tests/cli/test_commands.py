"""The commands beside `run`: what they print for people, and as one JSON document."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from itertools import groupby
from pathlib import Path

import pytest

from allocators import registry
from allocators.ledger import Ledger
from analysis.figures import figure, is_figure
from analysis.reading import open_directory
from analysis.saturation import Verdict
from sim.cli import main
from sim.cli.app import BROKEN_PIPE, FAULT
from sim.cli.topics import TOPICS
from sim.devices import shipped_devices
from sim.models.shipped import shipped_models
from workloads.loader import load, presets

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run_directory(workload: Path, capsys: Capture) -> Path:
    assert main(["run", str(workload), "--out", "one", "--quiet"]) == 0
    capsys.readouterr()
    return Path("one")


# -- check -----------------------------------------------------------------------------------


def test_check_shows_file_pool_and_costs_and_runs_nothing(workload: Path, capsys: Capture) -> None:
    assert main(["check", str(workload)]) == 0
    shown = capsys.readouterr().out
    for part in ("max_num_seqs: 8", "gpu_memory_utilization: 0.9", "131", "2,097", "memory_efficiency"):
        assert part in shown
    assert [path.name for path in Path().iterdir()] == ["small.yaml"]


def test_a_length_that_the_model_is_not_made_for_is_told(workload: Path, capsys: Capture) -> None:
    longer = ["--set", "engine.max_model_len=600", "--set", "device.kv_memory_gib=0.01"]
    note = "max_model_len 600 is more than the 512 tokens that tiny-llama is made for"
    for command in ("check", "run"):
        assert main([command, str(workload), *longer]) == 0
        assert note in " ".join(capsys.readouterr().out.split())
    assert main(["check", str(workload), *longer, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [note]
    assert main(["check", str(workload), "--set", "engine.max_model_len=512", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


def test_a_scheduler_that_has_no_chunks_keeps_to_its_budget_and_says_so(workload: Path, capsys: Capture) -> None:
    """Or `vllm-v0` would compute prompts of any length in one step."""
    lengths = "{kind: uniform, prompt: {min: 1, max: 128}, output: {min: 1, max: 8}}"
    engine = "{scheduler: vllm-v0, max_num_batched_tokens: 64, max_model_len: 256, chunked_prefill: true}"
    asked = ["--set", f"requests.lengths={lengths}", "--set", f"engine={engine}"]
    assert main(["run", str(workload), *asked, "--out", "one", "--quiet"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "engine.chunked_prefill is true, but prompts are computed whole by vllm-v0" in told
    for run, entry in zip((directory := open_directory(Path("one"))).runs, directory.summary(), strict=True):
        assert 0 < run.steps(["prefill_tokens"])["prefill_tokens"].max() <= 64
        assert "longer than a step's token budget" in entry["requests"]["refusals"]


def test_room_that_is_set_aside_for_want_of_a_limit_is_told(workload: Path, capsys: Capture) -> None:
    kinds = "allocators=[preallocated, contiguous, {kind: contiguous, reserve: pow2}, paged, virtual, growing, ideal]"
    unset = ["--set", "engine.max_model_len=null", "--set", kinds, "--set", "device.kv_memory_gib=0.01"]
    assert main(["check", str(workload), *unset, "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "every sequence of preallocated and contiguous gets room for 512 tokens, all that tiny-llama" in note
    assert main(["check", str(workload), *unset, "--set", "engine.max_model_len=512", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


def test_a_length_need_not_be_given_to_allocators_whose_pages_have_many_blocks(workload: Path, capsys: Capture) -> None:
    kinds = "allocators=[ideal, {kind: hybrid, paging: common-multiple}]"
    other = ["model=jamba-v0.1", "device={name: h200, memory_gib: 200}", "engine={}", kinds]
    assert main(["check", str(workload), *(word for each in other for word in ("--set", each)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


def test_check_tells_what_a_calibration_was_measured_on(workload: Path, capsys: Capture) -> None:
    named = ["--set", "costs.calibration=h100-80gb-llama-3.1-8b", "--set", "device.kv_memory_gib=1"]
    assert main(["check", str(workload), *named, "--set", "model=llama-3.1-8b"]) == 0
    assert "looked up among 364" in " ".join(capsys.readouterr().out.split())
    assert main(["check", str(workload), *named, "--set", "model=llama-3.1-8b", "--set", "device.name=h200"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Measured with llama-3.1-8b on NVIDIA H100 80GB HBM3, used for llama-3.1-8b on h200" in told


def test_check_counts_the_pool_as_a_run_does(workload: Path, run_directory: Path, capsys: Capture) -> None:
    assert main(["check", str(workload), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    manifest = json.loads((run_directory / "manifest.json").read_text(encoding="utf-8"))
    assert [run["pool"]["num_blocks"] for run in document["runs"]] == [run["num_blocks"] for run in manifest["runs"]]
    assert document["workload"] == manifest["workload"]
    assert document["requests"]["count"] == 40
    assert document["requests"]["prompt_tokens_mean"] == 24


def test_check_asks_each_allocator_how_many_of_the_longest_sequences_it_holds(workload: Path, capsys: Capture) -> None:
    """Of 20 GiB: what lies in buddies of 4,096 slots, in tensors of their own, or behind a window is told apart."""
    device = "device={name: h100-80gb, kv_memory_gib: 20}"
    kinds = "allocators=[{kind: no-cache}, {kind: growing}, {kind: contiguous}, {kind: paged}, {kind: hybrid}]"
    settings = ["--set", device, "--set", kinds, "--set", "engine.max_model_len=3000"]
    found = {}
    for model in ("llama-3.1-8b", "gemma-3-12b"):
        assert main(["check", str(workload), *settings, "--set", f"model={model}", "--json"]) == 0
        runs = json.loads(capsys.readouterr().out)["runs"]
        found[model] = {run["kind"]: run["longest_at_once"] for run in runs}
    assert found["llama-3.1-8b"].pop("growing") == pytest.approx(163_840 / 3000 / 1.078, abs=2)
    assert found["llama-3.1-8b"] == {"no-cache": None, "contiguous": 163_840 // 4096, "paged": 54, "hybrid": 54}
    each = -(-3000 // 16) + 5 * (1024 // 16 + 1)  # blocks: one group keeps all, five no more than a window
    assert found["gemma-3-12b"]["hybrid"] == pytest.approx(20 * 2**30 // (16 * 65_536) / each, abs=1)
    assert found["gemma-3-12b"]["paged"] == 20 * 2**30 // (16 * 393_216) // -(-3000 // 16)
    assert main(["check", str(workload), *settings, "--set", "model=llama-3.1-8b"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"no-cache .* any *\n", shown)
    assert re.search(r"contiguous .* 40 *\n", shown)


def test_check_counts_what_max_model_len_will_refuse_and_cut_as_a_run_does(workload: Path, capsys: Capture) -> None:
    lengths = "{kind: uniform, prompt: {min: 1, max: 300}, output: {min: 1, max: 99}}"
    settings = ["--set", f"requests.lengths={lengths}", "--quiet", "--out", "x"]
    assert main(["run", str(workload), *settings, "--json"]) == 0
    (served, _) = json.loads(capsys.readouterr().out)["runs"]
    assert main(["check", str(workload), *settings[:2], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["requests"]
    refused, cut = told["refused_as_too_long"], told["cut_short"]
    assert (refused, cut) == (served["requests"]["refused"], served["requests"]["cut"])
    assert min(refused, cut) > 0
    assert main(["check", str(workload), *settings[:2]]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"too long {refused} of 40 are refused, because of max_model_len, 256 tokens" in shown
    assert f"too long {cut} of 40 have their output cut short" in shown


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model=lama", ": model: 'lama' is neither shipped nor the path of a config.json"),
        ("model.kv_heads=7", ": model: tiny-llama: kv_heads 7 does not divide"),
        ("model=opt-175b", ": model: opt-175b does not fit on "),
        ("device.kv_memory_gib=100", ": device.kv_memory_gib: tiny-llama does not fit on "),
        ("device=h100", ": device: 'h100' is not known (did you mean h100-80gb?)"),
        ("costs.step=1", ": costs: unknown coefficient 'step'"),
        (
            "allocators=[paged, {kind: virtual, preemption: swap}]",
            ": allocators.1.preemption: virtual cannot swap: what",
        ),
    ],
)
def test_what_shows_only_beyond_the_schema_has_its_place_too(
    workload: Path, command: str, setting: str, message: str, capsys: Capture
) -> None:
    assert main([command, str(workload), "--set", setting]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"--set {setting}{message}")
    assert error.count("\n") == 1


def test_an_unknown_model_is_told_by_line_and_column(workload: Path, capsys: Capture) -> None:
    lines = [line for line in workload.read_text().splitlines() if not line.startswith("model")]
    workload.write_text("\n".join([*lines, "model: lama"]))
    assert main(["check", str(workload)]) == 2
    assert capsys.readouterr().err.startswith(f"{workload}:{len(lines) + 1}:8: model: 'lama' is neither shipped")


def test_check_says_which_cost_the_workload_sets(workload: Path, capsys: Capture) -> None:
    assert main(["check", str(workload), "--set", "costs.step_overhead_s=0.25"]) == 0
    (line,) = (
        line
        for line in capsys.readouterr().out.splitlines()
        if "step_overhead_s" in line and "0.25" in line and "this" in line
    )
    assert "this" in line


# -- compare and report ----------------------------------------------------------------------


@pytest.mark.usefixtures("run_directory")
def test_compare(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--out", "two", "--quiet", "--set", "costs.step_overhead_s=0.01"]) == 0
    capsys.readouterr()
    assert main(["compare", "one", "two"]) == 0
    said = capsys.readouterr().out
    assert "ttft_s" in said
    assert "costs.step_overhead_s: unset → 0.01\n" in said
    assert main(["compare", "one", "two", "--fail-if-worse", "5", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert {row["allocator"] for row in document["rows"]} == {"preallocated", "paged"}
    assert document["settings"] == [{"key": "costs.step_overhead_s", "first": "unset", "second": 0.01}]
    assert main(["compare", "one", "one", "--fail-if-worse", "5"]) == 0
    capsys.readouterr()
    assert main(["compare", "one", "two", "--fail-if-worse", "-5"]) == FAULT
    assert capsys.readouterr().err == "--fail-if-worse -5: give per cent, at least 0\n"


def test_allocators_of_a_closed_loop_are_compared_on_the_requests_that_came_to_both(
    workload: Path, capsys: Capture
) -> None:
    loop = "requests.arrivals={kind: closed, users: 40}"
    lengths = "requests.lengths={kind: uniform, prompt: {min: 8, max: 40}, output: {min: 1, max: 60}}"
    tight = ["requests.count=400", "horizon_s=0.1", "device.kv_memory_gib=0.0001"]
    changed = [f"--set={each}" for each in (loop, lengths, *tight)]
    assert main(["run", str(workload), *changed, "--out", "x", "--quiet", "--json"]) == 0
    one, two = (run.requests(("request_id",))["request_id"].tolist() for run in open_directory("x").runs)
    assert len(one) != len(two)
    assert one[-1] >= len(one)  # ids are no positions
    capsys.readouterr()
    assert main(["compare", "x", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert next(row["basis"] for row in rows if row["metric"] == "ttft_s") == "requests"


def test_a_run_that_was_not_finished_is_told_so(run_directory: Path, capsys: Capture) -> None:
    for table in (run_directory / "paged").glob("*.parquet"):
        table.unlink()
    (run_directory / "summary.json").unlink()
    rest = "this run was not finished; `run --resume` finishes it\n"
    for to in ("csv", "prometheus", "torch-snapshot"):
        assert main(["export", "one", "--to", to]) == FAULT
        assert capsys.readouterr().err == f"one/paged: {rest}"
        assert main(["export", "one", "--to", to, "--allocator", "preallocated"]) == 0
        capsys.readouterr()
    for words in (["report", "one"], ["compare", "one", "one"]):
        assert main(words) == FAULT
        assert capsys.readouterr().err == f"one/paged/requests.parquet: {rest}"


def test_report_is_written_again(run_directory: Path, capsys: Capture) -> None:
    page = run_directory / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert main(["report", str(run_directory), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "written": [str(page)]}
    assert page.read_bytes() == before


def test_several_directories_get_an_index_in_the_folder_they_share(
    workload: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("runs/a", "runs/b"):
        assert main(["run", str(workload), "--out", name, "--quiet"]) == 0
    capsys.readouterr()
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["report", "runs/a", "runs/b", "--open", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert written == ["runs/a/report.html", "runs/b/report.html", "runs/index.html"]
    assert opened == [Path("runs/index.html").resolve().as_uri()]
    assert 'href="a/report.html"' in Path("runs/index.html").read_text(encoding="utf-8")
    assert main(["report", "runs/a", "runs/b", "--together"]) == 0
    assert capsys.readouterr().out == "Written: runs/together.html\n"
    assert main(["report", "runs/a", "--out", "page.html"]) == 0
    assert Path("page.html").read_bytes() == Path("runs/a/report.html").read_bytes()


@pytest.mark.parametrize(
    "line",
    [
        *("compare nix {}", "compare {} nix", "compare {} grid", "export grid --to csv"),
        *("report nix", "report .", "report grid --together", "replay nix", "replay small.yaml"),
    ],
)
def test_what_is_no_run_and_no_recording_is_one_line(line: str, run_directory: Path, capsys: Capture) -> None:
    assert main(["sweep", "small.yaml", "--out", "grid", "--quiet"]) == 0
    capsys.readouterr()
    assert main(line.format(run_directory).split()) == FAULT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


# -- validate --------------------------------------------------------------------------------


def test_validate_compares_a_real_run_with_its_simulation(workload: Path, capsys: Capture) -> None:
    line = ["validate", str(workload), "--device", "cpu", "--set", "requests.count=3", "--quiet"]
    assert main([*line, "--out", "real"]) == 0
    shown = capsys.readouterr().out
    assert "everything agrees" in shown
    assert Path("real/validation.html").is_file()
    assert main([*line, "--set", "allocators=[{kind: paged}]", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is True
    assert Path("runs/small-validated/validation.json").is_file()


def test_a_device_that_is_not_there_is_one_line(workload: Path, capsys: Capture) -> None:
    assert main(["validate", str(workload), "--device", "cuda:99"]) == FAULT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


# -- export ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "ending"),
    [("perfetto", ".perfetto-trace"), ("torch-snapshot", ".pickle"), ("prometheus", ".txt"), ("csv", ".csv")],
)
def test_a_run_is_exported(to: str, ending: str, run_directory: Path, capsys: Capture) -> None:
    assert main(["export", str(run_directory), "--to", to, "--allocator", "paged", "--json"]) == 0
    written = [Path(name) for name in json.loads(capsys.readouterr().out)["written"]]
    assert written
    for path in written:
        assert path.parent == run_directory / "export"
        assert path.suffix == ending
        assert path.stat().st_size


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("perfetto", "trace.perfetto-trace"),
        ("torch-snapshot", "paged.snapshot.pickle"),
        ("prometheus", "history.txt"),
        ("csv", "paged.steps.csv"),
    ],
)
def test_an_export_replaces_no_file_elsewhere_unless_it_is_told_to(
    to: str, name: str, run_directory: Path, capsys: Capture
) -> None:
    mine = Path("mine", name)
    mine.parent.mkdir()
    mine.write_text("mine", encoding="utf-8")
    line = ["export", str(run_directory), "--to", to, "--out", "mine"]
    assert main(line) == FAULT
    assert capsys.readouterr().err == f"{mine}: exists already; give another --out, or --force to replace it\n"
    assert [*mine.parent.iterdir()] == [mine]
    assert mine.read_text(encoding="utf-8") == "mine"
    assert main([*line, "--force"]) == 0
    assert mine.read_bytes() != b"mine"
    for _again in range(2):
        assert main(line[:-2]) == 0, "what is in the run's own folder can be made again"


def test_an_export_that_makes_no_sense_is_one_line(run_directory: Path, capsys: Capture) -> None:
    for more, message in (
        (["--to", "perfeto"], "(did you mean perfetto?)"),
        (["--to", "csv", "--allocator", "slab"], "no allocator slab in one; there are: preallocated, paged"),
        (["--to", "csv", "--after", "5", "--until", "1"], "the window 5 to 1 s is empty"),
    ):
        assert main(["export", str(run_directory), *more]) == FAULT
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
        assert err.count("\n") == 1


# -- trace -----------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [f"{0.5 * place},{100 + place % 7},{20 + place % 5}" for place in range(200)]
    path = tmp_path / "recorded.csv"
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows, ""]), encoding="utf-8")
    return path


def test_a_trace_is_summed_up(recorded: Path, capsys: Capture) -> None:
    assert main(["trace", "describe", str(recorded)]) == 0
    shown = capsys.readouterr().out
    assert "csv trace" in shown
    assert main(["trace", "describe", str(recorded), "--count", "50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["requests"], document["format"], document["span_s"]) == (50, "csv", 24.5)
    assert f"{document['prompt_tokens']['max']:,.1f}" in shown


def test_bad_rows_are_lines_or_left_out(recorded: Path, capsys: Capture) -> None:
    recorded.write_text(recorded.read_text(encoding="utf-8") + "101,-4,5\n", encoding="utf-8")
    assert main(["trace", "describe", str(recorded)]) == FAULT
    out, err = capsys.readouterr()
    assert out == ""
    assert ":202" in err
    assert main(["trace", "describe", str(recorded), "--on-bad-rows", "skip"]) == 0
    assert "left out" in capsys.readouterr().out


def test_a_fit_is_a_requests_block(recorded: Path, workload: Path, capsys: Capture) -> None:
    assert main(["trace", "fit", str(recorded), "--page", "fit.html"]) == 0
    out, err = capsys.readouterr()
    assert "prompt tokens" in err
    text = workload.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("requests:")]
    Path("fitted.yaml").write_text("\n".join(lines) + "\n" + out, encoding="utf-8")
    assert load("fitted.yaml").requests.count == 200
    assert Path("fit.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    assert main(["trace", "fit", str(recorded), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"]["count"] == 200


def test_a_bad_option_of_a_trace_is_told_as_it_was_given(recorded: Path, capsys: Capture) -> None:
    assert main(["trace", "describe", str(recorded), "--block-size", "0"]) == FAULT
    assert capsys.readouterr().err == "--block-size: must be at least 1, got 0\n"
    assert main(["trace", "describe", str(recorded), "--format", "azuer"]) == FAULT
    assert capsys.readouterr().err.startswith("--format: unknown trace format azuer (did you mean azure?); known: ")


def test_a_trace_is_converted_and_nothing_overwritten(recorded: Path, capsys: Capture) -> None:
    assert main(["trace", "convert", str(recorded), "out.jsonl.gz", "--to", "mooncake", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["written"], document["requests"]) == ("out.jsonl.gz", 200)
    assert main(["trace", "describe", "out.jsonl.gz", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "mooncake"
    assert main(["trace", "convert", str(recorded), "new/deeper/out.csv"]) == 0
    capsys.readouterr()
    assert main(["trace", "convert", str(recorded), "out.jsonl.gz"]) == FAULT
    assert capsys.readouterr().err == "out.jsonl.gz: exists already; give another name\n"


@pytest.mark.parametrize(
    "line", ["describe nix", "fit nix", "describe recorded.csv --count 0", "fit recorded.csv --format azuer"]
)
def test_a_trace_that_cannot_be_read_is_one_line(line: str, recorded: Path, capsys: Capture) -> None:
    assert recorded.exists()
    assert main(["trace", *line.split()]) == FAULT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


def test_the_walkthrough_is_written_with_every_shipped_model(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["walkthrough", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "written": "walkthrough.html"}
    page = (tmp_path / "walkthrough.html").read_text(encoding="utf-8")
    assert all(f'"{name}"' in page for name in shipped_models() if not name.startswith("tiny-"))
    assert all(f'"{name}"' in page for name in shipped_devices())
    assert [path.name for path in tmp_path.iterdir()] == ["walkthrough.html"]


# -- list ------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_is_a_table_and_a_document(topic: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", topic, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["schema", topic]
    rows = document[topic]
    assert main(["list", topic]) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    for row in rows:
        assert str(next(iter(row.values()))) in shown


def test_generators_are_listed_with_their_keys(capsys: Capture) -> None:
    assert main(["list", "generators", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["generators"]
    kinds = {(row["block"], row["kind"]): row for row in rows}
    assert {"poisson", "gamma", "fixed", "batch", "on-off", "diurnal", "closed"} <= {kind for _, kind in kinds}
    assert {"turns", "tree", "replies"} == {kind for block, kind in kinds if block == "session"}
    assert [key["key"] for key in kinds["arrivals", "gamma"]["keys"]] == ["rate", "cv"]
    assert all(row["what"] and all(key["what"] for key in row["keys"]) for row in rows)


def test_presets_to_start_from_come_before_those_for_validation(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", "presets", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["presets"]
    assert sorted(row["preset"] for row in rows) == presets()
    by_purpose = {
        purpose: [row["preset"] for row in group] for purpose, group in groupby(rows, lambda row: row["purpose"])
    }
    start, paper, validation = by_purpose.values()
    assert {"quickstart", "chat", "rag"} <= set(start)
    assert all(name.startswith("sosp23_") for name in paper)
    assert all(name.startswith("validate_") for name in validation)
    said = [row["what"] for row in rows]
    assert len(set(said)) == len(said), "two presets that their descriptions do not tell apart"
    assert main(["list", "presets"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(part) for part in (*by_purpose, *(f" {names[0]} " for names in by_purpose.values()))]
    assert sorted(places) == [places[i] for i in (0, 3, 1, 4, 2, 5)]


def test_metrics_are_listed_with_the_terms_of_the_ledger(capsys: Capture, run_directory: Path) -> None:
    assert main(["list", "metrics", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["metrics"]
    said = {row["metric"]: row["formula"] for row in rows if row["purpose"].startswith("The ledger")}
    assert {"ttft_s", "kv_usage", "blocked_by"} <= {row["metric"] for row in rows} - set(said)
    assert set(Ledger._fields) <= {name.split(".")[-1] for name in said}
    (entry, *_) = json.loads((run_directory / "summary.json").read_text(encoding="utf-8"))["runs"]
    for name in (name.replace("NAME", "live") for name in said):
        assert is_figure(name)
        assert figure(entry, name) >= 0
    assert "internal fragmentation" in said["share.internal"]
    assert "external fragmentation" in said["share.external"]


def test_the_topics_are_listed(capsys: Capture) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(topic in shown for topic in TOPICS)


def test_every_verdict_is_listed_with_what_it_means_and_told_under_the_table(workload: Path, capsys: Capture) -> None:
    assert main(["list", "metrics", "--json"]) == 0
    listed = {row["metric"]: row["formula"] for row in json.loads(capsys.readouterr().out)["metrics"]}
    assert set(Verdict) <= set(listed)
    rate = "requests.arrivals={kind: fixed, rate: 250}"
    assert main(["run", str(workload), "--quiet", "--set", rate, "--set", "engine.max_num_seqs=1"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"BACKLOGGED: {listed['BACKLOGGED']}" in told


def test_a_comparison_tells_how_many_prompt_tokens_were_found_in_the_cache(workload: Path, capsys: Capture) -> None:
    cached = "allocators=[{kind: paged}, {kind: paged, prefix_cache: true}]"
    shared = "requests.shared=[{tokens: 48}]"
    assert main(["run", str(workload), "--quiet", "--out", "x", "--set", cached, "--set", shared]) == 0
    capsys.readouterr()
    assert main(["compare", "x", "--json"]) == 0
    found = {row["metric"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert found["prefix_hit_rate"]["first"] == 0
    assert found["prefix_hit_rate"]["second"] > 0.3


def test_variants_and_runs_without_them_do_not_mix_in_a_directory(workload: Path, capsys: Capture) -> None:
    varied = ["--set", "variants=[{label: a}]"]
    for first, second, held in (
        (varied, [], "the variants of a workload, a directory each"),
        ([], varied, "results without variants"),
    ):
        folder = Path(held[:3])
        assert main(["run", str(workload), "--quiet", "--out", str(folder), *first]) == 0
        before = sorted(folder.rglob("*"))
        capsys.readouterr()
        assert main(["run", str(workload), "--quiet", "--out", str(folder), *second, "--force"]) == FAULT
        assert capsys.readouterr().err == f"{folder}: holds {held}; give another --out\n"
        assert sorted(folder.rglob("*")) == before


def test_allocators_are_listed_with_their_options(capsys: Capture) -> None:
    assert main(["list", "allocators", "--json"]) == 0
    listed = {row["allocator"]: row["options"] for row in json.loads(capsys.readouterr().out)["allocators"]}
    assert list(listed) == registry.names()
    assert {option["option"] for option in listed["contiguous"]} == {"block_size", "reserve", "placement"}


def test_what_takes_the_place_of_a_default_is_told(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list", "allocators"]) == 0
    told = capsys.readouterr().out
    assert "tokens that a token attends to; all of them if unset (the model's)" in told
    assert "blocks on the host for sequences swapped out (the engine's)" in told
    assert "keep tokens for sequences that begin alike (the workload's)" in told


def test_a_warning_is_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn() -> dict[str, object]:
        warnings.warn("allocator plug-in slab = nix: cannot be imported", RuntimeWarning, stacklevel=1)
        return dict(registry.BUILT_IN)

    monkeypatch.setattr("sim.cli.topics.kinds", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["list", "allocators"]) == 0
    assert capsys.readouterr().err == "warning: allocator plug-in slab = nix: cannot be imported\n"


# -- files that are there ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "report one --out {}",
        "report one two --out {}",
        "report one two --together --out {}",
        "trace fit recorded.csv --page {}",
        "walkthrough --out {}",
    ],
)
@pytest.mark.usefixtures("recorded")
def test_a_page_gives_way_to_a_page_and_nothing_else_does(line: str, run_directory: Path, capsys: Capture) -> None:
    shutil.copytree(run_directory, "two")
    summary = Path("one/summary.json")
    before = summary.read_bytes()
    assert main(line.format(summary).split()) == FAULT
    said = "exists already, and does not say that it is a page of kvsim; remove it, or give another name"
    assert capsys.readouterr().err == f"{summary}: {said}\n"
    assert summary.read_bytes() == before
    for _again in range(2):
        assert main(line.format("new/page.html").split()) == 0


def test_a_page_goes_into_a_file_that_is_empty(run_directory: Path) -> None:
    Path("page.html").touch()
    assert main(["report", str(run_directory), "--out", "page.html"]) == 0
    assert Path("page.html").stat().st_size > 0


@pytest.mark.parametrize(
    ("line", "name"), [("report one two", "index.html"), ("report one two --together", "together.html")]
)
def test_a_page_of_somebody_else_in_the_shared_folder_stays(
    line: str, name: str, run_directory: Path, capsys: Capture
) -> None:
    shutil.copytree(run_directory, "two")
    Path(name).write_text("<!doctype html>mine", encoding="utf-8")
    assert main(line.split()) == FAULT
    assert capsys.readouterr().err.startswith(f"{name}: exists already")
    assert Path(name).read_text(encoding="utf-8") == "<!doctype html>mine"


# -- new and schema --------------------------------------------------------------------------


@pytest.mark.parametrize("preset", presets())
def test_a_starter_file_is_the_preset_with_its_schema_beside_it(preset: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "new" / "mine.yaml"
    assert main(["new", preset, "--out", str(path)]) == 0
    assert load(path) == load(preset)
    assert path.read_text(encoding="utf-8").splitlines()[0].endswith("$schema=workload.schema.json")
    json.loads((path.parent / "workload.schema.json").read_text(encoding="utf-8"))
    capsys.readouterr()
    assert main(["new", preset]) == 0
    assert capsys.readouterr().out == path.read_text(encoding="utf-8")


def test_a_file_that_exists_is_not_overwritten(workload: Path, capsys: Capture) -> None:
    before = workload.read_text(encoding="utf-8")
    assert main(["new", "quickstart", "--out", str(workload)]) == FAULT
    assert capsys.readouterr().err == f"{workload}: exists already; give another name\n"
    assert workload.read_text(encoding="utf-8") == before
    assert main(["new", "quikstart"]) == FAULT
    assert capsys.readouterr().err == "quikstart: no such preset (did you mean quickstart?)\n"
    assert main(["new", "xyzzy"]) == FAULT
    assert capsys.readouterr().err == "xyzzy: no such preset; `list presets` shows them\n"


def test_the_schema_names_every_allocator(capsys: Capture) -> None:
    assert main(["schema"]) == 0
    text = capsys.readouterr().out
    assert main(["schema", "--json"]) == 0
    assert capsys.readouterr().out == text
    assert json.loads(text)["title"]
    assert all(f'"{kind}"' in text for kind in registry.names())


# -- pipes and terminals ---------------------------------------------------------------------


def test_a_reader_that_leaves_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sim", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == BROKEN_PIPE


@pytest.mark.parametrize("where", ["/dev/full", "&-"])
def test_output_that_cannot_be_written_is_at_most_one_line(where: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m sim schema >{where}"], stderr=subprocess.PIPE, check=False
    )
    full = where == "/dev/full"
    assert done.returncode == (FAULT if full else 0)
    assert done.stderr == (b"python -m sim: No space left on device\n" if full else b"")


def test_a_terminal_without_our_letters_gets_others() -> None:
    line = [sys.executable, "-m", "sim", "list", "models"]
    done = subprocess.run(line, capture_output=True, check=True, env={"PYTHONIOENCODING": "ascii", "COLUMNS": "80"})
    assert b"llama-3.1-8b" in done.stdout
    done.stdout.decode("ascii")
