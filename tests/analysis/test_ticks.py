"""What a page tells of memory that was taken: from whom, for whom, and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from analysis.page.ticks import LIMIT, ticks
from analysis.reading import open_directory
from tests.analysis.packed import unpack


def test_ticks_tell_who_lost_what_to_whom_and_why(toy: Path) -> None:
    run = next(run for run in open_directory(toy).runs if run.label == "paged")
    events = run.events()
    assert events is not None
    lost = events["event"] == "preempt"
    steps = run.steps()
    steps["evicted"] = np.zeros(len(steps["step"]), np.int64)
    steps["evicted"][3:5] = (4, 2)
    made = ticks(steps, run.requests(), events)
    data = {name: unpack(packed) for name, packed in made.data.items()}
    assert made.exact
    assert made.counts == {"preempt": lost.sum(), "swap_out": 0, "refuse": 0, "evict": 6}
    preempted = data["kind"] == 0
    for name, column in (("time", "time_s"), ("request", "request_id"), ("cause", "cause"), ("amount", "slots")):
        np.testing.assert_array_equal(data[name][preempted], events[column][lost])
    assert {made.reasons[at] for at in data["reason"][preempted]} == {"too few free blocks"}
    evicted = np.flatnonzero(data["kind"] == 3)
    assert data["amount"][evicted].sum() == 6
    assert data["time"][evicted[0]] == steps["start_s"][3]
    unrecorded = ticks(steps, run.requests(), None)
    assert not unrecorded.exact
    assert unrecorded.counts["preempt"] == np.count_nonzero(steps["preemptions"])


def test_an_eviction_names_whom_it_let_in() -> None:
    steps = {"start_s": np.array([0.0, 1.0, 2.0]), "evicted": np.array([0, 3, 1]), "preemptions": np.zeros(3)}
    requests = {"request_id": np.array([7, 8]), "scheduled_s": np.array([np.nan, 1.0])}
    made = ticks(steps, requests, None)
    assert unpack(made.data["cause"]).tolist() == [8, -1]
    assert unpack(made.data["amount"]).tolist() == [3, 1]


def test_of_very_many_some_are_shown_and_all_are_counted() -> None:
    many = LIMIT + LIMIT // 6
    steps = {"start_s": np.zeros(1), "evicted": np.zeros(1, np.int64), "preemptions": np.zeros(1)}
    requests = {"request_id": np.arange(1), "scheduled_s": np.zeros(1)}
    events = {"time_s": np.arange(float(many)), "event": np.full(many, "preempt"), "reason": np.full(many, "full")}
    events |= {name: np.zeros(many, np.int64) for name in ("request_id", "slots", "cause")}
    made = ticks(steps, requests, events)
    assert LIMIT // 3 < made.kept <= LIMIT
    assert made.counts["preempt"] == many
