"""What is asked of a run: that it keeps up with its arrivals, and meets objectives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.observed import Observed
from analysis.planner.effects import share
from analysis.planner.observe import batches, load
from sim.cli import main
from sim.cli.app import FAULT
from sim.errors import UserError
from sim.planner.grid import Base
from sim.planner.job import Failed, work
from sim.planner.slo import Objective, objectives, shortfall

Capture = pytest.CaptureFixture[str]


def observed(arrival: list[float], stay: float) -> Observed:
    """Requests that each stay so long, in steps of which nothing else is asked."""
    arrivals = np.array(arrival)
    requests = {
        "arrival_s": arrivals,
        "finish_s": arrivals + stay,
        "first_token_s": arrivals + stay / 2,
        "scheduled_s": arrivals,
        "generated_tokens": np.full(len(arrivals), 2),
        "status": np.array(["finished"] * len(arrivals), dtype=object),
    }
    end = float(arrivals[-1] + stay)
    steps = {
        "start_s": np.array([0.0]),
        "duration_s": np.array([end]),
        "running": np.array([1]),
        "waiting": np.array([0]),
        "blocked": np.array([""], dtype=object),
    }
    return Observed(requests, steps, 1)


def test_what_piles_up_in_a_large_pool_without_a_queue_has_fallen_behind() -> None:
    times = np.linspace(0, 100, 1001).tolist()
    assert load(observed(times, 1.0), ())["kept_up"]
    assert not load(observed(times, 70.0), ())["kept_up"]  # of those that came in the second half none has left
    told = load(observed(times, 1.0), ())
    assert told["offered_rps"] == pytest.approx(10)
    assert (told["arrived"], told["left"]) == (500, 500)


def test_where_as_many_leave_as_arrive_it_does_not_matter_who_waits_and_who_runs() -> None:
    times = np.linspace(0, 100, 1001).tolist()
    seen = observed(times, 50.0)
    steps = {name: np.repeat(column, 2) for name, column in seen.steps.items()}
    steps |= {"start_s": np.array([0.0, 75.0]), "duration_s": np.full(2, 75.0), "waiting": np.array([0, 400])}
    told = load(replace(seen, steps=steps), ())
    assert told["arrived"] - told["left"] == 0
    assert told["kept_up"]


def test_batches_add_up_to_all_requests() -> None:
    seen = observed(np.linspace(0, 100, 130).tolist(), 1.0)
    sums = batches(seen)
    assert len(sums["requests"]) == 50
    assert sum(sums["requests"]) == sum(sums["good"]) == 130
    assert sum(sums["normalized_latency_s"]) == pytest.approx(130 * 0.5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("ttft", "write it as figure=limit"),
        ("ttft_s=-1", "write it as figure=limit"),
        ("ttft_s=x", "write it as figure=limit"),
        ("ttft_s.p99=200ms", "a limit is a number above 0, of seconds where it is a time"),
        ("tfft_s=1", "unknown figure tfft_s (did you mean ttft_s?)"),
        ("ttft_s.p98=1", "unknown percentile p98; there are: mean, p50, p90, p95, p99"),
        ("goodput=2", "at most 1"),
        ("goodput.p99=0.5", "at most 1"),
    ],
)
def test_an_objective_that_makes_no_sense_is_one_line(
    setting: str, message: str, workload: Path, capsys: Capture
) -> None:
    assert main(["capacity", str(workload), "--slo", setting]) == FAULT
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(("good", "met"), [([5, 4], True), ([4, 4], False), ([5, 5], True)])
def test_goodput_is_a_share_of_all_requests(good: list[float], *, met: bool) -> None:
    """Batches differ in size, and there are far more requests than batches."""
    record = {"batches": {"requests": [6.0, 4.0], "good": [float(one) for one in good]}}
    assert share(record) == pytest.approx(sum(good) / 10)
    assert Objective("goodput", 0.9).met(record) is met


def test_without_an_objective_the_files_own_is_asked(base: Base, workload: Path) -> None:
    assert objectives((), base.workload) == (Objective("goodput", 0.9),)
    bare = Base(str(workload), ["slo={}"]).workload
    with pytest.raises(UserError, match="the workload has no slo"):
        objectives((), bare)
    with pytest.raises(UserError, match="no slo for requests to meet"):
        objectives(("goodput=0.9",), bare)
    with pytest.raises(UserError, match="given twice"):
        objectives(("ttft_s=1", "ttft_s=2"), bare)
    assert objectives(("ttft_s.mean=1",), bare) == (Objective("ttft_s", 1.0),)


def test_objectives_read_the_figures_of_a_run(base: Base) -> None:
    record = work(base.job(base.workload, 1, 0))
    assert not isinstance(record, Failed)
    metrics = record["entry"]["metrics"]
    assert Objective("ttft_s.p99", 1).value(record) == metrics["ttft_s"]["p99"]
    assert Objective("tpot_s", 1).value(record) == metrics["tpot_s"]["mean"]
    share = metrics["goodput_rps"] * record["entry"]["duration_s"] / record["entry"]["requests"]["total"]
    assert Objective("goodput", 0.9).value(record) == pytest.approx(share)


@pytest.mark.parametrize("total", [0, 3])
def test_a_part_of_which_no_request_came_breaks_no_objective_and_one_that_was_refused_does(total: int) -> None:
    metrics = {"ttft_s": {"p99": None}, "goodput_rps": 0.0 if total else None}
    entry = {"duration_s": 1.0, "parts": {"rare": {"requests": {"total": total}, "metrics": metrics}}}
    for aim in (Objective("part.rare.ttft_s.p99", 1.0), Objective("part.rare.goodput", 0.9)):
        assert aim.met({"entry": entry}) is (total == 0)


def test_how_many_are_over_each_limit_is_told_only_where_it_is_goodput_that_falls_short() -> None:
    record = {
        "entry": {"requests": {"total": 10}, "metrics": {"ttft_s": {"mean": 2.0}}},
        "batches": {"requests": [10.0], "good": [8.0]},
        "load": {"kept_up": True},
        "missed": {"ttft_s": 2, "unfinished": 1},
    }
    slow, good = Objective("ttft_s", 1.0), Objective("goodput", 0.9)
    assert shortfall(record, (slow,)) == {"limited_by": "ttft_s=1", "missed": {}}
    assert shortfall(record, (slow, Objective("goodput", 0.8))) == {"limited_by": "ttft_s=1", "missed": {}}
    behind = record | {"load": {"kept_up": False}}
    over = {"ttft_s": 0.2, "unfinished": 0.1}
    assert shortfall(behind, (slow, good)) == {"limited_by": "ttft_s=1, goodput=0.9, queue", "missed": over}
