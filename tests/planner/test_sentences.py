"""The sentences of sweeps and capacity searches, of summaries made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.page.words import Finding
from analysis.planner.capacities import FAILED, summarise
from analysis.planner.words import capacity_findings, sweep_findings

NO_ENDS = {"low": None, "high": None}


def cell(allocator: str, mean: float, **ends: float) -> dict[str, Any]:
    figures = {"throughput_rps": {"mean": mean, **(ends or NO_ENDS)}}
    facts = {"kind": "paged", "settings": {}, "front": True, "verdict": "STABLE"}
    return {"allocator": allocator, "figures": figures, **facts}


def said(findings: list[Finding]) -> list[str]:
    return [one.text for one in findings]


def test_of_many_cells_as_good_as_the_best_three_are_named() -> None:
    cells = [cell(name, 2.5) for name in "abcde"]
    assert "3 more cells cannot be told apart from it: b; c; d." in said(sweep_findings(cells[:4], {}))
    assert "4 more cells cannot be told apart from it: b; c; d; and others." in said(sweep_findings(cells, {}))


@pytest.mark.parametrize(("high", "alike"), [(2.6, True), (2.4, True), (2.3, False)])
def test_a_cell_whose_interval_reaches_that_of_the_best_is_not_told_apart(high: float, alike: bool) -> None:
    cells = [cell("best", 2.5, low=2.4, high=2.6), cell("other", 2.2, low=2.1, high=high)]
    assert ("1 more cell cannot be told apart from it: other." in said(sweep_findings(cells, {}))) is alike


def test_of_two_allocators_the_better_one_is_named_first_and_with_what_settings() -> None:
    ratio = {
        "settings": {"requests.rate": 3},
        "allocator": "paged",
        "over": "ideal",
        "mean": 0.5,
        "low": 0.4,
        "high": 0.8,
    }
    found = capacity_findings({"answers": [], "unit": "requests/s", "slo": [], "curves": [], "ratios": [ratio]})
    assert said(found) == ["ideal at rate 3 sustains 2.00 times what paged does (95 % interval 1.25 to 2.50)."]


def test_what_failed_is_no_replication_and_a_rate_keeps_up_if_all_runs_at_it_do() -> None:
    def run(repeat: int, *, kept_up: bool) -> dict[str, Any]:
        facts = {"cell": 0, "allocator": "paged", "kind": "paged", "pool_slots": 9, "rate": 4.0, "sustained": True}
        counts = {"requests.total": 9, "requests.refused": 0, "requests.refusals": "{}", "offered_rps": 4, "e2e_s": 1.0}
        return {**facts, **counts, "duration_s": 3.0, "repeat": repeat, "kept_up": kept_up}

    def search(repeat: int, sustained: float | None, why: str) -> dict[str, Any]:
        return {"repeat": repeat, "sustained": sustained, "not_sustained": 8.0, "limited_by": why, "missed": {}}

    searches = [search(0, 4.0, "queue"), search(1, 4.0, "queue"), search(2, None, f"{FAILED}no memory")]
    answer = {"point": 0, "settings": {}, "allocator": "paged", "gpus": 1, "searches": searches}
    for second in (True, False):
        runs = [run(0, kept_up=True), run(1, kept_up=second)]
        summary = summarise(runs, [answer], [], "requests/s", [])
        (told,) = summary["answers"]
        assert (told["n"], told["none"], told["capacity"]["mean"]) == (2, 0, 4.0)
        assert [point["kept_up"] for point in summary["curves"][0]["points"]] == [second]
