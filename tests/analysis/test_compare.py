"""Which requests a comparison is of: the same ones on both sides, and all of them unless it says otherwise."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from analysis.compare import SOME, Comparison, compare, compare_allocators
from analysis.differences import show_comparison
from analysis.metrics import PER_REQUEST
from analysis.numbers import short
from analysis.observed import Observed
from analysis.reading import RunDirectory
from sim.runner import run
from workloads.loader import load

SMALL = """\
name: small
model: tiny-llama
device: {name: h100-80gb, kv_memory_gib: 0.0005}
engine: {max_num_seqs: 4, max_model_len: 256, max_num_batched_tokens: 96}
requests:
  count: 60
  arrivals: {kind: poisson, rate: 300}
  lengths: {kind: uniform, prompt: {min: 10, max: 120}, output: {min: 2, max: 40}}
allocators:
  - {kind: paged}
  - {kind: paged, scheduler: vllm-v0, label: whole prompts}
"""
SESSIONS = "requests.session={kind: turns, turns: 3, think_s: 0.001}"


def served(tmp_path: Path, name: str, *settings: str) -> RunDirectory:
    (tmp_path / "small.yaml").write_text(SMALL)
    return run(load(tmp_path / "small.yaml", settings), tmp_path / name)


def paired(comparison: Comparison) -> set[str]:
    return {one.name for one in comparison.differences if one.basis == "requests"}


def test_latencies_are_of_the_requests_that_both_sides_served(tmp_path: Path) -> None:
    directory = served(tmp_path, "x")
    first, second = (one.requests() for one in directory.runs)
    both = (first["status"] == "finished") & (second["status"] == "finished")
    assert 0 < np.count_nonzero(both) < np.count_nonzero(first["status"] == "finished"), "vllm-v0 refuses long prompts"
    comparison = compare_allocators(directory.path)
    assert comparison.notes == [f"whole prompts: {SOME}"]
    metrics = {metric.__name__: metric for metric in PER_REQUEST}
    for one in comparison.differences:
        assert one.change.value == pytest.approx(one.second - one.first)
        if one.basis == "requests":
            sides = [metrics[one.name](Observed(columns, {}, 1))[both] for columns in (first, second)]
            assert [one.first, one.second] == pytest.approx([np.nanmean(side) for side in sides])
    assert paired(comparison) == {"ttft_s", "tpot_s", "normalized_latency_s"}


def test_so_they_are_in_each_of_several_replications(tmp_path: Path) -> None:
    directory = served(tmp_path, "x", "repeat=3", "horizon_s=0.25")
    comparison = compare_allocators(directory.path)
    assert comparison.notes == [f"whole prompts: {SOME}"]
    runs = {(one.label, one.repeat): one.requests() for one in directory.runs}
    pairs = [(runs["paged", repeat], runs["whole prompts", repeat]) for repeat in range(3)]
    for metric in PER_REQUEST:
        if (row := next((one for one in comparison.differences if one.name == metric.__name__), None)) is not None:
            sides = np.array([[metric(Observed(columns, {}, 1)) for columns in pair] for pair in pairs])
            sides[np.isnan(sides).any(axis=1)[:, None].repeat(2, axis=1)] = np.nan
            first, second = np.nanmean(sides, axis=2).T
            assert [row.first, row.second] == pytest.approx([first.mean(), second.mean()])
            assert (row.basis, row.change.n) == ("replications", 3)
            assert row.change.value == pytest.approx((second - first).mean()) == pytest.approx(row.second - row.first)


def test_what_is_in_common_in_one_replication_only_has_no_interval(tmp_path: Path) -> None:
    directory = served(tmp_path, "x", "repeat=2", "horizon_s=0.025", "requests.arrivals.rate=100")
    comparison = compare_allocators(directory.path)
    begun = {(one.label, one.repeat): ~np.isnan(one.requests()["first_token_s"]) for one in directory.runs}
    common = [(begun["paged", repeat] & begun["whole prompts", repeat]).any() for repeat in range(2)]
    assert sum(common) == 1, "in the other replication the end comes before a first token"
    (row,) = (one for one in comparison.differences if one.name == "ttft_s")
    assert (row.basis, row.change.n) == ("", 1)
    told = next(one for one in comparison.document()["rows"] if one["metric"] == "ttft_s")
    assert told["low"] is told["high"] is told["basis"] is None
    assert told["difference"] == pytest.approx(row.second - row.first)


def test_nothing_is_said_where_all_were_served(tmp_path: Path) -> None:
    directory = served(tmp_path, "x", "engine.max_num_batched_tokens=2048")
    assert not compare_allocators(directory.path).notes
    assert not compare(directory.path, directory.path).notes


def test_sessions_of_one_draw_are_the_same_requests_whenever_they_come(tmp_path: Path) -> None:
    slow, fast = (served(tmp_path, f"{seats}", SESSIONS, f"engine.max_num_seqs={seats}") for seats in (1, 8))
    arrivals = [each.runs[0].requests()["arrival_s"].tolist() for each in (slow, fast)]
    assert arrivals[0] != arrivals[1], "a turn comes when the one before is answered"
    comparison = compare(slow.path, fast.path)
    assert not [note for note in comparison.notes if "same requests" in note]
    assert paired(comparison) == {"ttft_s", "tpot_s", "normalized_latency_s"}
    other = served(tmp_path, "other", SESSIONS, "seed=1")
    assert "did not serve the same requests" in compare(slow.path, other.path).notes[-1]


def test_changes_are_written_with_commas_and_from_nothing_with_both_ends(tmp_path: Path) -> None:
    changes = [
        "requests={count: 60, arrivals: {kind: poisson, rate: 80}, lengths: {kind: fixed, prompt: 60, output: 60}}",
        "engine.max_num_seqs=8",
    ]
    large, small = (served(tmp_path, f"{gib}", *changes, f"device.kv_memory_gib={gib}") for gib in (0.01, 0.00015))
    comparison = compare(large.path, small.path)
    console = Console(file=(out := io.StringIO()), width=200)
    assert show_comparison(comparison, console, 5) == 1
    rows = {one.name: one for one in comparison.differences if one.label == "paged"}
    assert rows["share.reserved"].percent > 1000
    assert f" {rows['share.reserved'].percent:+,.1f} " in out.getvalue()
    assert f"worse by more than 5 %: paged preemptions (0 to {short(rows['preemptions'].second)})\n" in out.getvalue()
