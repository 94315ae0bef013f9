"""Results that somebody has changed to others as plausible: told in one line, and made again by --resume."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analysis.planner.page
import analysis.report
import analysis.written
from analysis.rundir import TABLES
from analysis.written import listed, results
from sim.cli import main
from sim.cli.app import DONE, FAULT, INTERRUPTED
from tests.small import SMALL

Capture = pytest.CaptureFixture[str]

SEARCH = "sustained: {normalized_latency_s: 0.002, duration_s: 0.05}\n"
TIGHT = SMALL.replace("0.0005", "0.00009").replace("rate: 400", "rate: 4000").replace("  - {kind: preallocated}\n", "")
NUMBERS = {"requests": "first_token_s", "steps": "gap_s", "blocks": "time_s", "events": "time_s"}
"""A column of each table that can be a little larger and still be true."""
RESULTS = ["summary.json", *(f"paged/{table}.parquet" for table in TABLES), "paged/sustained.json"]
READERS: list[Callable[[str], list[str]]] = [
    lambda out: ["report", out],
    lambda out: ["compare", out, out],
    lambda out: ["export", out, "--to", "csv", "--force"],
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run has left."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tight.yaml").write_text(TIGHT + SEARCH, encoding="utf-8")
    assert main(["run", str(folder / "tight.yaml"), "--quiet", "--json", "--out", str(folder / "out")]) == DONE
    return folder


@pytest.fixture
def out(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, of which pages have no plotly.js."""
    monkeypatch.setattr(analysis.report, "plotly_js", lambda: b"")
    return Path(shutil.copytree(whole / "out", tmp_path / "out"))


def alter(path: Path) -> None:
    """Change figures by a millionth, or a digit."""
    if path.suffix == ".json":
        text = path.read_text(encoding="utf-8")
        other = re.sub(r'(rps": \d*)\d', lambda rate: f"{rate[1]}{(int(rate[0][-1]) + 1) % 10}", text)
        assert other != text
        path.write_text(other, encoding="utf-8")
        return
    table, name = pq.read_table(path), NUMBERS[path.stem]
    larger = pa.array(table[name].to_numpy() * (1 + 1e-6))
    pq.write_table(table.set_column(table.column_names.index(name), table.schema.field(name), larger), path)


def again(whole: Path, out: Path) -> int:
    return main(["run", str(whole / "tight.yaml"), "--resume", "--quiet", "--json", "--out", str(out)])


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in RESULTS}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", RESULTS)
def test_a_figure_that_was_changed_a_little_is_told_in_a_line(
    name: str, read: Callable[[str], list[str]], out: Path, capsys: Capture
) -> None:
    assert main(read(str(out))) == DONE
    alter(out / name)
    capsys.readouterr()
    assert main(read(str(out))) == FAULT
    assert capsys.readouterr().err == (
        f"{out / name}: its SHA-256 is not the one in manifest.json: it was changed, or is of another run; "
        "`run --resume` makes it again\n"
    )


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("change", [alter, Path.unlink])
def test_what_was_changed_or_removed_is_made_again(
    name: str, change: Callable[[Path], None], whole: Path, out: Path, capsys: Capture
) -> None:
    kept = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["written"]
    change(out / name)
    assert again(whole, out) == DONE
    assert contents(out) == contents(whole / "out")
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))["written"] == kept
    capsys.readouterr()


@pytest.mark.parametrize("name", RESULTS)
def test_what_was_changed_is_not_taken_for_what_was_written_if_making_it_again_is_cut_short(
    name: str, whole: Path, out: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest that is written before anything is made does not list what is yet to be made."""
    alter(out / name)
    with monkeypatch.context() as patched:
        patched.setattr("sim.runner.too_late", interrupt)
        assert again(whole, out) == INTERRUPTED
    assert again(whole, out) == DONE
    assert contents(out) == contents(whole / "out")
    capsys.readouterr()


def test_what_an_interrupted_run_has_finished_is_told_from_what_was_changed(
    whole: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis.report, "plotly_js", lambda: b"")
    out, three = tmp_path / "out", ["--set", "sustained=null", "--repeat", "3"]
    line = ["run", str(whole / "tight.yaml"), *three, "--quiet", "--json", "--resume", "--out", str(out)]
    with monkeypatch.context() as patched:
        patched.setattr("sim.runner.too_late", Mock(side_effect=[[], [], KeyboardInterrupt]))
        assert main(line) == INTERRUPTED
    known = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["written"]
    assert list(known) == [f"paged/{where}{table}.parquet" for where in ("", "repeat-1/") for table in TABLES]
    good = (out / "paged" / "steps.parquet").read_bytes()
    alter(out / "paged" / "steps.parquet")
    capsys.readouterr()
    assert main(["compare", str(out), str(out)]) == FAULT
    assert "its SHA-256 is not the one in manifest.json" in capsys.readouterr().err
    assert main(line) == DONE
    assert (out / "paged" / "steps.parquet").read_bytes() == good
    written = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["written"]
    assert {name: written[name] for name in known} == known
    capsys.readouterr()


@pytest.mark.parametrize(
    "variants", ["", "variants: [{label: slow}, {label: fast, set: {requests.arrivals.rate: 8000}}]\n"]
)
def test_each_result_is_digested_once(
    variants: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis.report, "plotly_js", lambda: b"")
    seen: list[Path] = []
    digest = analysis.written.digest

    def counting(path: Path) -> str:
        seen.append(path)
        return digest(path)

    monkeypatch.setattr(analysis.written, "digest", counting)
    (tmp_path / "w.yaml").write_text(TIGHT + variants, encoding="utf-8")
    line = ["run", str(tmp_path / "w.yaml"), "--quiet", "--json", "--out", str(tmp_path / "out")]
    for again in ([], ["--resume"], ["--resume", "--repeat", "2"]):
        seen.clear()
        assert main([*line, *again]) == DONE
        assert seen
        assert len(seen) == len(set(seen)), again
    capsys.readouterr()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_only_the_run_that_was_changed_is_done_again(whole: Path, out: Path, capsys: Capture) -> None:
    line = ["run", str(whole / "tight.yaml"), "--repeat", "2", "--resume", "--quiet", "--json", "--out", str(out)]
    assert main(line) == DONE
    written = [out / "paged" / where / "steps.parquet" for where in ("", "repeat-1")]
    before = [path.stat().st_mtime_ns for path in written]
    alter(out / "paged" / "repeat-1" / "events.parquet")
    assert main(line) == DONE
    assert [path.stat().st_mtime_ns > time for path, time in zip(written, before, strict=True)] == [False, True]
    capsys.readouterr()


def test_results_without_digests_are_read_and_get_theirs_when_kept(whole: Path, out: Path, capsys: Capture) -> None:
    path = out / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    known = manifest.pop("written")
    path.write_text(json.dumps(manifest), encoding="utf-8")
    time = (out / "paged" / "steps.parquet").stat().st_mtime_ns
    assert main(["report", str(out)]) == DONE
    assert again(whole, out) == DONE
    assert json.loads(path.read_text(encoding="utf-8"))["written"] == known == listed(out, results(manifest["runs"]))
    assert (out / "paged" / "steps.parquet").stat().st_mtime_ns == time
    capsys.readouterr()


def test_a_manifest_cannot_have_files_elsewhere_read(out: Path, capsys: Capture) -> None:
    path = out / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, "written": {"../../secret": "", "/dev/zero": ""}}), encoding="utf-8")
    assert main(["report", str(out)]) == DONE
    capsys.readouterr()


def test_a_manifest_that_lists_no_runs_keeps_what_there_is(whole: Path, out: Path, capsys: Capture) -> None:
    path = out / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["runs"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    alter(out / "paged" / "steps.parquet")
    assert again(whole, out) == DONE
    assert contents(out) == contents(whole / "out")
    capsys.readouterr()


def test_a_simulation_of_a_sweep_that_was_changed_is_done_again(
    whole: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis.planner.page, "plotly_js", lambda: b"")
    line = ["sweep", str(whole / "tight.yaml"), "--vary", "engine.max_num_seqs=4,8", "--quiet", "--json"]
    line += ["--resume", "--out", str(tmp_path / "answer")]
    assert main(line) == DONE
    good = (tmp_path / "answer" / "summary.json").read_bytes()
    cells = sorted((tmp_path / "answer" / "cells").iterdir())
    digests = [json.loads(cell.read_text(encoding="utf-8"))["sha256"] for cell in cells]
    alter(cells[0])
    before = [cell.stat().st_mtime_ns for cell in cells]
    assert main(line) == DONE
    assert (tmp_path / "answer" / "summary.json").read_bytes() == good
    assert [cell.stat().st_mtime_ns > time for cell, time in zip(cells, before, strict=True)] == [True, False]
    assert [json.loads(cell.read_text(encoding="utf-8"))["sha256"] for cell in cells] == digests, "whenever it was done"
    capsys.readouterr()


@pytest.mark.parametrize("name", ["summary.json", "results.parquet"])
@pytest.mark.parametrize(
    "command",
    [
        ["sweep", "--vary", "engine.max_num_seqs=4,8"],
        ["capacity", "--slo", "ttft_s.p90=0.01", "--precision", "1", "--no-curves", "--repeat", "1"],
        ["advise", "--budget", "12", "--repeat", "1"],
    ],
)
def test_answers_that_were_changed_are_told_and_made_again(
    command: list[str], name: str, whole: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis.planner.page, "plotly_js", lambda: b"")
    out = tmp_path / "answer"
    line = [command[0], str(whole / "tight.yaml"), *command[1:], "--quiet", "--json", "--out", str(out)]
    assert main(line) == DONE
    assert main(["report", str(out)]) == DONE
    good = (out / name).read_bytes()
    (out / name).write_bytes(good.replace(b"paged", b"pagen"))
    assert (out / name).read_bytes() != good
    capsys.readouterr()
    assert main(["report", str(out)]) == FAULT
    assert capsys.readouterr().err == (
        f"{out / name}: its SHA-256 is not the one in manifest.json: it was changed, or is of another run; "
        f"`{command[0]} --resume` makes it again\n"
    )
    assert main([*line, "--resume"]) == DONE
    assert (out / name).read_bytes() == good
    assert main(["report", str(out)]) == DONE
    capsys.readouterr()
