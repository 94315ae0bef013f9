"""The engine gives exactly the results of the reference engine, for all kinds of workloads and set-ups.

For more and new examples: KVSIM_EXAMPLES=1000 python -m pytest tests/engine --hypothesis-profile explore
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators import registry
from allocators.adaptors import CheckingAdaptor
from allocators.options import Value
from sim.costs.coefficients import Coefficients
from sim.costs.model import CostModel
from sim.devices import resolve_device
from sim.engine.executor import Simulated
from sim.limits import Limits
from sim.models.geometry import resolve_model
from sim.schedulers import SCHEDULERS
from tests.captures import spread
from tests.engine.harness import Clock, Setup, ask, audit, differences
from tests.engine.strategies import every, requests, setups
from workloads.mix import merge
from workloads.requests import Prefixes

EXAMPLES = int(os.environ.get("KVSIM_EXAMPLES", "12"))
"""Workloads for each allocator under each scheduler."""
LLAMA, GEMMA, H100 = resolve_model("llama-3.1-8b"), resolve_model("gemma-3-12b"), resolve_device("h100-80gb")
"""One attends to everything, one in most layers to a window."""
CACHING = {kind: {"prefix_cache": True} for kind in ("paged", "hybrid", "ideal")}
"""Options of allocators that share prefixes if they are told to."""


@pytest.mark.parametrize(("kind", "scheduler"), every())
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_equals_the_reference_engine(kind: str, scheduler: str, data: st.DataObject) -> None:
    """Leaping or not, both engines agree; and what the reference engine leaves is sound."""
    setup, asked = data.draw(setups(kind, scheduler)), data.draw(requests())
    expected, reference = setup.run(asked, reference=True)
    audit(setup, expected, reference, len(asked))
    for leaps in (False, True):
        outcome, sink = setup.run(asked, leaps=leaps)
        assert not differences(reference, sink), f"leaps={leaps}"
        assert outcome == expected


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_equals_the_reference_engine_on_a_mix(scheduler: str, data: st.DataObject) -> None:
    """Each row says which part its request belongs to, whenever it left."""
    asked = merge({name: data.draw(requests(most=8)) for name in ("chat", "agents", "batch")})
    setup = data.draw(setups("paged", scheduler))
    expected, reference = setup.run(asked, reference=True)
    audit(setup, expected, reference, len(asked))
    rows = reference.rows("requests")
    assert [row["part"] for row in rows] == [asked.parts[asked.part[row["request_id"]]] for row in rows]
    for step in reference.rows("steps"):
        assert sum(step[f"gap_tokens.{name}"] for name in asked.parts) == step["gap_tokens"]
    for leaps in (False, True):
        outcome, sink = setup.run(asked, leaps=leaps)
        assert not differences(reference, sink), f"leaps={leaps}"
        assert outcome == expected


@pytest.mark.parametrize("leaps", [False, True])
def test_what_a_window_leaves_to_finished_jobs_is_counted_when_it_is_left(leaps: bool) -> None:
    """A batch holds its finished jobs; a block that only they hold by now is of use to nobody."""
    limits = Limits(max_num_seqs=12, max_num_batched_tokens=8, max_model_len=40, chunked_prefill=False)
    options = {"block_size": 2, "prefix_cache": True, "sliding_window": 13}
    setup = Setup("static", limits, "paged", 40, options, clock=Clock(step=1))
    asked = replace(
        ask(*((0, 4, output) for output in (1, 1, 1, 1, 1, 8, 8, 8, 22, 1, 13))),
        prefixes=Prefixes(np.ones(11, np.int64), np.full(11, 4), np.arange(12), np.arange(100, 111)),
        after=np.array([-1, *[0] * 7, -1, 1, 0]),
        delay_s=np.zeros(11),
    )
    assert not differences(setup.run(asked, reference=True)[1], setup.run(asked, leaps=leaps)[1])


@pytest.mark.parametrize("kind", [kind for kind in registry.names() if not registry.find(kind).recomputes])
def test_a_wrapped_allocator_serves_as_it_does_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to swap: what cannot still recomputes when it is wrapped."""
    limits = Limits(max_num_batched_tokens=64, max_model_len=40, chunked_prefill=False)
    setup, asked = Setup("vllm-v0", limits, kind, 48, swap=True), ask(*[(0, 4, 24)] * 6)
    alone = setup.run(asked)[1]
    make = Setup.allocator
    monkeypatch.setattr(Setup, "allocator", lambda setup: CheckingAdaptor(make(setup)))
    for reference in (False, True):
        assert not differences(alone, setup.run(asked, reference=reference)[1])


@pytest.mark.parametrize("kind", ["paged", "radix", "hybrid", "ideal"])
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_step_times_that_depend_on_what_is_shared_are_the_same(kind: str, data: st.DataObject) -> None:
    """Where the cost model counts what decodes read again, of samples and of prompts that begin alike."""
    setup = data.draw(setups(kind, data.draw(st.sampled_from([*SCHEDULERS]))))
    model = data.draw(st.sampled_from([LLAMA, GEMMA]))
    cost = CostModel(model, H100, Coefficients(repeated_reads_cached=0.75, step_overhead_s=1e-3))
    setup = replace(setup, clock=Simulated(cost, block_bytes=64 << 10), options=setup.options | CACHING.get(kind, {}))
    asked = data.draw(requests().filter(lambda asked: len(asked.samples) or asked.prefixes is not None))
    expected, reference = setup.run(asked, reference=True)
    for leaps in (False, True):
        outcome, sink = setup.run(asked, leaps=leaps)
        assert not differences(reference, sink), f"leaps={leaps}"
        assert outcome == expected


@pytest.mark.parametrize("kind", ["paged", "radix", "contiguous", "ideal", "no-cache"])
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_step_times_that_are_looked_up_are_the_same(kind: str, data: st.DataObject) -> None:
    """Where they depend on the longest sequence that decodes, on how chunks are split, and on what hides the host."""
    setup = data.draw(setups(kind, data.draw(st.sampled_from([*SCHEDULERS]))))
    coefficients = Coefficients(repeated_reads_cached=0.75, prefill_host_s=8e-3, captured_tokens=32)
    cost = CostModel(LLAMA, H100, coefficients, captured=spread(tokens=32))
    clock = Simulated(cost, recomputes=registry.find(kind).recomputes, block_bytes=64 << 10)
    setup = replace(setup, clock=clock)
    asked = data.draw(requests())
    expected, reference = setup.run(asked, reference=True)
    for leaps in (False, True):
        outcome, sink = setup.run(asked, leaps=leaps)
        assert not differences(reference, sink), f"leaps={leaps}"
        assert outcome == expected


@pytest.mark.parametrize("kind", ["paged", "radix", "hybrid", "ideal"])
def test_what_is_shared_makes_steps_of_a_run_shorter(kind: str) -> None:
    """Three samples of one prompt, whose 32 tokens are shared to the end."""
    options = {} if kind == "ideal" else {"block_size": 4}
    setup = Setup("orca", Limits(max_model_len=40), kind, 200, options)
    asked = ask((0, 32, 6, 3))
    times = []
    for cached in (0.0, 1.0):
        cost = CostModel(LLAMA, H100, Coefficients(repeated_reads_cached=cached))
        sink = replace(setup, clock=Simulated(cost)).run(asked)[1]
        times.append(np.array(sink.tables["steps"]["duration_s"]))
    token = LLAMA.kv_bytes_per_token / (H100.bandwidth * Coefficients().attention_memory_efficiency)
    assert times[0] - times[1] == pytest.approx([0] + [2 * 32 * token] * 5, abs=2e-9)


def test_what_a_window_has_left_behind_counts_for_no_block() -> None:
    groups = "full 2x8, sliding 3x8/9, sliding 1x16/6"
    options = {"block_size": 4, "paging": "uniform", "groups": groups}
    setup = Setup("orca", Limits(max_model_len=40), "hybrid", 80, options, instants=64)
    asked = ask((0, 9, 12), (2, 4, 9))
    assert not differences(setup.run(asked, reference=True)[1], setup.run(asked)[1])


def test_the_last_block_of_a_beam_may_come_from_a_step_that_was_given_up() -> None:
    """One beam has got its last block when there is none for the other, and both are swapped out."""
    limits = Limits(max_num_seqs=12, max_num_batched_tokens=8, max_model_len=40, chunked_prefill=False)
    setup = Setup("static", limits, "paged", 41, {"block_size": 4, "host_blocks": 40}, swap=True)
    asked = replace(ask((0, 9, 9), (0, 1, 1), (0, 13, 9, 2), (0, 1, 1), (0, 1, 1)), beam=True)
    reference = setup.run(asked, reference=True)[1]
    assert "swap_out" in reference.tables["events"]["event"]
    assert not differences(reference, setup.run(asked)[1])


@pytest.mark.parametrize("kind", registry.names())
def test_what_a_fork_copies_is_paid_for_by_the_next_step_which_is_not_leapt_over(kind: str) -> None:
    """Samples fork when their prompt is computed; without snapshots the engine may leap from then on."""
    setup = Setup("orca", Limits(max_model_len=40), kind, 4000, clock=Clock(copied=300), instants=0)
    asked = ask((0, 9, 20, 3))
    reference = setup.run(asked, reference=True)[1]
    assert reference.rows("requests")[0]["status"] == "finished"
    assert not differences(reference, setup.run(asked)[1])


@pytest.mark.parametrize(
    ("kind", "options"),
    [("paged", {"sliding_window": 5}), ("hybrid", {"groups": "sliding 1x8/5", "paging": "uniform"})],
)
def test_samples_that_got_a_slot_in_a_step_that_was_given_up_keep_what_it_reads(
    kind: str, options: dict[str, Value]
) -> None:
    """There is a block for two of three samples; all are swapped out, and compute the same token when they are back."""
    limits = Limits(max_num_batched_tokens=40, max_model_len=40, chunked_prefill=False, long_prefill_token_threshold=1)
    options = {"block_size": 3, "prefix_cache": True, "host_blocks": 40, **options}
    setup = Setup("vllm-v1", limits, kind, 30, options, clock=Clock(foresees=False), swap=True, instants=0)
    rows = (4, 1), (4, 1), (4, 1), (8, 1), (8, 1), (4, 4, 3)
    prompts = np.array([row[0] for row in rows])
    prefixes = Prefixes(np.ones(6, np.int64), prompts, np.arange(7), np.arange(100, 106))
    asked = replace(ask(*((0, *row) for row in rows)), prefixes=prefixes)
    ours = setup.run(asked)[1]
    assert "swap_in" in ours.tables["events"]["event"]
    assert ours.rows("steps")[-1]["shared_savings"] == 2 * 3, "two of three samples rely on the third's first block"
    assert not differences(setup.run(asked, reference=True)[1], ours)


def test_a_swapped_request_that_ended_a_prefill_step_comes_back_in_the_next_one() -> None:
    """The host has room for one of two: the other one is recomputed, and is ahead of it in the queue."""
    limits = Limits(max_num_batched_tokens=64, max_model_len=40, chunked_prefill=False)
    setup = Setup("vllm-v0", limits, "paged", 32, {"block_size": 4, "host_blocks": 2}, swap=True, instants=0)
    asked = ask((0, 1, 3), (0, 6, 17), (0, 6, 15), (0, 2, 13), (1, 8, 6))
    reference = setup.run(asked, reference=True)[1]
    assert {"swap_out", "preempt"} <= set(reference.tables["events"]["event"])
    assert not differences(reference, setup.run(asked)[1])


def test_more_sequences_than_the_budget_has_tokens_are_not_leapt_over() -> None:
    """One with three samples comes back from the host while another one decodes, and a step has three tokens."""
    limits = Limits(max_num_batched_tokens=3, max_model_len=40)
    setup = Setup("vllm-v1", limits, "paged", 40, {"block_size": 4, "host_blocks": 5}, swap=True, instants=0)
    asked = ask((0, 8, 18), (1, 6, 8), (1, 5, 9, 3))
    reference = setup.run(asked, reference=True)[1]
    assert "swap_in" in reference.tables["events"]["event"]
    assert not differences(reference, setup.run(asked)[1])


def test_a_sequence_that_a_small_budget_passes_by_gets_no_token() -> None:
    """Three samples use up the budget in every step; the request behind them has one long gap when they have ended."""
    setup = Setup("vllm-v1", Limits(max_num_batched_tokens=3, max_model_len=40), "paged", 400)
    asked = ask((0, 1, 6, 3), (0, 1, 7))
    ours = setup.run(asked)[1]
    assert [row["gap_tokens"] for row in ours.rows("steps")[1:6]] == [3] * 5
    assert ours.rows("requests")[1]["stall_s"] == []
    assert not differences(setup.run(asked, reference=True)[1], ours)


def test_beams_that_a_step_has_passed_by_stay_as_they_are_though_one_before_them_ends() -> None:
    """A request's samples go together, and the budget has room for two when a sequence before them has its token."""
    setup = Setup(
        "vllm-v1", Limits(max_num_batched_tokens=3, max_model_len=40), "contiguous", 400, clock=Clock(copied=300)
    )
    rows = (0, 1, 1), (0, 1, 1), (0, 1, 1), (0, 1, 3), (0, 1, 2, 3)
    asked = replace(ask(*rows), beam=True, after=np.array([-1, 0, 0, 0, 0]), delay_s=np.zeros(5))
    assert not differences(setup.run(asked, reference=True)[1], setup.run(asked)[1])


def test_a_sequence_whose_last_block_another_one_fills_enters_what_it_fills_in_the_same_step() -> None:
    """Two outputs go on alike, one a block ahead of the other, and both end with a full block."""
    limits = Limits(max_num_seqs=12, max_num_batched_tokens=8, max_model_len=40, chunked_prefill=False)
    prefixes = Prefixes(
        np.ones(10, np.int64),
        np.array([4, 4, 4, 4, 2, 4, 4, 4, 4, 4]),
        np.array([0, 1, 2, 3, 5, 6, 7, 8, 9, 10]),
        np.array([100, 101, 1, 103, 104, 105, 106, 107, 108]),
    )
    asked = ask(*((0, 6 if name == 3 else 4, 3 if name in (2, 3) else 1) for name in range(9)))
    for kind, options in (("paged", {"block_size": 2, "prefix_cache": True}), ("radix", {"block_size": 2})):
        setup = Setup("vllm-v0", replace(limits, full_prompt_gate=False), kind, 40, options)
        shared = replace(asked, prefixes=prefixes)
        assert not differences(setup.run(shared, reference=True)[1], setup.run(shared)[1])


@pytest.mark.parametrize(
    ("seen", "options"),
    [
        ("rounding", {"groups": "full 1x8, sliding 4x8/64", "paging": "uniform"}),
        ("evicted", {"groups": "full 2x8, sliding 2x8/64", "prefix_cache": True}),
    ],
)
def test_groups_with_windows_beyond_any_length_take_blocks_alike(seen: str, options: dict[str, str | bool]) -> None:
    """Leaps count what such blocks are padded with, and what is evicted for two of them at once."""
    setup = Setup("orca", Limits(max_model_len=40), "hybrid", 80, {"block_size": 4, **options})
    asked = ask(*((100 * nth, 9, 25) for nth in range(4)))
    reference = setup.run(asked, reference=True)[1]
    assert any(row[seen] for row in reference.rows("steps"))
    assert not differences(reference, setup.run(asked)[1])
