"""What is true of every run: refusals, cuts, horizons, stalls, Little's law, and the same bytes from the same seed."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.answers import MISS, Ask, Refusal
from allocators.base import Allocator
from allocators.content import Segments
from allocators.paged import PagedAllocator
from allocators.preallocated import PreallocatedAllocator
from analysis.reading import open_directory
from analysis.report import write_report
from analysis.rundir import WALL_CLOCK
from sim.engine.jobs import Job, StalledError
from sim.engine.plan import Plan
from sim.engine.serving import Blocked, Serving
from sim.limits import Limits
from sim.runner import run as run_workload
from sim.schedulers import SCHEDULERS, Scheduler
from tests.engine.harness import Setup, ask, audit
from tests.engine.strategies import requests, setups
from workloads.loader import load
from workloads.requests import Requests

ENGINES = {"reference": {"reference": True}, "stepping": {"leaps": False}, "leaping": {"leaps": True}}
LIMITS = Limits(max_num_seqs=4, max_num_batched_tokens=16, max_model_len=24, chunked_prefill=False)
POOL = Setup(limits=LIMITS, slots=32, options={"block_size": 4}, instants=0)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> dict[str, bool]:
    return ENGINES[request.param]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(
    ("asked", "changes", "why"),
    [
        ((0, 24, 1), {}, "longer than max_model_len"),
        ((0, 14, 5), {"slots": 16}, "larger than the whole pool"),
        ((0, 5, 9, 4), {}, "larger than the whole pool"),
        ((0, 2, 2, 5), {}, "more samples than seats"),
        ((0, 9, 4, 2), {"kind": "preallocated", "slots": 40, "options": {}}, "larger than the whole pool"),
        (
            (0, 9, 4, 3),
            {"kind": "contiguous", "slots": 32, "options": {"reserve": "pow2"}},
            "larger than the whole pool",
        ),
        ((0, 8, 9, 2), {"kind": "growing", "slots": 24, "options": {}}, "larger than the whole pool"),
    ],
    ids=["context", "pool", "samples", "seats", "preallocated", "contiguous", "growing"],
)
def test_what_can_never_run_is_refused_at_arrival(
    scheduler: str, asked: tuple[float, ...], changes: dict[str, Any], why: str, engine: dict[str, bool]
) -> None:
    setup = replace(POOL, scheduler=scheduler, **changes)
    outcome, sink = setup.run(ask(asked, (0, 3, 3)), **engine)
    audit(setup, outcome, sink, 2)
    assert (outcome.finished, outcome.refused, outcome.unfinished) == (1, 1, 0)
    row = sink.rows("requests")[0]
    assert (row["status"], row["reason"], row["generated_tokens"]) == ("refused", why, 0)
    assert (row["scheduled_s"], row["first_token_s"], row["finish_s"]) == ("nan", "nan", "nan")


@pytest.mark.parametrize(("scheduler", "refused"), [("static", 0), ("orca", 0), ("vllm-v0", 1), ("vllm-v1", 1)])
def test_a_prompt_beyond_the_budget_is_refused_where_there_is_a_budget(
    scheduler: str, refused: int, engine: dict[str, bool]
) -> None:
    outcome, sink = replace(POOL, scheduler=scheduler).run(ask((0, 17, 2)), **engine)
    assert outcome.refused == refused
    assert sink.tables["requests"]["reason"] == ["longer than a step's token budget" if refused else ""]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("samples", [1, 2])
def test_no_more_sequences_run_at_once_than_there_are_seats(
    scheduler: str, samples: int, engine: dict[str, bool]
) -> None:
    limits = replace(LIMITS, max_num_seqs=3, max_num_batched_tokens=64)
    setup = replace(POOL, scheduler=scheduler, limits=limits, slots=400)
    outcome, sink = setup.run(ask(*[(0, 3, 4, samples)] * 5), **engine)
    assert outcome.finished == 5
    assert max(sink.tables["steps"]["running"]) == 3 // samples * samples


class Shortest(Scheduler):
    """Lets the shortest prompt in first, wherever it stands in the queue."""

    kind: ClassVar[str] = "shortest"
    has_budget: ClassVar[bool] = False

    def plan(self, serving: Serving) -> Plan:
        plan = Plan()
        plan.decodes = self.advance(serving, plan, 0, len(serving.decoding))
        serving.unblock()
        for job in sorted(serving.waiting, key=lambda job: job.known):
            if serving.seats == self.limits.max_num_seqs:
                serving.block(Blocked.SEATS)
            elif refusal := self.admit(serving, plan, job, MISS, job.known):
                serving.block(Blocked.MEMORY, refusal)
            else:
                continue
            break
        return plan


@pytest.mark.parametrize("leaps", [False, True])
def test_a_scheduler_may_let_requests_pass_others(leaps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes while a long prompt waits for memory, and everything else decodes, fits and passes it."""
    monkeypatch.setitem(SCHEDULERS, "shortest", Shortest)
    limits = replace(LIMITS, max_model_len=200, max_num_batched_tokens=200)
    setup = replace(POOL, scheduler="shortest", limits=limits, slots=200)
    outcome, sink = setup.run(ask((0, 20, 80), (1, 12, 60), (3, 180, 9), (40.5, 2, 8)), leaps=leaps)
    audit(setup, outcome, sink, 4)
    assert outcome.finished == 4
    scheduled = sink.tables["requests"]["scheduled_s"]
    first = dict(zip(sink.tables["requests"]["request_id"], scheduled, strict=True))
    assert sorted(first, key=first.__getitem__) == [0, 1, 3, 2]
    assert first[3] == 0.041, "at the end of the step in which it came, not of a leap"


def test_only_a_waiting_request_can_be_admitted() -> None:
    serving = Serving(POOL.allocator())
    job = Job(0, 0, 3, 2, 1, Segments([], 1))
    with pytest.raises(ValueError, match=r"request 0 .* is not waiting"):
        serving.admit(job, MISS, 3)


def test_what_has_grown_beyond_the_budget_comes_back_in_a_step_of_its_own(engine: dict[str, bool]) -> None:
    """Two prompts of 14 fill the pool; the newest is preempted with more tokens than a step may compute together."""
    for scheduler in ("vllm-v0", "vllm-v1"):
        setup = replace(POOL, scheduler=scheduler, slots=40)
        outcome, sink = setup.run(ask((0, 14, 10), (0, 14, 10)), **engine)
        audit(setup, outcome, sink, 2)
        assert outcome.finished == 2
        assert sink.tables["requests"]["preemptions"] == [0, 1]
        assert max(row["prefill_tokens"] for row in sink.rows("steps")) > LIMITS.max_num_batched_tokens


def test_an_output_is_cut_at_the_context(engine: dict[str, bool]) -> None:
    _, sink = POOL.run(ask((0, 10, 40)), **engine)
    (row,) = sink.rows("requests")
    assert row["output_tokens"] == 40
    assert row["generated_tokens"] == 14
    assert row["reason"] == "output cut at the model's context"
    assert row["status"] == "finished"


def test_the_horizon_leaves_requests_unfinished_and_takes_no_later_arrival(engine: dict[str, bool]) -> None:
    setup = replace(POOL, scheduler="orca", limits=replace(LIMITS, max_num_seqs=2), horizon_s=0.0045)
    outcome, sink = setup.run(ask((0, 4, 2), (0, 4, 9), (0, 4, 9), (5, 1, 1), (6, 1, 1)), **engine)
    audit(setup, outcome, sink, 5)
    assert outcome.end_s == 0.005  # a step that has begun is finished
    assert sink.tables["requests"]["status"] == ["finished", "unfinished", "unfinished", "unfinished"]
    assert sink.tables["requests"]["generated_tokens"] == [2, 5, 3, 0]


def test_the_horizon_ends_an_idle_gap(engine: dict[str, bool]) -> None:
    outcome, sink = replace(POOL, horizon_s=0.0205).run(ask((0, 1, 1), (40, 1, 1)), **engine)
    assert outcome.end_s == 0.0205
    assert [(row["start_s"], row["duration_s"]) for row in sink.rows("steps")] == [(0.0, 0.001), (0.001, 0.0195)]


def test_an_idle_gap_is_a_row_with_nobody_in_it(engine: dict[str, bool]) -> None:
    _, sink = POOL.run(ask((2, 1, 1), (7, 1, 1)), **engine)
    rows = [(row["step"], row["duration_s"], row["running"], row["waiting"]) for row in sink.rows("steps")]
    assert rows == [(0, 0.002, 0, 0), (0, 0.001, 1, 0), (1, 0.004, 0, 0), (1, 0.001, 1, 0)]


def test_no_requests_is_a_run_of_nothing(engine: dict[str, bool]) -> None:
    outcome, sink = POOL.run(Requests(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)), **engine)
    assert tuple(outcome) == (0, 0, 0, 0, 0.0)
    assert sink.rows("steps") == sink.rows("requests") == sink.rows("blocks") == []


class Boastful(PreallocatedAllocator):
    """Says of no request that it can never run, though the pool has no slot for it."""

    def never(self, ask: Ask, final: int) -> Refusal | None:
        return None


class Careless(PagedAllocator):
    """Likewise, but the first blocks can be had."""

    def never(self, ask: Ask, final: int) -> Refusal | None:
        return None


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("allocator", [Boastful(16, 1, 24), Careless(4, 4, 24)], ids=["at admission", "as it grows"])
def test_a_run_without_progress_is_an_error_that_names_the_request_and_the_reason(
    scheduler: str, allocator: Allocator, engine: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Setup, "allocator", lambda _: deepcopy(allocator))
    with pytest.raises(StalledError, match=r"no progress: request 0 \(12 prompt tokens, .*: Refusal\(reason=<Reason\."):
        replace(POOL, scheduler=scheduler).run(ask((0, 12, 10), (0, 2, 2)), **engine)


def test_the_last_sequence_makes_way_for_itself_where_what_others_left_is_too_scattered(
    engine: dict[str, bool],
) -> None:
    groups = "state 1x40, full 2x8, sliding 2x8/6"  # ten slots a page: two states, or five tokens of two layers
    limits = Limits(max_num_seqs=12, max_num_batched_tokens=8, max_model_len=40, chunked_prefill=False)
    pool = Setup(limits=limits, kind="ideal", slots=48, options={"groups": groups}, instants=0)
    short = [(0, 1, 1)] * 4
    outcome, sink = pool.run(ask((0, 1, 1), (0, 1, 1), (0, 1, 15, 4), *short, (0, 1, 8), *short[:2]), **engine)
    assert outcome.finished == 10
    gone = [row for row in sink.rows("steps") if not row["prefill_tokens"] + row["decode_tokens"]]
    assert [(row["preemptions"], row["free"]) for row in gone] == [(1, 200)]


@pytest.mark.parametrize("kind", ["paged", "contiguous", "growing", "virtual"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@settings(max_examples=10)
@given(data=st.data())
def test_tokens_and_gaps_are_all_accounted_for(kind: str, scheduler: str, data: st.DataObject) -> None:
    """Steps and requests tell one story: the same tokens, the same preemptions, the same gaps between tokens."""
    setup = replace(data.draw(setups(kind, scheduler)), horizon_s=None)
    _, sink = setup.run(data.draw(requests(samples=1)))
    steps, served = sink.rows("steps"), [row for row in sink.rows("requests") if row["status"] == "finished"]
    assert sum(row["preemptions"] for row in steps) == sum(row["preemptions"] for row in served)
    wanted = sum(row["prompt_tokens"] + row["generated_tokens"] - 1 for row in served)
    again = sum(row["recomputed_tokens"] - row["cached_tokens"] for row in served)
    computed = sum(row["prefill_tokens"] + row["decode_tokens"] for row in steps)
    if not any(row["cached_tokens"] for row in served):
        assert computed == wanted + again
    gaps = sum(row["gap_tokens"] for row in steps) + sum(len(row["stall_s"]) for row in served)
    assert gaps == sum(row["generated_tokens"] - 1 for row in served)
    between = sum(row["gap_s"] * row["gap_tokens"] for row in steps) + sum(sum(row["stall_s"]) for row in served)
    assert between == pytest.approx(sum(row["finish_s"] - row["first_token_s"] for row in served))


WORKLOAD = """\
name: twice
seed: 3
model: tiny-llama
device: {name: h100-80gb, kv_memory_gib: 0.0005}
engine: {max_num_seqs: 8, max_model_len: 256}
requests:
  count: 40
  arrivals: {kind: poisson, rate: 400}
  lengths: {kind: uniform, prompt: {min: 4, max: 60}, output: {min: 2, max: 40}}
allocators: [{kind: preallocated}, {kind: paged}, {kind: growing}]
repeat: 2
"""


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two directories of one workload."""
    folder = tmp_path_factory.mktemp("twice")
    path = folder / "twice.yaml"
    path.write_text(WORKLOAD, encoding="utf-8")
    for name in ("one", "two"):
        write_report(run_workload(load(path), folder / name))
    return folder / "one", folder / "two"


def test_the_same_file_and_seed_give_the_same_bytes(twice: tuple[Path, Path]) -> None:
    one, two = twice
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    assert sum(path.suffix == ".parquet" for path in files) == 3 * 2 * 4
    for path in files:
        if path.name == "manifest.json":
            manifests = [json.loads((folder / path).read_text(encoding="utf-8")) for folder in twice]
            clocks = [{name: manifest.pop(name) for name in WALL_CLOCK} for manifest in manifests]
            assert manifests[0] == manifests[1]
            assert all(clocks)
        else:
            assert (one / path).read_bytes() == (two / path).read_bytes(), path


def test_every_allocator_sees_the_same_requests_and_every_repeat_others(twice: tuple[Path, Path]) -> None:
    directory = open_directory(twice[0])
    seen: dict[int, set[bytes]] = {}
    for each in directory.runs:
        asked = each.requests(["arrival_s", "prompt_tokens", "output_tokens"])
        seen.setdefault(each.repeat, set()).add(b"".join(column.tobytes() for column in asked.values()))
    assert {repeat: len(kinds) for repeat, kinds in seen.items()} == {0: 1, 1: 1}
    assert seen[0] != seen[1]
