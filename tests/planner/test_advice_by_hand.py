"""Sentences and table of advice, of summaries made by hand; what is tried first, and how a choice is checked."""

from __future__ import annotations

import io
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

from analysis.planner.advising import advice_table, table_rows, words
from sim.planner.advice import FIRST, _by_relevance
from sim.planner.adviser import Adviser
from sim.planner.grid import Base
from sim.planner.knobs import Change
from sim.planner.source import Source
from sim.planner.vary import Axis

Summary = dict[str, Any]
NOTHING = {"mean": 0.0, "low": 0.0, "high": 0.0}
SLO = [{"name": "goodput", "limit": 0.9, "text": "goodput=0.9"}]


def figure(mean: float | None, *ends: float) -> dict[str, float | None]:
    low, high = ends or (None, None)
    return {"mean": mean, "low": low, "high": high}


def tried(change: str, tells: str, **more: Any) -> Summary:
    """A change that makes 2 ms (1 to 3) less of 20, and 5 points (4 to 6) more of 80 % good requests."""
    effect = {"good": figure(0.05, 0.04, 0.06), "latency": figure(-0.002, -0.003, -0.001), "tells": tells}
    figures = {"good": figure(0.85), "latency": figure(0.018)}
    facts = {"change": change, "knobs": [change.partition(" ")[0]], "meets": False, "kept_up": True}
    return {**facts, "figures": figures, "effect": effect, "replications": [], **more}


def summary(*changes: Summary, **more: Any) -> Summary:
    saved = {"bandwidth": 0.5, "compute": 0.2, "overhead": 0.1}
    limits = {"waits": {}, "saved": saved, "during": "busy", "idle": 0.25, "kept_up": True}
    same = {"good": NOTHING, "latency": NOTHING, "tells": "none"}
    as_it_is = tried("", "none", effect=same, figures={"good": figure(0.8), "latency": figure(0.02)})
    facts = {"limits": limits, "slo": SLO, "before": as_it_is, "changes": list(changes), "hardware": [], "left_out": []}
    facts |= {"best": {**as_it_is, "knobs": [], "confirmed": None}, "basis": "replications", "drawn": True}
    return {**facts, "allocator": "paged", "budget": 100, **more}


def said(content: Summary) -> list[tuple[str, str]]:
    return [(one.tone, one.text) for one in words(content)][1:]  # the first says what limits


def test_changes_that_do_nothing_worth_while_are_listed_knob_by_knob() -> None:
    changes = [
        tried("watermark 0.01 -> 0", "slight"),
        tried("block_size 16 -> 8", "same"),
        tried("block_size 16 -> 32", "same"),
        tried("watermark 0.01 -> 0.05", "none"),
        tried("max_num_seqs 256 -> 64", "worse"),
    ]
    advice, *others = said(summary(*changes))
    assert advice[0] == "advice"
    assert advice[1].startswith("Change nothing: no setting that was tried is clearly better")
    assert others == [
        ("limit", "A clear difference, but too small to be worth a change: watermark 0.01 -> 0."),
        ("limit", "No clear difference from the file as it is: block_size 16 -> 8, 32."),
        ("limit", "No difference at all, request by request: watermark 0.01 -> 0.05."),
    ]


@pytest.mark.parametrize(("slo", "which"), [(SLO, "within the SLO"), ([], "that finish")])
def test_what_a_choice_buys_is_told_with_what_makes_a_request_good(slo: list[Any], which: str) -> None:
    best = tried("kv_dtype bf16 -> fp8", "better", meets=True, confirmed=None)
    told = said(summary(best, best=best, slo=slo))
    bought = f"+5.00 (+4.00 to +6.00) percentage points of requests {which} and -2.00 (-3.00 to -1.00) ms of latency"
    met = " goodput=0.9 (90 % of requests within the SLO) is met." if slo else ""
    change = "Change kv_dtype bf16 -> fp8. Compared with the file as it is: "
    assert told[0] == ("advice", f"{change}{bought} per output token.{met}")
    assert told[1][0] == "warning"
    assert "in fp8 is not simulated" in told[1][1]


@pytest.mark.parametrize(("tells", "tone"), [("better", "advice"), ("same", "warning")])
def test_a_choice_that_was_measured_again_and_is_no_better_is_a_warning(tells: str, tone: str) -> None:
    best = tried("watermark 0.01 -> 0", "better")
    again = {**best["effect"], "tells": tells, "good": NOTHING}
    told = said(summary(best, best={**best, "confirmed": again}))
    text = "on replications that had no part in the choice: -2.00 (-3.00 to -1.00) ms of latency per output token."
    assert told[1] == (tone, f"Measured once more, {text}")


@pytest.mark.parametrize(("drawn", "begin"), [(True, "Nothing was repeated"), (False, "A trace is the same")])
def test_a_choice_from_one_run_is_said_not_to_be_checked(begin: str, *, drawn: bool) -> None:
    best = tried("watermark 0.01 -> 0", "better", confirmed=None)
    told = said(summary(best, best=best, basis="requests", drawn=drawn))
    assert told[1][0] == "warning"
    assert told[1][1].startswith(begin)
    assert ", so this choice could not be checked on other requests." in told[1][1]


def test_of_the_hardware_what_gains_most_is_told() -> None:
    slower = {**tried("compute 900 -> 1100", "better")["effect"], "latency": figure(-0.001, -0.002, -0.0005)}
    hardware = [tried("compute 900 -> 1100", "better", effect=slower), tried("memory bandwidth 3 -> 4", "better")]
    (gain,) = [text for tone, text in said(summary(hardware=hardware)) if tone == "result"]
    assert gain.startswith("Of a quarter more of each of the GPU's resources, memory bandwidth 3 -> 4 gains most. ")
    none = [tried("compute 900 -> 1100", "slight")]
    assert ("result", "A quarter more bandwidth, compute or KV memory makes no difference worth a change.") in said(
        summary(hardware=none)
    )


def test_the_table_has_the_best_first_and_no_effect_where_nothing_differs() -> None:
    changes = [tried("a 1 -> 2", "worse"), tried("b 1 -> 2", "none"), tried("c 1 -> 2", "better")]
    best = {**tried("c 1 -> 2 and d 1 -> 2", "better"), "knobs": ["c", "d"]}
    found = summary(*changes, best=best, hardware=[tried("compute 900 -> 1100", "same")])
    rows = table_rows(found)
    assert [(row["change"], row["tells"]) for row in rows] == [
        ("as it is", ""),
        ("c 1 -> 2", "better"),
        ("b 1 -> 2", "same"),
        ("a 1 -> 2", "worse"),
        ("together: c 1 -> 2 and d 1 -> 2", "better"),
        ("(compute 900 -> 1100)", "unclear"),
    ]
    assert (rows[1]["good"], rows[1]["latency"]) == ("85.0", "18")
    assert (rows[1]["good_effect"], rows[1]["latency_effect"]) == (
        "+5.00 (+4.00 to +6.00)",
        "-2.00 (-3.00 to -1.00)",
    )
    for row in (rows[0], rows[2]):
        assert (row["good_effect"], row["latency_effect"]) == ("", "")
    out = io.StringIO()
    Console(file=out, width=100).print(advice_table(found))
    assert [line.strip() for line in out.getvalue().splitlines() if "and d 1" in line] == ["and d 1 -> 2"]


def test_knobs_that_help_against_what_limits_are_tried_first() -> None:
    names = ["max_num_seqs", "watermark", "block_size", "kv_dtype"]
    offered = [Change(name, 1, 2, Axis(name, (), ())) for name in names]
    assert [one.knob for one in _by_relevance(offered, "memory")] == [
        "kv_dtype",
        "block_size",
        "watermark",
        "max_num_seqs",
    ]
    assert _by_relevance(offered, "arrivals") == offered
    assert "arrivals" not in FIRST


@pytest.mark.parametrize(
    ("different", "repeats", "simulations"), [(None, 3, 6), (None, 1, 0), (6, 3, 6), (5, 3, 0), (1, 1, 0)]
)
def test_a_choice_is_measured_on_as_many_further_replications_if_there_are_so_many(
    different: int | None, repeats: int, simulations: int, base: Base
) -> None:
    """As it is and as it is chosen; engines that take turns are only so many."""
    adviser = Adviser(base, 0, (), Mock(), Source(different, shared=False), repeats, 100)
    assert adviser.confirming == simulations
