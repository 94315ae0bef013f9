"""Several applications in one trace, each with a common prompt of its own, are found again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.workloads.conftest import Small
from workloads.fit import Fit, check, fit
from workloads.fit_apart import applications
from workloads.generate import requests as make
from workloads.requests import Prefixes, Requests
from workloads.source import Mix

CHAT = (
    "{name: chat, count: 3000, arrivals: {kind: poisson, rate: 3}, shared: [{tokens: 800}], lengths: {kind: sharegpt}, "
    "session: {kind: turns, turns: {kind: uniform, min: 1, max: 6}, think_s: {kind: exponential, mean: 20}}}"
)
AGENT = (
    "{name: agent, count: 1500, arrivals: {kind: gamma, rate: 2, cv: 2}, shared: [{tokens: 3000}], "
    "lengths: {kind: lognormal, prompt: {mean: 500, sigma: 1}, output: {mean: 60, sigma: 0.7}}}"
)
API = (
    "{name: api, count: 1000, arrivals: {kind: poisson, rate: 1.2}, "
    "lengths: {kind: uniform, prompt: {min: 20, max: 400}, output: {min: 5, max: 50}}}"
)


@pytest.fixture(scope="module")
def known(small_file: Small) -> Requests:
    """Two applications, and requests of no application."""
    return make(small_file(f"requests={{mix: [{CHAT}, {AGENT}, {API}]}}"))


@pytest.fixture(scope="module")
def fitted(known: Requests) -> Fit:
    return fit(known)


def test_who_belongs_to_which_application(known: Requests) -> None:
    found = applications(known)
    assert list(found) == ["application 1", "application 2", "others"]
    assert [np.unique(known.part[rows]).tolist() for rows in found.values()] == [[0], [1], [2]]
    assert [len(rows) for rows in found.values()] == [3000, 1500, 1000]


def test_each_application_is_a_part_of_a_mix(fitted: Fit, small: Small) -> None:
    chat, agent, others = fitted.block["mix"]
    assert [part.get("shared") for part in (chat, agent, others)] == [[{"tokens": 800}], [{"tokens": 3000}], None]
    assert ["session" in part for part in (chat, agent, others)] == [True, False, False]
    assert agent["arrivals"] == {"kind": "gamma", "rate": pytest.approx(2, rel=0.1), "cv": pytest.approx(2, rel=0.1)}
    assert others["arrivals"] == {"kind": "poisson", "rate": pytest.approx(1.2, rel=0.1)}
    assert small("requests=" + json.dumps(fitted.block)).requests == Mix.model_validate(fitted.block)
    assert fitted.notes[0] == "several applications, told apart by what their prompts begin with"
    assert "application 2: 100% of the prompts begin with the same 3000 tokens" in fitted.notes


def test_what_the_fit_makes_is_like_what_it_was_fitted_to(known: Requests, fitted: Fit) -> None:
    """With one common prompt for all, prompts were a third too short, at a distance of 0.26."""
    found = {one.quantity: one for one in check(known, fitted)}
    assert found["prompt tokens"].distance < 0.08
    assert found["output tokens"].distance < found["output tokens"].critical
    assert found["prompt tokens"].fitted == pytest.approx(found["prompt tokens"].trace, rel=0.1)
    assert found["ideal hit rate"].fitted == pytest.approx(found["ideal hit rate"].trace, abs=0.04)


def test_an_application_may_come_later(small: Small) -> None:
    late = AGENT.replace("{kind: gamma, rate: 2, cv: 2}", "{kind: profile, bin_s: 400, rates: [0, 4]}")
    made = make(small(f"requests={{mix: [{API}, {late}]}}"))
    first, last = (made.arrival_s[made.part == 1][at] for at in (0, -1))
    assert first > 399
    drawn = fit(made).drawn
    names = [part["name"] for part in fit(made).block["mix"]]
    arrival = drawn.arrival_s[drawn.part == names.index("application 1")]
    assert np.quantile(arrival, (0.05, 0.5, 0.95)) == pytest.approx(
        np.quantile(made.arrival_s[made.part == 1], (0.05, 0.5, 0.95)), rel=0.1
    )
    assert arrival[-1] == pytest.approx(last, rel=0.1)


def test_an_application_may_come_at_once(small: Small) -> None:
    batch = AGENT.replace("{kind: gamma, rate: 2, cv: 2}", "{kind: batch, at_s: 70}")
    first, _ = fit(make(small(f"requests={{mix: [{API}, {batch}]}}"))).block["mix"]
    assert (first["count"], first["arrivals"]) == (1500, {"kind": "batch", "at_s": pytest.approx(70, abs=5)})


def test_a_beginning_of_few_counts_for_what_it_begins_with() -> None:
    """All prompts begin with one text; those of 300 go on with a second one, and those of 12 with a third."""
    pieces = [[(1, 64), (2, 32) if at < 300 else (3, 32) if at < 312 else (1000 + at, 9)] for at in range(600)]
    pieces = [[*piece, (2000 + at, 10)] for at, piece in enumerate(pieces)]
    found = applications(_of(pieces))
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "application 1": list(range(300)),
        "application 2": list(range(300, 600)),
    }


def test_the_turns_of_conversations_are_no_applications() -> None:
    """A dozen conversations of fifty turns, each of which goes on where the one before ended."""
    pieces = [[(1000 * talk + turn, 20) for turn in range(at + 1)] for at in range(50) for talk in range(12)]
    assert len(applications(_of(pieces))) == 1


def _of(pieces: list[list[tuple[int, int]]]) -> Requests:
    count = len(pieces)
    prompts = np.array([sum(tokens for _, tokens in each) for each in pieces])
    prefixes = Prefixes.of(pieces, np.arange(10**6, 10**6 + count))
    return Requests(np.arange(count, dtype=float), prompts, np.full(count, 5), prefixes=prefixes)
