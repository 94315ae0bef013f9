from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis import rundir
from analysis.columns import LazyColumns, read_columns
from analysis.errors import RunDirectoryError
from analysis.observed import SHARES
from analysis.reading import open_directory
from tests.analysis.synthetic import table, write_directory


def test_a_run_directory_reads_back(toy: Path) -> None:
    directory = open_directory(toy)
    assert directory.name == "toy"
    assert [run.label for run in directory.runs] == ["preallocated", "paged", "ideal"]
    for run in directory.runs:
        steps, requests = run.steps(), run.requests()
        np.testing.assert_array_equal(sum(steps[name] for name in SHARES), run.capacity)
        end = steps["start_s"] + steps["duration_s"]
        np.testing.assert_allclose(steps["start_s"][1:], end[:-1])
        assert requests["stall_count"].sum() == len(requests["stall_s"])
        assert set(run.lazy_steps) == set(rundir.STEPS.names)


def test_a_missing_summary_is_computed(toy: Path) -> None:
    directory = open_directory(toy)
    stored = directory.summary()
    (toy / "summary.json").rename(toy / "aside.json")
    try:
        assert directory.summary() == stored
    finally:
        (toy / "aside.json").rename(toy / "summary.json")


def test_what_is_no_run_directory_gets_one_line(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    with pytest.raises(RunDirectoryError, match="file: a file; give one that"):
        open_directory(tmp_path / "file")
    with pytest.raises(RunDirectoryError, match="no such directory"):
        open_directory(tmp_path / "nowhere")
    with pytest.raises(RunDirectoryError, match=r"no manifest\.json"):
        open_directory(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{")
    with pytest.raises(RunDirectoryError, match="not readable as JSON"):
        open_directory(tmp_path)
    for content in ({"schema": 99}, ["a"]):
        manifest.write_text(json.dumps(content))
        with pytest.raises(RunDirectoryError, match="this version reads schema 1") as caught:
            open_directory(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_folder_of_variants_names_the_run_directories_in_it(tmp_path: Path) -> None:
    (tmp_path / "variants.json").write_text("{}")
    write_directory(tmp_path / "beam_2", count=3)
    with pytest.raises(RunDirectoryError, match=r"for each variant; give one of them: \S+/beam_2$"):
        open_directory(tmp_path)


def test_a_broken_table_gets_one_line(tmp_path: Path) -> None:
    path = tmp_path / "steps.parquet"
    with pytest.raises(RunDirectoryError, match="was not finished"):
        read_columns(path)
    path.write_bytes(b"not parquet at all")
    with pytest.raises(RunDirectoryError, match=r"cannot be read: .*; `run --resume` makes it again$"):
        read_columns(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(RunDirectoryError, match="no column 'start_s'"):
        read_columns(path, ["start_s"])


def test_row_groups_with_different_words_agree(tmp_path: Path) -> None:
    columns = {name: [0] for name in rundir.EVENTS.names}
    path = tmp_path / "events.parquet"
    with pq.ParquetWriter(path, rundir.EVENTS) as writer:
        for word in ("preempt", "resume", "preempt"):
            writer.write_table(table(columns | {"event": [word], "reason": [""]}, rundir.EVENTS))
    assert read_columns(path)["event"].tolist() == ["preempt", "resume", "preempt"]


@pytest.mark.parametrize(
    ("name", "key", "lacking"),
    [("summary.json", "runs", "runs"), ("summary.json", "metrics", "metrics"), ("manifest.json", "dir", "dir")],
)
def test_a_document_that_was_changed_is_one_line(toy: Path, tmp_path: Path, name: str, key: str, lacking: str) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(toy, folder)
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    del (content if key in content else content["runs"][0])[key]
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunDirectoryError, match=rf"changed/{name}: lacks '{lacking}'"):
        open_directory(folder).summary()


def test_metrics_alone_import_nothing_heavy() -> None:
    code = "import sys, analysis.metrics, analysis.summary; print([m for m in %r if m in sys.modules])"
    heavy = ["pyarrow", "scipy", "plotly", "jinja2", "pandas", "rich"]
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_columns_of_equal_numbers_take_no_memory_and_are_what_they_were(toy: Path) -> None:
    path = open_directory(toy).runs[0].path / "steps.parquet"
    lazy, read = LazyColumns(path), read_columns(path)
    equal = {name for name, column in read.items() if column.dtype != object and (column == column[0]).all()}
    assert 2 <= len(equal) < len(read)
    for name, column in read.items():
        assert lazy[name].dtype == column.dtype
        assert np.array_equal(lazy[name], column)
        assert (lazy[name].strides == (0,)) is (name in equal)
