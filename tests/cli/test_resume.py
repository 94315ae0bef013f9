"""Whose results a directory holds: what gives way, what is kept, and how an interrupted run goes on."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sim.cli import main
from sim.cli.app import FAULT, INTERRUPTED
from sim.results.rundir import alone
from sim.serve import Progress

Capture = pytest.CaptureFixture[str]


def test_a_directory_of_something_else_is_left_alone(workload: Path, capsys: Capture) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("precious", encoding="utf-8")
    assert main(["run", str(workload), "--out", "mine"]) == FAULT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mine: ")
    assert err.count("\n") == 1
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.txt"]


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


@pytest.mark.parametrize(
    ("change", "renamed"),
    [*((None, renamed) for renamed in range(2, 7)), *(("steps", renamed) for renamed in range(2, 6)), ("requests", 5)],
)
def test_a_process_that_dies_between_two_files_leaves_nothing_that_looks_finished(
    change: str | None, renamed: int, workload: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Whichever file is the last that gets its name, --resume makes all that is missing and leaves nothing else."""
    line = ["run", str(workload), "--quiet", "--json"]
    assert main([*line, "--out", "good"]) == 0
    good = {path.relative_to("good") for path in _files("good")}
    if change is not None:
        shutil.copytree("good", "x")
        (tmp_path / f"x/paged/{change}.parquet").write_bytes(b"PAR1")
    _die(renamed, [*line, "--out", "x", "--resume"])
    assert main([*line, "--out", "x", "--resume"]) == 0
    assert {path.relative_to("x") for path in _files("x")} == good
    changing = {Path("manifest.json"), Path("report.html")}
    assert all(Path("x", name).read_bytes() == Path("good", name).read_bytes() for name in good - changing)
    capsys.readouterr()


@pytest.mark.parametrize("command", [["run"], ["run", "--set", "variants=[{label: a}, {label: b}]"], ["sweep"]])
def test_a_process_that_dies_before_its_first_file_has_its_name_keeps_nobody_from_its_directory(
    command: list[str], workload: Path, capsys: Capture
) -> None:
    line = [command[0], str(workload), *command[1:], "--quiet", "--json", "--out", "x"]
    _die(1, line)
    assert [path.suffix for path in Path("x").iterdir()] == [".part"]
    assert main([*line, "--resume"]) == 0
    assert not list(Path("x").rglob("*.part"))
    capsys.readouterr()


DIES = """
import os, signal, sys
from sim.cli import main
seen = iter(range(1, int(sys.argv[1])))
def hook(event, _):
    if event == "os.rename" and next(seen, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
main(sys.argv[2:])
"""


def _die(renamed: int, line: list[str]) -> None:
    """Run a command in a process that is killed as it gives a file its name, the first being number 1."""
    done = subprocess.run([sys.executable, "-c", DIES, str(renamed), *line], check=False)
    assert done.returncode == -signal.SIGKILL


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
