"""Figures that planners tell, of runs made by hand, and at the edge of what counts."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, cast

import pytest

from analysis.page.overview import BARS
from analysis.planner import capacities, parts, sweeps, tables
from analysis.planner.binding import bound
from analysis.planner.effects import Effect
from analysis.planner.rows import row
from analysis.planner.sweeps import summarise
from analysis.stats import Interval
from sim.planner.execute import BatchProgress, JobRunner
from sim.planner.grid import Base
from sim.planner.job import Failed, Job, work

if TYPE_CHECKING:
    from sim.planner.backends import Backend
    from sim.planner.store import Store

Run = dict[str, Any]
SCALES = {"ms": 1e3, "s": 1, "%": 100}


def limits(**changes: Any) -> Run:
    saved = {"bandwidth": 0.5, "compute": 0.2, "overhead": 0.1}
    facts = {"waits": {}, "saved": saved, "during": "busy", "idle": 0.25, "kept_up": True, "scheduler": "vllm-v0"}
    return {**facts, "ledger": {"live": 0.4}, "held_peak": 0.9, **changes}


@pytest.mark.parametrize(("share", "name"), [(0.05, "arrivals"), (0.051, "seats")])
def test_waiting_for_more_than_a_twentieth_of_the_time_limits(share: float, name: str) -> None:
    assert bound(limits(waits={"seats": share, "memory": share / 2}))["name"] == name


@pytest.mark.parametrize(("scheduler", "name"), [("static", "batches"), ("vllm-v0", "memory")])
def test_only_a_scheduler_of_batches_waits_for_a_batch_to_end(scheduler: str, name: str) -> None:
    found = bound(limits(waits={"order": 0.5}, scheduler=scheduler))
    assert found["name"] == name
    assert ("the end of the batch" in found["text"]) is (name == "batches")
    assert ("at most 90 % of it was held" in found["text"]) is (name == "memory")


def test_what_falls_behind_without_a_queue_is_limited_by_the_longest_term() -> None:
    found = bound(limits(kept_up=False, saved={"bandwidth": 0.1, "compute": 0.2, "overhead": 0.3}))
    assert found["name"] == "overhead"
    assert found["text"].startswith("The overhead of a step limits this workload: fewer requests leave than arrive")


UNSURE = Interval(0.0, -1.0, 1.0, 3)


@pytest.mark.parametrize(("gain", "tells"), [(0.009, "slight"), (0.01, "better"), (-0.01, "worse"), (-0.009, "slight")])
def test_a_hundredth_is_worth_a_change(gain: float, tells: str) -> None:
    """Of all requests, or of the latency before."""
    clear = Interval(gain, *sorted((gain / 2, 2 * gain)), 3)
    assert Effect(clear, UNSURE, 4.0, "replications", identical=False).tells == tells
    slower = Interval(-4 * gain, *sorted((-2 * gain, -8 * gain)), 3)
    assert Effect(UNSURE, slower, 4.0, "replications", identical=False).tells == tells
    assert Effect(clear, UNSURE, 4.0, "replications", identical=True).tells == "none"


def test_figures_are_shown_in_their_unit() -> None:
    shown = [*sweeps.FIGURES, *capacities.CURVES, *BARS, *parts.figures(["chat"])]
    for name, _, unit, scale in shown:
        assert scale == SCALES.get(unit, 1), name
        assert (unit in ("s", "ms")) is (name.split(".")[2 if name.startswith("part.") else 0].endswith("_s")), name
    for title, unit, scale in capacities.LATENCIES.values():
        assert scale == SCALES[unit], title
    for columns in (tables.COLUMNS, parts.COLUMNS):
        for heading, name, scale in columns:
            unit = next((unit for unit in ("ms", "%") if unit in heading), "")
            assert scale == SCALES.get(unit, 1), name


def test_a_row_counts_memory_in_gib(base: Base) -> None:
    record = work(base.job(base.workload, 1, 0))
    assert not isinstance(record, Failed)
    pool, usage = record["pool"], record["entry"]["metrics"]["kv_usage"]
    flat = row(3, {"a.b": [1, 2], "c": 4}, "paged", 1, record)
    assert (flat["cell"], flat["a.b"], flat["c"], flat["repeat"]) == (3, "[1, 2]", 4, 1)
    assert flat["pool_gib"] == pytest.approx(pool["block_bytes"] * pool["num_blocks"] / 2**30)
    assert flat["held_gib.peak"] == pytest.approx(flat["pool_gib"] * usage["peak"])
    assert 0 < flat["held_gib.peak"] <= flat["pool_gib"]
    record["entry"]["metrics"]["kv_usage"] = {"mean": None, "peak": None}
    assert row(3, {}, "paged", 1, record)["held_gib.peak"] is None


def run(cell: int, kind: str, repeat: int = 0, **figures: float) -> Run:
    counts = {"requests.total": 8, "requests.refused": 2, "requests.unfinished": 1}
    reasons = {"requests.refusals": json.dumps(["more samples than seats"])}
    facts = {"allocator": kind, "kind": kind, "pool_slots": 64, "verdict": "STABLE", "kept_up": True, "repeat": repeat}
    return {"cell": cell, "x": cell, **facts, **counts, **reasons, **figures}


def had(cell: int, kind: str, rate: float, latency: float, held: float, repeat: int = 0) -> Run:
    figures = {"throughput_rps": rate, "normalized_latency_s": latency, "held_gib.peak": held}
    return run(cell, kind, repeat, **figures)


def test_the_front_is_of_more_requests_less_latency_and_less_memory_and_without_the_bound() -> None:
    cells = summarise(
        [
            had(0, "paged", 4.0, 2.0, 1.0),
            had(1, "paged", 3.0, 2.0, 1.0),  # fewer requests
            had(2, "paged", 4.0, 2.5, 1.0),  # slower
            had(3, "paged", 4.0, 2.0, 1.5),  # more memory
            had(4, "paged", 3.0, 1.0, 1.0),
            had(5, "paged", 3.0, 3.0, 0.5),
            had(6, "ideal", 9.0, 0.5, 0.1),
        ],
        ["x"],
        [],
    )["cells"]
    assert [one["cell"] for one in cells if one["front"]] == [0, 4, 5]
    assert [one["behind"]["throughput_rps"]["mean"] for one in cells[:2]] == [0.0, 1.0], "behind the best that is real"
    assert (cells[0]["refused"], cells[0]["unfinished"]) == (0.25, 0.125)
    assert cells[0]["refusals"] == ["more samples than seats"]
    assert cells[0]["settings"] == {"x": 0}


def test_a_cell_keeps_up_if_all_its_replications_do_and_is_as_bad_as_the_worst() -> None:
    runs = [had(0, "paged", 4.0, 2.0, 1.0, repeat) for repeat in range(3)]
    (cell,) = summarise(runs, ["x"], [])["cells"]
    assert (cell["n"], cell["kept_up"], cell["verdict"]) == (3, True, "STABLE")
    runs[1] |= {"kept_up": False, "verdict": "OVERLOADED"}
    (cell,) = summarise(runs, ["x"], [])["cells"]
    assert (cell["kept_up"], cell["verdict"]) == (False, "OVERLOADED")


def answer(kind: str, mean: float | None, **more: Any) -> Run:
    return {"kind": kind, "allocator": kind, "capacity": {"mean": mean, "low": None, "high": None}, **more}


@pytest.mark.parametrize(
    ("kinds", "chosen"),
    [
        ({"ideal": 9.0, "contiguous": 8.0, "paged": 3.0}, "paged"),
        ({"ideal": 9.0, "no-cache": 8.5, "contiguous": 3.0, "preallocated": 2.0}, "contiguous"),
        ({"paged": None, "preallocated": 2.0}, "preallocated"),
        ({"ideal": 9.0}, None),
    ],
)
def test_others_are_held_against_paging_or_the_best_that_is_real(kinds: dict[str, float], chosen: str | None) -> None:
    found = capacities.reference([answer(kind, mean) for kind, mean in kinds.items()])
    assert (found and found["kind"]) == chosen


def test_engines_are_whole_and_each_takes_its_gpus() -> None:
    one = answer("paged", 4.0, gpus=2, none=0)
    assert [capacities.fleet(one, demand) for demand in (4.0, 4.1, 8.0)] == [2, 4, 4]
    assert capacities.fleet_range(one, 8.0) == (4, 4)
    one["capacity"] |= {"low": 2.0, "high": 5.0}
    assert capacities.fleet_range(one, 10.0) == (4, 10)
    one["capacity"]["low"] = 0.0
    assert capacities.fleet_range(one, 10.0) == (4, math.inf)
    assert capacities.fleet({**one, "none": 1}, 8.0) is None
    assert capacities.fleet(answer("paged", 0.0, gpus=1, none=0), 8.0) is None


@pytest.mark.parametrize(("failures", "lines"), [(10, 10), (12, 11)])
def test_ten_failures_are_told_and_how_many_there_are_besides(failures: int, lines: int) -> None:
    said = tables.failures([{"where": f"x={at}", "why": "too long"} for at in range(failures)])
    assert len(said) == lines
    assert str(said[0]) == "failed: x=0: too long"
    assert lines == failures or str(said[-1]) == "failed: 2 more; all are in summary.json"


@pytest.mark.parametrize(("repeats", "few"), [(3, True), (4, False)])
def test_three_replications_are_few(repeats: int, few: bool) -> None:
    assert ("of so few it is wide, --repeat 8 would narrow it" in tables.spread_note([repeats])) is few


class Shelf:
    """A store in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Run] = {}

    def get(self, job: Job) -> Run | None:
        return self.kept.get(job.key)

    def put(self, job: Job, record: Run) -> None:
        self.kept[job.key] = record


class Hands:
    """A backend that cannot do the first allocator's jobs."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def outcomes(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Run | Failed]]:
        for job in jobs:
            self.asked.append(f"{job.label} {job.repeat}")
            yield job, Failed("no room") if job.label == "preallocated" else {"of": job.repeat}


def test_a_job_is_done_once_and_none_that_failed_is_tried_again(base: Base) -> None:
    hands, steps = Hands(), list[BatchProgress]()
    runner = JobRunner(cast("Store", Shelf()), cast("Backend", hands), steps.append, searches=True)
    first, second = base.jobs(base.workload, 1), base.jobs(base.workload, 2)
    assert list(runner.records(first * 2).values()) == [{"of": 0}]
    assert [one.why for one in runner.failures.values()] == ["no room"]
    assert sorted(one["of"] for one in runner.records(second).values()) == [0, 1]
    assert hands.asked == ["preallocated 0", "paged 0", "preallocated 1", "paged 1"]
    assert steps == [
        BatchProgress(0, 2, 0, "", 1),
        BatchProgress(0, 2, 1, "preallocated", 1),
        BatchProgress(1, 2, 1, "paged", 1),
        BatchProgress(1, 4, 1, "", 2),
        BatchProgress(1, 4, 2, "preallocated", 2),
        BatchProgress(2, 4, 2, "paged", 2),
    ]
    alone = JobRunner(cast("Store", Shelf()), cast("Backend", hands), steps.append)
    alone.records(first)
    assert steps[-1].round == 0, "there is one batch, not a search"
