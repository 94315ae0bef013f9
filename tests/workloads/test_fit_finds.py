"""What a fit finds in traces whose making is known."""

from __future__ import annotations

import numpy as np
import pytest

from workloads.fit import fit
from workloads.fit_arrivals import fit_arrivals
from workloads.generate import generate
from workloads.requests import Prefixes, Requests

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
    made = generate(fit(requests).source)
    assert made.prompt_tokens.mean() == pytest.approx(
        requests.prompt_tokens.mean(), rel=0.35
    )  # once five times as long


def _own(request: int, size: int) -> list[tuple[int, int]]:
    """Blocks that no other prompt has, the last one seldom full."""
    blocks = -(-size // BLOCK)
    return [(1000 + 10 * request + at, min(BLOCK, size - at * BLOCK)) for at in range(blocks)]
