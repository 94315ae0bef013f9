"""Workloads and set-ups made by hypothesis: small pools and much to do, so that everything that can run short does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from allocators import registry
from sim.limits import Limits
from sim.schedulers import SCHEDULERS
from tests.engine.harness import Clock, Setup, family
from workloads.requests import Prefixes, Requests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocators.options import Option, Value

LONGEST = 40
"""Token slots of the longest sequence."""
SMALL = {
    "block_size": st.sampled_from([4, 4, 1, 2, 3, 5, 8]),
    "host_blocks": st.sampled_from([40, 40, 12, 5, 0]),
    "sliding_window": st.sampled_from([None, None, 5, 8, 13, LONGEST]),
    "page_kib": st.just(64),
    "tensor_token_bytes": st.sampled_from([8192, 16384, 32768]),  # pages of 8 to 2 tokens
    "checkpoint": st.sampled_from([4, 8]),
    "groups": st.sampled_from(
        [
            "full 1x8",
            "full 2x8, sliding 2x8/5",
            "sliding 4x8/7, full 2x8",
            "full 2x8, sliding 3x8/9, sliding 1x16/6",
            "full 1x8, state 2x24",
            "state 1x40, full 2x8, sliding 2x8/6",
        ]
    ),
}
"""Values of options in proportion to pools of some dozens of slots."""


def mostly(usual: Sequence[Any], rare: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Choose among usual values seven times in eight."""
    return st.integers(0, 7).flatmap(lambda roll: st.sampled_from(rare if roll == 7 else usual))


@st.composite
def requests(draw: st.DrawFn, *, most: int = 14, samples: int = 4) -> Requests:
    """Draw requests, some of which cannot be served: alone or as samples, with or without common prefixes."""
    count = draw(st.integers(2, most))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    arrival = np.cumsum(column(mostly([0, 0, 0, 0.5, 1, 1, 2, 3.25], [7, 40]))) / 1e3
    output = column(mostly(range(1, 20), range(20, LONGEST + 4)))
    several = column(st.integers(1, samples)) if samples > 1 and draw(st.integers(0, 2)) == 0 else []
    prefixes = None
    if draw(st.booleans()):
        prefixes = _prefixes(column)
        prompt = [sum(length for _, length in prefixes.pieces(index)) for index in range(count)]
    else:
        prompt = column(mostly(range(1, 14), range(14, LONGEST + 4)))
    after, delay = _followers(draw, count) if draw(st.integers(0, 3)) == 0 else ([], [])
    return Requests(
        arrival,
        np.array(prompt, np.int64),
        np.array(output, np.int64),
        np.array(several, np.int64),
        beam=bool(several) and draw(st.booleans()),
        prefixes=prefixes,
        after=np.array(after, np.int64),
        delay_s=np.array(delay, np.float64),
    )


def _prefixes(column: Any) -> Prefixes:
    """Draw prompts that often begin alike, and outputs that a later prompt sometimes repeats."""
    first = column(st.tuples(st.integers(1, 2), st.sampled_from([4, 8, 9, 12])))
    rest = column(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 8)), max_size=2))
    pieces = [[head, *tail] for head, tail in zip(first, rest, strict=True)]
    names, lengths = zip(*(piece for each in pieces for piece in each), strict=True)
    outputs = [name or 100 + index for index, name in enumerate(column(st.sampled_from([0, 0, 1, 2])))]
    return Prefixes(
        np.array(names, np.int64),
        np.array(lengths, np.int64),
        np.cumsum([0, *map(len, pieces)]),
        np.array(outputs, np.int64),
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
        max_num_seqs=draw(st.sampled_from([12, 8, 6, 4, 3, 2, 1])),
        max_num_batched_tokens=draw(mostly(range(8, 33), range(1, 8)) if chunked else st.integers(8, 2 * LONGEST)),
        max_model_len=draw(st.sampled_from([LONGEST, LONGEST, 33, LONGEST // 2])),
        chunked_prefill=chunked,
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 1, 3, 8])),
        full_prompt_gate=draw(st.booleans()),
        watermark=draw(st.sampled_from([0.0, 0.0, 0.05, 0.2])),
    )


def options(kind: str) -> st.SearchStrategy[dict[str, Value]]:
    """Draw options of an allocator kind."""
    return st.fixed_dictionaries({name: _values(name, option) for name, option in family(kind).options.items()})


def _values(name: str, option: Option) -> st.SearchStrategy[Any]:
    if option.type is bool:
        return st.booleans()
    if name in SMALL and not (option.choices and name == "block_size"):
        return SMALL[name]
    return st.sampled_from(option.choices or (option.default,))


@st.composite
def setups(draw: st.DrawFn, kind: str, scheduler: str) -> Setup:
    """Draw all that a run depends on but its requests."""
    clock = Clock(
        step=1,
        token=draw(st.sampled_from([0, 1000, 12_345])),
        context=draw(st.sampled_from([0, 7])),
        again=draw(st.sampled_from([0, 5])),
        prompt=draw(st.sampled_from([0, 1])),
        copied=draw(st.sampled_from([0, 300])),
        swapped=draw(st.sampled_from([0, 50_000])),
        mapped=draw(st.sampled_from([0, 10])),
        behind=draw(st.sampled_from([0, 3])),
        foresees=draw(st.integers(0, 5)) > 0,
    )
    return Setup(
        scheduler,
        draw(limits(scheduler)),
        kind,
        draw(mostly(range(40, 81), [20, 30, 120, 200])),
        draw(options(kind)),
        {},
        clock,
        swap=draw(st.booleans()),
        instants=draw(st.sampled_from([16, 3, 1, 0, None])),
        horizon_s=draw(mostly([None], [0.001, 0.01, 0.04])),
    )


def every() -> list[tuple[str, str]]:
    """Every allocator under every scheduler."""
    return [(kind, scheduler) for kind in registry.names() for scheduler in SCHEDULERS]
