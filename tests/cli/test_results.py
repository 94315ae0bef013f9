"""Commands that read results: `compare`, `report` and `export`; and files that are there already."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from analysis.reading import open_directory
from sim.cli import main
from sim.cli.app import FAULT

Capture = pytest.CaptureFixture[str]


@pytest.mark.usefixtures("run_directory")
def test_compare(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--out", "two", "--quiet", "--set", "costs.step_overhead_s=0.01"]) == 0
    capsys.readouterr()
    assert main(["compare", "one", "two"]) == 0
    said = capsys.readouterr().out
    assert "ttft_s" in said
    assert "latencies without a percentile are means over requests" in said
    assert "costs.step_overhead_s: unset → 0.01\n" in said
    assert main(["compare", "one", "two", "--fail-if-worse", "5", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert {row["allocator"] for row in document["rows"]} == {"preallocated", "paged"}
    assert document["settings"] == [{"key": "costs.step_overhead_s", "first": "unset", "second": 0.01}]
    assert main(["compare", "one", "one", "--fail-if-worse", "5"]) == 0
    capsys.readouterr()
    assert main(["compare", "one", "two", "--fail-if-worse", "-5"]) == FAULT
    assert capsys.readouterr().err == "--fail-if-worse -5: give per cent, at least 0\n"


@pytest.mark.usefixtures("run_directory")
def test_that_there_is_nothing_to_compare_is_no_success(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--out", "two", "--quiet", "--set", "allocators=[{kind: ideal}]"]) == 0
    capsys.readouterr()
    assert main(["compare", "one", "two", "--fail-if-worse", "5"]) == FAULT
    assert capsys.readouterr().err == (
        "no allocator has the same label in both: preallocated, paged in one, ideal in two; "
        "`label` in a file gives it one\n"
    )
    assert main(["compare", "two", "--fail-if-worse", "5"]) == FAULT
    assert capsys.readouterr().err == "two: only ideal is in it; name a second directory to compare it with\n"


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
