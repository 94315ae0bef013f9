"""The walk-through tells what the recorded runs of its scenes did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.errors import RunDirectoryError
from analysis.page.frames import some
from analysis.reading import RunDirectory, open_directory
from analysis.walkthrough import SCENES, Shown, write_walkthrough
from sim.runner import run
from tests.analysis.synthetic import write_directory
from workloads.loader import load


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    """Every scene, run by the simulator."""
    folder = tmp_path_factory.mktemp("scenes")
    for scene in SCENES:
        run(load(scene.workload), folder / scene.name)
    return {scene.name: open_directory(folder / scene.name) for scene in SCENES}


@pytest.fixture(scope="module")
def told(recorded: dict[str, RunDirectory]) -> dict[str, dict[str, Any]]:
    return {scene.name: Shown(scene, recorded[scene.name]).document() for scene in SCENES}


def said(document: dict[str, Any]) -> list[str]:
    return [line for frame in document["frames"] for line in frame["said"]]


def test_every_scene_has_a_workload_and_starts_and_ends(told: dict[str, dict[str, Any]]) -> None:
    for scene in SCENES:
        lines = said(told[scene.name])
        assert any("is admitted and takes" in line or "gets tensors of" in line for line in lines)
        assert any("is done and gives back" in line or "its tensors are freed" in line for line in lines)
        assert told[scene.name]["capacity"] == (68 if scene.name == "growing" else 64)


def test_frames_are_the_recorded_block_map(recorded: dict[str, RunDirectory], told: dict[str, dict[str, Any]]) -> None:
    for scene in (scene for scene in SCENES if scene.name != "growing"):
        blocks = recorded[scene.name].runs[0].blocks()
        assert blocks is not None
        for frame in told[scene.name]["frames"]:
            then = blocks["time_s"] == frame["time"]
            held = sum(owner != -2 for owner in frame["owner"])
            assert held == blocks["count"][then].sum()
            size = told[scene.name]["block_size"]
            in_use = sum(size for owner in frame["owner"] if owner != -2)
            assert in_use - sum(frame["filled"]) == blocks["slack"][then].sum()


def test_ledgers_of_frames_sum_to_the_pool(told: dict[str, dict[str, Any]]) -> None:
    for document in told.values():
        for frame in document["frames"]:
            assert sum(frame["ledger"].values()) == document["capacity"]


def test_tensors_add_up_to_what_was_live_and_every_output_is_written(
    recorded: dict[str, RunDirectory], told: dict[str, dict[str, Any]]
) -> None:
    frames = told["growing"]["frames"]
    for frame in frames:
        assert sum(tensor["tokens"] for tensor in frame["tensors"]) == frame["ledger"]["live"]
        assert all(tensor["copied"] in (0, tensor["tokens"] - 1) for tensor in frame["tensors"])
    requests = recorded["growing"].runs[0].requests()
    for request, final in enumerate(requests["prompt_tokens"] + requests["output_tokens"] - 1):
        mine = [tensor["tokens"] for frame in frames for tensor in frame["tensors"] if tensor["request"] == request]
        assert max(mine) == final


def test_each_scene_shows_what_its_title_says(told: dict[str, dict[str, Any]]) -> None:
    assert any("slots 1 to 32" in line for line in said(told["reserve-max"]))
    assert any(frame["ledger"]["rounding"] for frame in told["buddy"]["frames"])
    assert any("takes slots 1 to 22." in line for line in said(told["buddy"])), "of 32, which no sentence counts"
    assert any("32 slots are free, but the largest hole has 16" in line for line in said(told["holes"]))
    assert any(frame["ledger"]["external"] == 32 for frame in told["holes"]["frames"])
    assert any("grows into block" in line for line in said(told["paged"]))
    assert any("found in the cache" in line for line in said(told["prefix"]))
    assert any("are shared by 3 sequences" in line for line in said(told["prefix"]))
    assert any("cached for prompts that begin alike" in line for line in said(told["prefix"]))
    assert any(
        "Copy on write: sequences of request 0 write into shared block 3" in line
        for line in said(told["copy-on-write"])
    )
    for name, how in (("preempt-recompute", "computed again"), ("preempt-swap", "copied back from the host")):
        lines = said(told[name])
        assert any("the newest, is preempted" in line for line in lines)
        assert any("comes back" in line and how in line for line in lines)


def test_preemptions_told_are_preemptions_counted(
    recorded: dict[str, RunDirectory], told: dict[str, dict[str, Any]]
) -> None:
    for name in ("preempt-recompute", "preempt-swap", "paged"):
        requests = recorded[name].runs[0].requests()
        lines = [line for line in said(told[name]) if "is preempted" in line]
        assert len(lines) == requests["preemptions"].sum()


def test_paging_serves_the_same_requests_sooner(recorded: dict[str, RunDirectory]) -> None:
    ends = {}
    for name in ("reserve-max", "paged"):
        requests = recorded[name].runs[0].requests()
        ends[name] = requests["finish_s"].max()
    one, two = (recorded[name].runs[0].requests()["arrival_s"] for name in ends)
    np.testing.assert_array_equal(one, two)
    assert ends["paged"] < 0.75 * ends["reserve-max"]


def test_what_cannot_be_seen_whole_is_refused(tmp_path: Path) -> None:
    large = open_directory(write_directory(tmp_path / "run", count=4, num_blocks=600, kinds=("paged",)))
    with pytest.raises(RunDirectoryError, match="600 blocks"):
        write_walkthrough({"paged": large}, tmp_path / "walk.html")
    (tmp_path / "run" / "run0" / "blocks.parquet").unlink()
    with pytest.raises(RunDirectoryError, match="no block map was recorded"):
        write_walkthrough({"paged": large}, tmp_path / "walk.html")


@pytest.mark.parametrize(
    ("blocks", "words"),
    [([], "no block"), ([3], "block 3"), ([4, 3], "blocks 3 and 4"), ([1, 2, 3, 9], "blocks 1 to 3, 9")],
)
def test_blocks_are_named_as_ranges(blocks: list[int], words: str) -> None:
    assert some(blocks, "block") == words
