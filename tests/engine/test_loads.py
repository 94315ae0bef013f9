"""The load that an executor counts for a plan, against a count of every query and key."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocators import registry
from allocators.content import Segments
from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.devices import resolve_device
from sim.engine.executor import Simulated
from sim.engine.jobs import Job
from sim.engine.plan import Chunk, Plan
from sim.engine.serving import Serving
from sim.models.geometry import resolve_model

WINDOW = 48  # of tiny-mistral, in every layer
COSTS = {name: CostModel(resolve_model(name), resolve_device("h100-80gb")) for name in ("tiny-llama", "tiny-mistral")}


class Part(NamedTuple):
    """Tokens of one sequence that a step computes."""

    start: int
    stop: int
    rest: int = 0
    """Tokens of its prompt that are left to later steps."""


def pairs(part: Part, window: int) -> int:
    return sum(min(query + 1, window) for query in range(part.start, part.stop))


def keys(part: Part, window: int) -> int:
    return part.stop - max(0, part.start - window + 1)


def counted(chunks: list[Part], decodes: list[Part], window: int) -> Load:
    endless = 1 << 40
    return Load(
        prefill_tokens=sum(chunk.stop - chunk.start for chunk in chunks),
        prefill_pairs=sum(pairs(chunk, endless) for chunk in chunks),
        prefill_context=sum(keys(chunk, endless) for chunk in chunks),
        prefill_seqs=len(chunks),
        decode_seqs=len(decodes),
        decode_context=sum(keys(decode, endless) for decode in decodes),
        samples=sum(not chunk.rest for chunk in chunks) + len(decodes),
        window_pairs=sum(pairs(chunk, window) for chunk in chunks) if window else 0,
        window_prefill_context=sum(keys(chunk, window) for chunk in chunks) if window else 0,
        window_decode_context=sum(keys(decode, window) for decode in decodes) if window else 0,
    )


def planned(chunks: list[Part], decodes: list[int]) -> tuple[Plan, Serving]:
    """Plan chunks of some prompts beside sequences that have so many tokens in the cache."""
    serving = Serving(registry.create("paged", num_blocks=1, max_model_len=4096, block_size=16))
    for ticket, length in enumerate(decodes):
        job = Job(ticket, 0, length, 100, 1, Segments([], ticket))
        job.ticket, job.computed, job.generated = ticket, length, 1
        serving.decoding.insert(job, ticket, length)
    serving.context = sum(decodes)
    planned = [
        Chunk(Job(9, 0, stop + rest, 100, 1, Segments([], 9)), start, stop - start) for start, stop, rest in chunks
    ]
    return Plan(len(decodes), planned), serving


SPANS = st.builds(
    lambda start, tokens, rest: Part(start, start + tokens, rest),
    st.integers(0, 150),
    st.integers(1, 150),
    st.sampled_from([0, 1, 50]),
)


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize(("name", "window"), [("tiny-llama", 0), ("tiny-mistral", WINDOW)])
@given(chunks=st.lists(SPANS, max_size=3), decodes=st.lists(st.integers(1, 150), max_size=3))
def test_a_load_is_what_counting_every_query_and_key_gives(
    name: str, window: int, recomputes: bool, chunks: list[Part], decodes: list[int]
) -> None:
    executor = Simulated(COSTS[name], recomputes=recomputes)
    plan, serving = planned(chunks, decodes)
    steps = [Part(length, length + 1) for length in decodes]
    if recomputes:
        whole = [part._replace(start=0) for part in [*chunks, *steps]]
        expected = counted(whole, [], window)
    else:
        expected = counted(chunks, steps, window)
    assert executor.load(plan, serving) == expected


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("name", COSTS)
@given(decodes=st.lists(st.integers(1, 150), min_size=1, max_size=3), steps=st.integers(1, 20))
def test_foreseen_steps_take_as_long_as_they_do_one_by_one(
    name: str, recomputes: bool, decodes: list[int], steps: int
) -> None:
    executor = Simulated(COSTS[name], recomputes=recomputes)
    foreseen = executor.foresee(planned([], decodes)[1], steps, 0).durations
    one_by_one = [executor.run(*planned([], [length + step for length in decodes])) for step in range(steps)]
    assert np.array_equal(foreseen, one_by_one)
