"""The beginning of a workload that stands for all of it, when the cost of a sweep is estimated."""

from __future__ import annotations

import numpy as np
import pytest

from sim.planner.sample import beginning
from workloads.generate import requests
from workloads.loader import load

CLOSED = "requests.arrivals={kind: closed, users: 50}"


@pytest.mark.parametrize("preset", ["chat", "agents"])
def test_sessions_are_taken_whole(preset: str) -> None:
    """Later turns repeat the conversation so far: without them prompts of a chat would be half as long."""
    everything = requests(load(preset, ["requests.count=4000"]))
    some = beginning(everything, 1000)
    assert 1000 <= len(some) < 1100
    assert some.prompt_tokens.mean() == pytest.approx(everything.prompt_tokens.mean(), rel=0.1)
    assert (some.after >= 0).mean() == pytest.approx((everything.after >= 0).mean(), abs=0.03)
    assert some.prefixes is not None
    assert np.array_equal(np.add.reduceat(some.prefixes.lengths, some.prefixes.offsets[:-1]), some.prompt_tokens)
    late = int(np.flatnonzero(some.after >= 0)[-1])
    before, now = (dict(some.prefixes.pieces(one)) for one in (int(some.after[late]), late))
    assert before.keys() & now.keys(), "a turn that begins like none before it"


@pytest.mark.parametrize("settings", [["requests.session=null", CLOSED], ["requests.session=null"]])
def test_other_requests_are_taken_as_they_arrive(settings: list[str]) -> None:
    everything = requests(load("chat", ["requests.count=2000", *settings]))
    some = beginning(everything, 500, closed=CLOSED in settings)
    assert np.array_equal(some.arrival_s, everything.arrival_s[:500])
    assert np.array_equal(some.after, everything.after[:500])


def test_no_more_are_taken_than_there_are() -> None:
    everything = requests(load("chat", ["requests.count=30"]))
    assert len(beginning(everything, 1000)) == len(everything)


def test_of_a_mix_each_request_stays_of_its_part() -> None:
    everything = requests(load("mixed"), max_model_len=32768)
    some = beginning(everything, 400)
    assert some.parts == everything.parts
    prompts = [some.prompt_tokens[some.part == part].mean() for part in range(3)]
    assert prompts == pytest.approx(
        [everything.prompt_tokens[everything.part == part].mean() for part in range(3)], rel=0.3
    )
    assert all(some.part[late] == some.part[some.after[late]] for late in np.flatnonzero(some.after >= 0))
