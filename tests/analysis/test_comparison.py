"""What a comparison says: settings, pairs, what is worse and by how much."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from analysis.compare import Difference, compare, compare_allocators
from analysis.differences import show_comparison
from analysis.errors import RunDirectoryError
from analysis.figures import COST, figure
from analysis.pools import pool_of
from analysis.published import Row
from analysis.reading import open_directory
from analysis.stats import Interval, paired_difference
from tests.analysis.synthetic import write_directory


def test_a_directory_compared_with_itself_differs_in_nothing(toy: Path) -> None:
    comparison = compare(toy, toy)
    assert all(one.change.value == 0 for one in comparison.differences)
    assert comparison.regressions(0) == []
    out = io.StringIO()
    assert show_comparison(comparison, Console(file=out), threshold=0) == 0
    labels = {one.label for one in comparison.differences}
    assert out.getvalue().count("no figure differs") == len(labels)
    assert "throughput_rps" not in out.getvalue()


def test_a_comparison_says_which_settings_differ(toy: Path, tmp_path: Path) -> None:
    other = write_directory(tmp_path / "other", count=80, rate=5)
    both = [json.loads((path / "manifest.json").read_text()) for path in (toy, other)]
    one, two = (content["workload"] for content in both)
    for workload, kinds in ((one, ("preallocated", "paged", "ideal")), (two, ("preallocated", "virtual", "ideal"))):
        workload |= {"allocators": [{"kind": kind} for kind in kinds], "engine": {"scheduler": "vllm-v1"}}
    two["engine"]["scheduler"] = "orca"
    two["allocators"][0]["block_size"] = 4
    two["name"], two["remarks"] = "another", ["of no consequence"]
    both[1]["runs"][1]["label"] = "virtual"
    summary = json.loads((other / "summary.json").read_text())
    summary["runs"][1]["allocator"] = "virtual"
    (other / "summary.json").write_text(json.dumps(summary))
    for path, content in zip((tmp_path / "first", other), both, strict=True):
        path.mkdir(exist_ok=True)
        (path / "manifest.json").write_text(json.dumps(content))
    (tmp_path / "first/summary.json").write_bytes((toy / "summary.json").read_bytes())
    for run in both[0]["runs"]:
        (tmp_path / "first" / run["dir"]).symlink_to(toy / run["dir"])
    comparison = compare(tmp_path / "first", other)
    assert [(one.key, one.first, one.second) for one in comparison.settings] == [
        ("engine.scheduler", "vllm-v1", "orca"),
        ("allocators.preallocated.block_size", "unset", 4),
    ]
    out = io.StringIO()
    show_comparison(comparison, Console(file=out, width=100))
    assert "engine.scheduler: vllm-v1 → orca\n" in out.getvalue()


def test_allocators_of_one_directory_are_paired_by_replication(repeated: Path) -> None:
    comparison = compare_allocators(repeated, "ideal")
    entries = open_directory(repeated).summary()
    rates = {
        label: np.array([one["metrics"]["throughput_rps"] for one in entries if one["allocator"] == label])
        for label in ("ideal", "paged")
    }
    found = next(one for one in comparison.differences if (one.label, one.name) == ("paged", "throughput_rps"))
    assert found.basis == "replications"
    assert found.change == paired_difference(rates["ideal"], rates["paged"])
    assert (found.first, found.second) == pytest.approx((rates["ideal"].mean(), rates["paged"].mean()))
    assert "ideal" not in {one.label for one in comparison.differences}
    assert comparison.document()["against"] == "ideal"
    assert compare_allocators(repeated).against == entries[0]["allocator"]
    out = io.StringIO()
    show_comparison(comparison, Console(file=out, width=200))
    assert f"{repeated}: ideal → each of the others" in out.getvalue()
    sizes = [run.capacity for run in open_directory(repeated).runs]
    assert f"with a {pool_of(sizes)}" in out.getvalue()
    with pytest.raises(RunDirectoryError, match="no allocator nobody; there are: "):
        compare_allocators(repeated, "nobody")


def test_what_differs_in_the_pool_is_told_but_not_judged(toy: Path) -> None:
    comparison = compare_allocators(toy, "paged")
    told = {(one.label, one.name): one for one in comparison.differences}
    internal = told["preallocated", "share.internal"]
    entries = {entry["allocator"]: entry for entry in open_directory(toy).summary()}
    assert internal.second == figure(entries["preallocated"], "share.internal") > internal.first
    assert not internal.worse(0)
    assert ("ideal", "share.external") not in told, "neither of the two has any"
    out = io.StringIO()
    show_comparison(comparison, Console(file=out, width=100))
    assert "shares are of the pool's slots" in out.getvalue()


def test_names_of_figures_are_not_broken_on_a_narrow_terminal(toy: Path) -> None:
    comparison = compare(toy, toy)
    (first, *_) = comparison.differences
    priced = replace(first, name=COST, change=Interval(1.0, -1.234, -1.234, 2), basis="requests")
    out = io.StringIO()
    show_comparison(replace(comparison, differences=[priced]), Console(file=out, width=80))
    assert f"  {COST} " in out.getvalue()
    assert " requests" in out.getvalue(), "the last column is whole, too"


def test_a_smaller_pool_is_a_regression_by_requests(toy: Path, tmp_path: Path) -> None:
    smaller = write_directory(tmp_path / "small", count=80, rate=5, num_blocks=100)
    comparison = compare(toy, smaller)
    latency = next(one for one in comparison.differences if (one.label, one.name) == ("paged", "ttft_s"))
    assert latency.basis == "requests"
    assert latency.change.low > 0
    assert latency.worse(5)
    out = io.StringIO()
    assert show_comparison(comparison, Console(file=out, width=140), threshold=5) == 1
    assert "worse by more than 5 %" in out.getvalue()
    assert "pool of" not in out.getvalue(), "the pools differ"
    assert show_comparison(comparison, Console(file=io.StringIO())) == 0, "without a threshold nothing fails"
    back = compare(smaller, toy)
    assert not [one for one in back.regressions(5) if one.name == "ttft_s"]


@pytest.mark.parametrize(
    ("name", "second", "bounds", "basis", "worse"),
    [
        ("throughput_rps", 80, (-25, -15), "replications", True),
        ("throughput_rps", 80, (-45, 5), "replications", False),  # it may be chance
        ("throughput_rps", 80, (-np.inf, np.inf), "", True),  # nobody knows whether it is
        ("throughput_rps", 96, (-5, -3), "replications", False),  # within the threshold
        ("throughput_rps", 120, (15, 25), "replications", False),  # better
        ("ttft_s", 120, (15, 25), "requests", True),
        ("ttft_s", 80, (-25, -15), "requests", False),
    ],
)
def test_a_figure_is_worse_by_more_than_a_threshold_and_by_more_than_chance(
    name: str, second: float, bounds: tuple[float, float], basis: str, *, worse: bool
) -> None:
    change = Difference("paged", name, 100.0, second, Interval(second - 100, *bounds, 5), basis)
    assert change.worse(5) is worse


@pytest.mark.parametrize(
    ("given", "simulated", "said"),
    [
        ({"low": 10, "high": 20}, 15, "within"),
        ({"low": 10, "high": 20}, 25, "+25.0 %"),
        ({"low": 10, "high": 20}, 5, "-50.0 %"),
        ({"value": 10}, 12, "+20.0 %"),
        ({"high": 20}, 5, "within"),
        ({"high": 20}, 25, "+25.0 %"),
        ({"low": 10}, 25, "within"),
        ({"low": 10}, 5, "-50.0 %"),
    ],
)
def test_a_simulated_figure_is_compared_with_the_nearest_published_one(
    given: dict[str, float], simulated: float, said: str
) -> None:
    row = Row("", "paged", "batch_size", given, Interval(simulated, simulated, simulated, 3))
    assert row.difference == said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"value": 0.5}, "50 %"),
        ({"low": 0.1, "high": 0.25}, "10 % to 25 %"),
        ({"high": 0.2}, "at most 20 %"),
        ({"low": 0.1}, "at least 10 %"),
        ({"low": 2, "over": "ideal"}, "at least 2x"),
    ],
)
def test_what_was_published_is_written_with_the_ends_that_it_has(given: dict[str, Any], said: str) -> None:
    assert Row("", "paged", "kv_usage", given, Interval(0.5, 0.5, 0.5, 1)).published == said


@pytest.mark.parametrize(
    ("given", "high", "said"),
    [
        ({"value": 2}, math.inf, "-"),
        ({"value": 2, "over": "ideal"}, math.inf, "one run"),
        ({"value": 2, "over": "ideal"}, 3.0, "1 … 3"),
    ],
)
def test_the_interval_of_a_single_run_is_none(given: dict[str, Any], high: float, said: str) -> None:
    assert Row("", "paged", "batch_size", given, Interval(2.0, 1.0, high, 1)).interval == said


def test_a_change_that_rounds_to_nothing_has_no_sign(toy: Path, tmp_path: Path) -> None:
    comparison = compare(toy, write_directory(tmp_path / "small", count=80, rate=5, num_blocks=100))
    nearly = [replace(one, second=one.first * (1 - 1e-5)) for one in comparison.differences if one.first > 0]
    out = io.StringIO()
    show_comparison(replace(comparison, differences=nearly), Console(file=out, width=140))
    assert " 0.0 " in out.getvalue()
    assert "-0.0 " not in out.getvalue()


def test_replications_are_paired(repeated: Path, tmp_path: Path) -> None:
    smaller = write_directory(tmp_path / "small", count=40, rate=5, num_blocks=100, repeats=3)
    comparison = compare(repeated, smaller)
    assert {one.basis for one in comparison.differences} == {"replications"}
    assert all(one.change.n == 3 for one in comparison.differences)
    document = comparison.document()
    assert document["schema"] == 1
    assert len(document["rows"]) == len(comparison.differences)


def test_only_replications_of_both_sides_count(repeated: Path, tmp_path: Path) -> None:
    once = write_directory(tmp_path / "once", count=40, rate=5)
    for comparison in (compare(once, repeated), compare(repeated, once)):
        assert comparison.notes == ["Only replications that both directories have are compared."]
        assert {one.basis for one in comparison.differences} == {"requests", ""}
        for one in comparison.differences:
            assert one.second == one.first, "it is the same run"
            assert one.change.value == 0
    out = io.StringIO()
    show_comparison(comparison, Console(file=out, width=100))
    lines = out.getvalue().splitlines()
    assert " preallocated" in (line.rstrip() for line in lines)
    assert max(map(len, lines)) <= 100


def test_other_draws_are_not_paired(toy: Path, tmp_path: Path) -> None:
    other = write_directory(tmp_path / "other", count=80, rate=5, seed=1, kinds=("paged",))
    comparison = compare(toy, other)
    assert all(not one.basis for one in comparison.differences)
    assert any("did not serve the same requests" in note for note in comparison.notes)
    assert any("preallocated: only in" in note for note in comparison.notes)


def test_replications_of_other_draws_have_an_interval_all_the_same(repeated: Path, tmp_path: Path) -> None:
    other = write_directory(tmp_path / "other", count=40, rate=5, seed=1, repeats=3)
    comparison = compare(repeated, other)
    assert {one.basis for one in comparison.differences} == {"draws"}
    for one in comparison.differences:
        assert one.change.value == pytest.approx(one.second - one.first)
        assert one.change.low <= one.change.value <= one.change.high
    assert any("did not serve the same requests" in note for note in comparison.notes)
