"""Files that somebody has changed, cut off or mixed up: one line, exit status 2, and nothing lost."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analysis.planner.page
import analysis.report
from sim.cli import main
from sim.cli.app import DONE, FAULT
from tests.small import SMALL

Capture = pytest.CaptureFixture[str]
Where = tuple[str | int, ...]

TIGHT = SMALL.replace("0.0005", "0.00009").replace("rate: 400", "rate: 4000") + "slo: {ttft_s: 1.0}\n"
VARIANTS = "variants:\n  - {label: slow}\n  - {label: fast, set: {requests.arrivals.rate: 8000}}\n"
VALIDATION = Path(__file__).parents[2] / "analysis" / "results" / "validate_nvidia-h200.json"
WRONG = ("delete", None, "a word\nand more", -1, 1.5, [], {}, True, [1], float("nan"), 10**400)
"""What a value is replaced by."""
DOCUMENTS = [
    ("run", "manifest.json"),
    ("run", "summary.json"),
    ("variants", "variants.json"),
    *((question, name) for question in ("sweep", "capacity", "advise") for name in ("manifest.json", "summary.json")),
    ("validation", "validation.json"),
]
TABLES = [f"paged/{name}.parquet" for name in ("requests", "steps", "blocks", "events")]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every command leaves, by its name, without digests: so what is in the files must tell."""
    folder = tmp_path_factory.mktemp("left")
    (folder / "tight.yaml").write_text(TIGHT, encoding="utf-8")
    (folder / "variants.yaml").write_text(TIGHT + VARIANTS, encoding="utf-8")
    tight, also = str(folder / "tight.yaml"), ["--quiet", "--json", "--out"]
    assert main(["run", tight, "--repeat", "2", *also, str(folder / "run")]) == DONE
    assert main(["run", tight, "--seed", "1", "--set", "requests.count=20", *also, str(folder / "other")]) == DONE
    assert main(["run", str(folder / "variants.yaml"), *also, str(folder / "variants")]) == DONE
    assert main(["sweep", tight, "--vary", "engine.max_num_seqs=4,8", *also, str(folder / "sweep")]) == DONE
    assert main(["capacity", tight, "--repeat", "2", "--precision", "1", *also, str(folder / "capacity")]) == DONE
    assert main(["advise", tight, "--repeat", "2", "--budget", "12", *also, str(folder / "advise")]) == DONE
    found = json.loads(VALIDATION.read_text(encoding="utf-8"))["validations"]
    for path in folder.rglob("manifest.json"):
        without_digests(path)
    (folder / "validation").mkdir()
    timed = next((one for one in found.values() if one["timing"]), found["tiny-llama-fp32"])
    (folder / "validation" / "validation.json").write_text(json.dumps(timed), encoding="utf-8")
    return folder


def without_digests(manifest: Path) -> None:
    """Let results be as an earlier version left them."""
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content.pop("written", None)
    manifest.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without plotly.js, which takes longer to write than all else."""
    for module in (analysis.report, analysis.planner.page):
        monkeypatch.setattr(module, "plotly_js", lambda: b"")


def ask(left: Path, what: str, folder: Path) -> list[list[str]]:
    """Every command that reads a directory."""
    name, index = str(folder), ["--out", str(left / "index.html")]
    lines = [["report", name], ["report", name, str(left / "other"), *index]]
    if what != "run":
        return lines
    formats = ("csv", "perfetto", "torch-snapshot", "prometheus")
    lines += [["compare", name], ["compare", str(left / "other"), name], ["report", "--together", *lines[1][1:]]]
    return [*lines, *(["export", name, "--to", to] for to in formats)]


def told_in_a_line(line: list[str], capsys: Capture) -> bool:
    """Run a command, which shall do as it is told or say in one line why not; returns whether it did."""
    status = main(line)
    said = capsys.readouterr().err
    assert status in (DONE, FAULT), (line, said)
    assert said.count("\n") == (status == FAULT), (line, said)
    return status == DONE


def places(value: Any, at: Where = ()) -> Iterator[Where]:
    """Where the values of a document are; of lists the first and the last."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for index in sorted({0, len(value) - 1}) if value else ():
            yield from places(value[index], (*at, index))


def changed(document: Any, at: Where, value: object) -> Any:
    """Copy a document with one value replaced or deleted."""
    if not at:
        return value
    document = deepcopy(document)
    inner = document
    for key in at[:-1]:
        inner = inner[key]
    if value == "delete":
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return document


def kept(folder: Path) -> dict[Path, bytes]:
    """Return every result in a folder; pages can be made again."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".json", ".parquet")}


@pytest.mark.parametrize(("what", "name"), DOCUMENTS)
def test_a_document_with_any_value_changed_is_read_or_told_in_a_line(
    what: str, name: str, left: Path, capsys: Capture
) -> None:
    path, draw = left / what / name, random.Random(f"{what} {name}")  # noqa: S311  (nothing is secret)
    text = path.read_text(encoding="utf-8")
    document = json.loads(text)
    everywhere = [at for at in places(document) if at]
    refused = 0
    try:
        for number in range(30):
            at, value = draw.choice(everywhere), WRONG[number % len(WRONG)]
            path.write_text(json.dumps(changed(document, at, value)), encoding="utf-8")
            before = kept(left / what)
            refused += not told_in_a_line(draw.choice(ask(left, what, left / what)), capsys)
            assert kept(left / what) == before
        for broken in (text[: len(text) // 2], "", "[" * 100_000, "null", "\ufeff" + text, text.replace('"', "\0")):
            path.write_text(broken, encoding="utf-8")
            assert not told_in_a_line(["report", str(left / what)], capsys)
        path.write_bytes(text.encode("utf-16"))
        assert not told_in_a_line(["report", str(left / what)], capsys)
    finally:
        path.write_text(text, encoding="utf-8")
    assert refused > 5


def renamed(table: pa.Table, name: str) -> pa.Table:
    return table.rename_columns([other if other != name else "foo" for other in table.column_names])


def filled(values: Callable[[int], pa.Array]) -> Callable[[pa.Table, str], pa.Table]:
    return lambda table, name: table.set_column(table.column_names.index(name), name, values(len(table)))


CHANGES: dict[str, Callable[[pa.Table, str], pa.Table]] = {
    "a column is gone": lambda table, name: table.drop_columns([name]),
    "a column has another name": renamed,
    "words": filled(lambda count: pa.array(["x"] * count, pa.string())),
    "nothing": filled(pa.nulls),
    "lists": filled(lambda count: pa.array([[1]] * count, pa.list_(pa.int64()))),
    "fractions": filled(lambda count: pa.array([0.5] * count, pa.float64())),
    "NaN": filled(lambda count: pa.array([float("nan")] * count, pa.float64())),
    "negative numbers": filled(lambda count: pa.array([-5] * count, pa.int64())),
    "large numbers": filled(lambda count: pa.array([10**15] * count, pa.int64())),
    "no row": lambda table, _: table.slice(0, 0),
    "half of its rows": lambda table, _: table.slice(0, len(table) // 2),
    "its rows twice": lambda table, _: pa.concat_tables([table, table]),
    "another order": lambda table, _: table.take(pa.array(range(len(table) - 1, -1, -1), pa.int64())),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_table_that_was_changed_is_read_or_told_in_a_line(
    name: str, change: str, left: Path, capsys: Capture
) -> None:
    path, summary = left / "run" / name, left / "run" / "summary.json"
    draw = random.Random(name + change)  # noqa: S311  (nothing is secret)
    good, told = path.read_bytes(), summary.read_bytes()
    table = pq.read_table(path)
    try:
        pq.write_table(CHANGES[change](table, draw.choice(table.column_names)), path)
        told_in_a_line(draw.choice(ask(left, "run", left / "run")), capsys)
        summary.unlink()
        told_in_a_line(draw.choice(ask(left, "run", left / "run")), capsys)
    finally:
        path.write_bytes(good)
        summary.write_bytes(told)


@pytest.mark.parametrize("change", ["lists", "words", "nothing", "large numbers", "half of its rows", "another order"])
def test_what_is_to_be_removed_is_made_again_once_it_is(change: str, left: Path, capsys: Capture) -> None:
    path, again = left / "run" / "paged" / "requests.parquet", ["--repeat", "2", "--resume", "--quiet", "--json"]
    good = path.read_bytes()
    pq.write_table(CHANGES[change](pq.read_table(path), "request_id"), path)
    assert main(["report", str(left / "run")]) == FAULT
    said = capsys.readouterr().err
    assert "; remove " in said
    assert said.endswith(", and `run --resume` makes it again\n")
    path.unlink()
    assert main(["run", str(left / "tight.yaml"), *again, "--out", str(left / "run")]) == DONE
    assert path.read_bytes() == good
    without_digests(left / "run" / "manifest.json")
    capsys.readouterr()


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_cut_off_is_told_in_a_line(name: str, left: Path, capsys: Capture) -> None:
    path = left / "run" / name
    good = path.read_bytes()
    try:
        for length in (0, 4, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:length])
            assert not told_in_a_line(["report", str(left / "run")], capsys)
            assert not told_in_a_line(["export", str(left / "run"), "--to", "csv"], capsys)
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("part", ["summary.json", "manifest.json", "paged", "preallocated", *TABLES[:2]])
def test_half_of_one_run_and_half_of_another_is_told_by_name(part: str, left: Path, capsys: Capture) -> None:
    mixed, other = left / "mixed", left / "other" / part
    shutil.copytree(left / "run", mixed)
    try:
        if other.is_dir():
            shutil.copytree(other, mixed / part, dirs_exist_ok=True)
        else:
            shutil.copy(other, mixed / part)
        assert main(["report", str(mixed)]) == FAULT
        said = capsys.readouterr().err
        assert said.startswith(str(mixed / "summary.json"))
        assert said.count("\n") == 1
        assert not told_in_a_line(["compare", str(mixed), str(left / "run")], capsys)
    finally:
        shutil.rmtree(mixed)


def test_what_resume_is_said_to_make_again_it_makes_again(left: Path, capsys: Capture) -> None:
    again = left / "again"
    shutil.copytree(left / "run", again)
    line = ["run", str(left / "tight.yaml"), "--repeat", "2", "--quiet", "--json", "--resume", "--out", str(again)]
    good = {path: path.read_bytes() for path in again.rglob("*.parquet")}
    (again / "summary.json").write_text('{"runs": []}', encoding="utf-8")
    pq.write_table(pq.read_table(again / TABLES[0]).drop_columns(["status"]), again / TABLES[0])
    assert main(line) == DONE
    assert {path: path.read_bytes() for path in again.rglob("*.parquet")} == good
    assert (again / "summary.json").read_bytes() == (left / "run" / "summary.json").read_bytes()
    cell = next((left / "sweep" / "cells").iterdir())
    told = cell.read_bytes()
    record = json.loads(told)
    record["entry"]["metrics"]["ttft_s"] = "soon"
    cell.write_text(json.dumps(record), encoding="utf-8")
    vary = ["--vary", "engine.max_num_seqs=4,8", "--resume", "--quiet", "--json", "--out", str(left / "sweep")]
    assert main(["sweep", str(left / "tight.yaml"), *vary]) == DONE
    assert json.loads(cell.read_bytes())["entry"] == json.loads(told)["entry"]
    capsys.readouterr()


@pytest.mark.parametrize(
    "runs",
    [None, {}, ["paged"], [{}], [{"dir": 3}], [{"dir": "../other/paged"}], [{"dir": "/"}], [{"dir": ".."}]],
)
def test_what_a_manifest_does_not_list_is_not_cleared(runs: object, left: Path, capsys: Capture) -> None:
    path = left / "run" / "manifest.json"
    told = path.read_text(encoding="utf-8")
    line = ["run", str(left / "tight.yaml"), "--quiet", "--json", "--out", str(left / "run")]
    try:
        path.write_text(json.dumps(json.loads(told) | {"runs": runs}), encoding="utf-8")
        before = kept(left)
        assert [told_in_a_line([*line, way], capsys) for way in ("--resume", "--force")] == [False, False]
        assert kept(left) == before
    finally:
        path.write_text(told, encoding="utf-8")


def test_a_search_that_was_changed_is_done_again(tmp_path: Path, capsys: Capture) -> None:
    file, out = tmp_path / "searched.yaml", tmp_path / "out"
    search = "sustained: {normalized_latency_s: 0.002, duration_s: 0.05}\n"
    file.write_text(TIGHT.replace("  - {kind: preallocated}\n", "") + search, encoding="utf-8")
    line = ["run", str(file), "--quiet", "--json", "--out", str(out)]
    assert main(line) == DONE
    path = out / "paged" / "sustained.json"
    found = path.read_bytes()
    path.write_text('{"rps": "many"}', encoding="utf-8")
    (out / "summary.json").unlink()
    assert not told_in_a_line(["report", str(out)], capsys)
    assert main([*line, "--resume"]) == DONE
    assert path.read_bytes() == found
    capsys.readouterr()
