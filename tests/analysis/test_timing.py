"""Errors of times, and what is allowed of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.reading import open_directory
from analysis.timing import IN_EACH, IN_MEDIAN, Timed, Timing, figures, gathered, repeated, with_others
from tests.analysis.synthetic import write_directory

NAMES = (*IN_MEDIAN, *IN_EACH, "ttft_s.p50", "makespan_s")


def run(label: str = "paged", *, judged: bool = True, finished: tuple[int, int] = (5, 5), **errors: float) -> Timed:
    """A run of which figures (`_` for `.`) are off by so much."""
    off = {name: errors.get(name.replace(".", "_"), 0.0) for name in NAMES}
    measured = dict.fromkeys(NAMES, 2.0)
    return Timed("w", label, "orca", measured, {name: 2 * (1 + error) for name, error in off.items()}, finished, judged)


def test_errors_are_relative_to_what_was_measured() -> None:
    assert run(batch_size=-0.25).errors["batch_size"] == pytest.approx(-0.25)
    nothing = Timed("w", "l", "s", {"a": 0.0, "b": float("nan"), "c": 1.0}, dict.fromkeys("abc", 2.0), (1, 1))
    assert nothing.errors == {"c": 1.0}


def test_of_what_is_judged_in_the_median_one_run_may_be_off() -> None:
    assert Timing("c", [run(), run(), run(throughput_rps=0.5)]).passed
    timing = Timing("c", [run(), run(throughput_rps=-0.04), run(throughput_rps=0.05)])
    assert not timing.passed
    assert timing.faults == ["throughput_rps: off by 4.0% in the median over 3 runs, 3% allowed"]


@pytest.mark.parametrize("error", [0.09, -0.09])
def test_every_99th_percentile_counts(error: float) -> None:
    assert Timing("c", [run(ttft_s_p99=0.079)]).passed
    timing = Timing("c", [run(), run("other", ttft_s_p99=error), run()])
    assert len(timing.faults) == 1
    assert timing.faults[0].startswith(f"w, other: ttft_s.p99: {2 * (1 + error):.4g} against 2 measured, off by")


def test_what_is_only_reported_is_no_fault() -> None:
    assert Timing("c", [run(ttft_s_p50=0.5, makespan_s=0.5)]).passed
    assert Timing("c", [run(), run(judged=False, ttft_s_p99=3.0)]).passed
    assert Timing(None, [run(ttft_s_p99=3.0)]).passed


def test_requests_that_did_not_finish_are_a_fault() -> None:
    assert Timing("c", [run(finished=(4, 5))]).faults == ["w, paged: 4 requests finished, 5 in the simulation"]


def test_what_is_written_can_be_gathered_again() -> None:
    first, second = Timing("a", [run(batch_size=0.02)]), Timing("b", [run(ttft_s_p99=0.1, judged=False)])
    written = [json.loads(json.dumps(timing.as_json())) for timing in (first, second)]
    both = gathered(written)
    assert (both.calibration, both.passed, len(both.runs)) == ("a, b", True, 2)
    assert both.medians == pytest.approx(first.medians)
    assert gathered([*written, Timing(None, [run()]).as_json()]).judged is False


def test_of_repeats_the_middle_counts_and_their_spread_is_told() -> None:
    slow = replace(run(), measured=dict.fromkeys(NAMES, 2.6), finished=(4, 5))
    fast = replace(run(), measured=dict.fromkeys(NAMES, 1.8))
    once = Timing("c", [run(ttft_s_p99=0.2)])
    timing = repeated([once, Timing("c", [slow]), Timing("c", [fast])])
    (middle,) = gathered([json.loads(json.dumps(timing.as_json()))]).runs
    assert (middle.repeats, middle.measured["ttft_s.p99"], middle.finished) == (3, 2.0, (4, 5))
    assert middle.spread["ttft_s.p99"] == pytest.approx(0.2)
    assert timing.faults[1].endswith("off by +20.0%, 8% allowed (repeats within 20.0% of their middle)")
    assert repeated([once]).runs[0].measured == once.runs[0].measured


def test_how_far_a_figure_moves_with_the_time_of_steps_is_told_and_kept() -> None:
    sure = replace(run(ttft_s_p99=0.2), reach={"ttft_s.p99": (2.2, 2.5)})
    unsure = replace(run(ttft_s_p99=0.2), reach={"ttft_s.p99": (1.5, 2.5)})
    assert (sure.within("ttft_s.p99"), unsure.within("ttft_s.p99")) == (False, True)
    timing = Timing("c", [sure, unsure, run()])
    assert timing.reached == (1, 2)
    still = replace(run(ttft_s_p99=0.05), reach={"ttft_s.p99": (2.05, 2.2)})
    off = replace(run(ttft_s_p99=0.2), reach={"ttft_s.p99": (2.3, 2.5)})
    unjudged = replace(still, judged=False)
    assert Timing("c", [sure, unsure, run(), still, off, unjudged]).steady == (1, 2)
    assert timing.faults[0].endswith("8% allowed; from +10.0% to +25.0% if steps take up to 2% less or more")
    again = gathered([json.loads(json.dumps(timing.as_json()))])
    assert [each.reach for each in again.runs] == [sure.reach, unsure.reach, {}]


def test_other_simulations_widen_the_reach_of_the_one_that_counts(tmp_path: Path) -> None:
    others = [write_directory(tmp_path / str(count), count=count, rate=5) for count in (30, 50)]
    entry = {entry["allocator"]: entry for entry in open_directory(others[0]).summary()}
    label = next(iter(entry))
    own = dict.fromkeys(figures(entry[label]), 1.0)
    alone = Timed("w", label, "s", own, own, (1, 1))
    (found,) = with_others(Timing("c", [alone]), others).runs
    makespans = [
        next(e for e in open_directory(path).summary() if e["allocator"] == label)["duration_s"] for path in others
    ]
    assert found.reach["makespan_s"] == (min(1.0, *makespans), max(1.0, *makespans))
    assert set(found.reach) == set(own)
