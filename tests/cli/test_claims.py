"""Whose results a directory holds: what sets two manifests apart, and which runs are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sim.errors import UserError
from sim.results.claims import changed, refuse
from sim.results.folders import demand_folders, folder_name, folder_of
from sim.results.kept import DEPENDS, _keeps

Manifest = dict[str, Any]


def manifest(repeat: int = 1, *, version: str = "1", **workload: Any) -> Manifest:
    given = {"seed": 0, "repeat": repeat, "rates": [1, 2], "engine": {"seats": 4}, **workload}
    runs = [{"label": "paged", "repeat": number, "capacity": 64} for number in range(repeat)]
    return {"kvsim": version, "workload": given, "files": {}, "runs": runs, "started": "today"}


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ({}, ""),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"seed": None}, "seed was 0, is unset"),
        ({"slo": {"ttft_s": 1}}, "slo differs"),
        ({"engine": {"seats": 8}}, "engine.seats was 4, is 8"),
        ({"engine": {"seats": 4, "watermark": 0.1}}, "engine.watermark was unset, is 0.1"),
        ({"engine": None}, "engine differs"),
        ({"rates": [1, 3]}, "rates.1 was 2, is 3"),
        ({"rates": [1, 2, 3]}, "rates differs"),
        ({"rates": {"low": 1, "high": 2}}, "rates differs"),
        ({"engine": [4]}, "engine differs"),
        ({"rates": [3, 4], "seed": 1}, "seed was 0, is 1"),  # the first in the order of the file
        ({"remarks": ["of no consequence"], "expect": {"paged": {}}}, ""),
    ],
)
def test_the_first_thing_that_differs_is_told(workload: Manifest, said: str) -> None:
    assert changed(manifest(), manifest(**workload), ("workload",)) == said


def test_what_an_older_manifest_does_not_say_is_not_compared() -> None:
    before, now = manifest(), manifest()
    del before["files"]
    assert changed(before, {**now, "files": {"a.csv": "ab"}}, DEPENDS) == ""
    assert changed(now, {**now, "files": {"a.csv": "ab"}}, DEPENDS) == "files.a.csv was unset, is ab"
    assert changed(now, {**now, "started": "tomorrow"}, DEPENDS) == ""
    assert changed(manifest(), manifest(2), ("workload",), aside=["repeat"]) == ""


@pytest.mark.parametrize("resumable", [True, False])
def test_resume_is_offered_only_where_it_keeps_something(*, resumable: bool) -> None:
    said = str(refuse(Path("x"), "seed was 0, is 1", resumable=resumable))
    assert said.startswith("x: holds other results (seed was 0, is 1); give another --out")
    assert said.endswith("--force to replace them")
    assert ("--resume" in said) is resumable


@pytest.mark.parametrize(
    ("now", "kept"),
    [
        (manifest(3), True),
        (manifest(1), True),
        (manifest(3, seed=1), False),
        (manifest(2, version="2"), False),
    ],
)
def test_runs_are_kept_of_the_same_workload_however_often_it_is_repeated(now: Manifest, *, kept: bool) -> None:
    assert _keeps(manifest(2), now) is kept
    other = {**now, "runs": [{**run, "capacity": 32} for run in now["runs"]]}
    assert not _keeps(manifest(2), other)


@pytest.mark.parametrize(
    ("label", "name"),
    [("Orca (Max)", "Orca__Max_"), ("a/b:c", "a_b_c"), ("..", "_"), (".x", "x"), ("block-1_6.0", "block-1_6.0")],
)
def test_a_label_makes_the_name_of_a_folder(label: str, name: str) -> None:
    assert folder_name(label) == name
    assert (folder_of(label, 0), folder_of(label, 2)) == (name, f"{name}/repeat-2")


@pytest.mark.parametrize("labels", [["a b", "a_b"], ["Paged", "paged"]])
def test_two_labels_may_not_share_a_folder(labels: list[str]) -> None:
    with pytest.raises(UserError, match="allocators: two labels give the same folder name"):
        demand_folders(labels, "allocators")
    demand_folders(["a", "b"], "allocators")


@pytest.mark.parametrize("label", ["summary.json", "Manifest.json", "variants.json", "report.html", "index.html"])
def test_no_label_is_the_name_of_a_file_beside_it(label: str) -> None:
    with pytest.raises(UserError, match=f"{label.lower()} is the name of a file of the results"):
        demand_folders([label], "variants")
