"""Workloads and set-ups made by hypothesis: small pools, so that everything that can run short does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from allocators import registry
from sim.schedulers import SCHEDULERS, Limits
from tests.engine.harness import Clock, Setup, family
from workloads.requests import Prefixes, Requests

if TYPE_CHECKING:
    from allocators.options import Option, Value

LONGEST = 40
"""Token slots of the longest sequence."""
SMALL = {
    "block_size": st.integers(1, 8),
    "host_blocks": st.integers(0, 40),
    "sliding_window": st.integers(1, LONGEST),
    "page_kib": st.just(64),
    "tensor_token_bytes": st.sampled_from([8192, 16384, 32768]),  # pages of 8 to 2 tokens
}
"""Values of options in proportion to pools of some dozens of slots."""
GAPS = [0, 0, 0, 0.5, 1, 2, 3.25, 7, 40]
"""Milliseconds between arrivals."""


@st.composite
def requests(draw: st.DrawFn, *, most: int = 12, samples: int = 4) -> Requests:
    """Draw requests, some of which cannot be served, with or without shared prefixes."""
    count = draw(st.integers(1, most))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    arrival = np.cumsum(column(st.sampled_from(GAPS))) / 1e3
    output = column(st.integers(1, 16) | st.integers(1, LONGEST + 4))
    each = column(st.integers(1, samples)) if draw(st.booleans()) else []
    prefixes = None
    if draw(st.booleans()):
        pieces = column(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 12)), min_size=1, max_size=3))
        prompt = [sum(length for _, length in each) for each in pieces]
        flat = [piece for each in pieces for piece in each]
        prefixes = Prefixes(
            np.array([name for name, _ in flat], np.int64),
            np.array([length for _, length in flat], np.int64),
            np.cumsum([0, *map(len, pieces)]),
            np.array(column(st.integers(1, 4) | st.integers(100, 10_000)), np.int64),
        )
    else:
        prompt = column(st.integers(1, 12) | st.integers(1, LONGEST + 4))
    after, delay = _followers(draw, count) if draw(st.integers(0, 3)) == 0 else ([], [])
    return Requests(
        arrival,
        np.array(prompt, np.int64),
        np.array(output, np.int64),
        np.array(each, np.int64),
        beam=draw(st.booleans()) if each else False,
        prefixes=prefixes,
        after=np.array(after, np.int64),
        delay_s=np.array(delay, np.float64),
    )


def _followers(draw: st.DrawFn, count: int) -> tuple[list[int], list[float]]:
    """Draw which earlier request each one follows, if any, and how long after its end."""
    after = [draw(st.integers(-1, index - 1)) for index in range(count)]
    return after, [draw(st.sampled_from([0.0, 0.0, 0.001, 0.0035])) for _ in range(count)]


@st.composite
def limits(draw: st.DrawFn, scheduler: str) -> Limits:
    """Draw what the engine allows."""
    chunked = draw(st.booleans()) if scheduler == "vllm-v1" else False
    return Limits(
        max_num_seqs=draw(st.integers(1, 8)),
        max_num_batched_tokens=draw(st.integers(1, 24) if chunked else st.integers(8, 2 * LONGEST)),
        max_model_len=draw(st.integers(LONGEST // 2, LONGEST)),
        chunked_prefill=chunked,
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 1, 3, 8])),
        full_prompt_gate=draw(st.booleans()),
        watermark=draw(st.sampled_from([0.0, 0.0, 0.05, 0.2])),
    )


def options(kind: str) -> st.SearchStrategy[dict[str, Value]]:
    """Draw options of an allocator kind."""
    return st.fixed_dictionaries(
        {}, optional={name: _values(name, option) for name, option in family(kind).options.items()}
    )


def _values(name: str, option: Option) -> st.SearchStrategy[Any]:
    if option.type is bool:
        return st.booleans()
    if name in SMALL and not (option.choices and name == "block_size"):
        return SMALL[name]
    return st.sampled_from(option.choices or (option.default,))


@st.composite
def setups(draw: st.DrawFn, kind: str, scheduler: str) -> Setup:
    """Draw all that a run depends on but its requests."""
    small = {"block_size": 4, "page_kib": 64, "tensor_token_bytes": 16384}
    declared = family(kind).options
    chosen = {
        name: value for name, value in small.items() if name in declared and declared[name].fault(value) is None
    } | draw(options(kind))
    clock = Clock(
        step=1,
        token=draw(st.sampled_from([0, 1000, 12_345])),
        context=draw(st.sampled_from([0, 7])),
        prompt=draw(st.sampled_from([0, 1])),
        copied=draw(st.sampled_from([0, 300])),
        swapped=draw(st.sampled_from([0, 50_000])),
        foresees=draw(st.integers(0, 5)) > 0,
    )
    return Setup(
        scheduler,
        draw(limits(scheduler)),
        kind,
        draw(st.integers(20, 160)),
        chosen,
        {},
        clock,
        swap=draw(st.booleans()),
        instants=draw(st.sampled_from([0, 1, 3, 16])),
        horizon_s=draw(st.none() | st.sampled_from([0.001, 0.01, 0.04, 0.25])),
    )


def every() -> list[tuple[str, str]]:
    """Every allocator under every scheduler."""
    return [(kind, scheduler) for kind in registry.names() for scheduler in SCHEDULERS]
