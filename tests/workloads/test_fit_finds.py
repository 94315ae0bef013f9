"""What a fit finds in traces whose making is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.workloads.test_arrivals import process
from workloads.fit import fit
from workloads.fit_arrivals import fit_arrivals
from workloads.requests import Floats, Prefixes, Requests
from workloads.streams import stream

BLOCK = 512


@pytest.mark.parametrize(("cv", "kind"), [(1.0, "poisson"), (0.5, "gamma")])
@pytest.mark.parametrize("count", [60, 200, 1000])
def test_a_few_arrivals_are_told_for_what_they_are(count: int, cv: float, kind: str) -> None:
    """So few gaps are never within 5 % of their distribution, though they are drawn from it."""
    found = []
    for seed in range(20):
        arrival = np.cumsum(np.random.default_rng(seed).gamma(cv**-2, cv**2, count))
        found.append(fit_arrivals(arrival - arrival[0])[0]["kind"])
    assert found.count(kind) >= 17


def test_when_the_first_arrives_makes_no_difference() -> None:
    arrival, sizes = np.cumsum(np.random.default_rng(0).exponential(1, 300)), np.full(300, 9)
    early, late = (fit(Requests(arrival + wait, sizes, sizes)) for wait in (0, 1000))
    assert early.block["arrivals"]["kind"] == "poisson"
    assert late.block == early.block


@pytest.mark.parametrize(("swing", "cv"), [(0.1, 1.0), (0.3, 1.0), (0.5, 2.0), (0.3, 0.5)])
def test_what_is_made_from_a_profile_varies_as_much_as_what_it_was_fitted_to(swing: float, cv: float) -> None:
    """Rates that contain the chance of their bins would have it twice: counts varied a quarter to half too much."""
    span, rate, found = 3000.0, 5.0, []
    times = np.linspace(0, span, 300_001)
    expected = rate * (times + swing * 1000 / (2 * np.pi) * (1 - np.cos(times * 2 * np.pi / 1000)))
    for seed in range(6):
        work = np.cumsum(np.random.default_rng(seed).gamma(cv**-2, cv**2, 20_000))
        arrival = np.interp(work[work < expected[-1]], expected, times)
        arrival -= arrival[0]
        block, _ = fit_arrivals(arrival)
        assert block["kind"] == "profile"
        drawn = process(**block).draw(stream(seed, "arrivals"), len(arrival))
        found.append([[_dispersion(some, width) for width in (10, 100)] for some in (arrival, drawn)])
    true, made = np.mean(found, axis=0)
    assert made == pytest.approx(true, rel=0.17)


def _dispersion(arrival: Floats, width: float) -> float:
    """Variance of the counts in bins, as a multiple of their mean."""
    counts = np.histogram(arrival, bins=np.arange(0, arrival[-1], width))[0]
    return float(counts.var() / counts.mean())


def test_a_block_in_common_is_no_conversation() -> None:
    """Prompts begin with one of eight texts of one block; what follows is their own, and often less than a block."""
    rng = np.random.default_rng(3)
    count = 600
    own = rng.integers(50, 1200, count)
    pieces = [[(int(rng.integers(8)), BLOCK), *_own(request, int(size))] for request, size in enumerate(own)]
    ids, sizes = (np.array([piece[at] for prompt in pieces for piece in prompt]) for at in (0, 1))
    offsets = np.cumsum([0, *map(len, pieces)])
    prefixes = Prefixes(ids, sizes, offsets, np.arange(10**6, 10**6 + count))
    requests = Requests(np.arange(count) * 0.1, own + BLOCK, rng.integers(20, 400, count), prefixes=prefixes)
    made = fit(requests).drawn
    assert made.prompt_tokens.mean() == pytest.approx(
        requests.prompt_tokens.mean(), rel=0.35
    )  # once five times as long


def _own(request: int, size: int) -> list[tuple[int, int]]:
    """Blocks that no other prompt has, the last one seldom full."""
    blocks = -(-size // BLOCK)
    return [(1000 + 10 * request + at, min(BLOCK, size - at * BLOCK)) for at in range(blocks)]
