"""Decoding through the block table says what the model says with a cache of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from sim.engine.executor import Executor
from tests.decode.room import CONFIGS, config, decode, workload

if TYPE_CHECKING:
    from pathlib import Path

    from sim.decode.runtime import Runtime
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving

PAGED = {"kind": "paged", "block_size": 4}
TIGHT = 48
"""KiB of K/V of tiny-llama: 192 tokens, so that eight sequences of 28 to 74 fight for them."""


@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-llama", "tiny-falcon", *CONFIGS])
def test_every_head_layout_says_what_the_model_says(model: str, tmp_path: Path) -> None:
    name = config(tmp_path, model) if model in CONFIGS else model
    ran = decode(workload(name, PAGED, kv_kib=512))
    numerics = ran.numerics()
    assert numerics.passed, numerics.as_json()
    assert numerics.equal == numerics.tokens == int(ran.runtime.transcript.output.sum())
    assert numerics.largest_error < 1e-5


@pytest.mark.parametrize("scheduler", ["vllm-v1", "vllm-v0", "orca"])
@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_preemption_leaves_no_trace(scheduler: str, preemption: str) -> None:
    options = {**PAGED, "host_blocks": 200} if preemption == "swap" else PAGED
    work = workload("tiny-llama", options, kv_kib=TIGHT, engine={"scheduler": scheduler, "preemption": preemption})
    ran = decode(work)
    preempted = sum(len(step.preempted) for step in ran.recorded.steps)
    moved = {kind for step in ran.recorded.steps for kind, _, _ in step.moves}
    assert preempted > 0
    assert moved == ({"in", "out"} if preemption == "swap" else set())
    assert ran.numerics().passed, ran.numerics().as_json()


@pytest.mark.parametrize("scheduler", ["vllm-v1", "vllm-v0"])
@pytest.mark.parametrize("preemption", ["recompute", "swap"])
@pytest.mark.parametrize("prefix_cache", [False, True])
def test_forks_copy_on_write(scheduler: str, preemption: str, prefix_cache: bool) -> None:
    options = {**PAGED, "host_blocks": 200, "prefix_cache": prefix_cache}
    engine = {"scheduler": scheduler, "preemption": preemption, "max_num_seqs": 24}
    ran = decode(workload("tiny-llama", options, kv_kib=64, engine=engine, requests={"samples": 3}))
    assert any(kind == "copy" for step in ran.recorded.steps for kind, _, _ in step.moves)
    assert any(step.preempted for step in ran.recorded.steps)
    transcript = ran.runtime.transcript
    firsts = {transcript.sequence(0, sample)[int(transcript.prompt[0])] for sample in range(3)}
    assert len(firsts) == 3
    assert ran.numerics().passed, ran.numerics().as_json()


@pytest.mark.parametrize("block_size", [1, 4, 16])
def test_prefix_hits_read_what_others_wrote(block_size: int) -> None:
    options = {"kind": "paged", "block_size": block_size, "prefix_cache": True}
    shared = {"shared": [{"tokens": 24, "pool": 2}], "arrivals": {"kind": "fixed", "rate": 100}}
    ran = decode(workload("tiny-gpt2", options, kv_kib=512, requests=shared, engine={"max_model_len": 128}))
    transcript = ran.runtime.transcript
    heads = {tuple(transcript.sequence(index, 0)[:24]) for index in range(8)}
    assert len(heads) == 2
    assert sum(start for step in ran.recorded.steps for _, _, start, _ in step.chunks) > 24
    assert ran.numerics().passed, ran.numerics().as_json()


@pytest.mark.parametrize("loop", ["closed", "open"])
def test_later_turns_repeat_what_was_said(loop: str) -> None:
    session = {"kind": "turns", "turns": 3, "loop": loop, "think_s": 0.001}
    lengths = {"kind": "fixed", "prompt": 12, "output": 9}
    requests = {"count": 9, "lengths": lengths, "session": session, "arrivals": {"kind": "fixed", "rate": 50}}
    ran = decode(workload("tiny-llama", {**PAGED, "prefix_cache": True}, requests=requests))
    transcript = ran.runtime.transcript
    turns = sorted(range(9), key=lambda index: int(transcript.prompt[index]))
    said = {tuple(transcript.sequence(index, 0)) for index in turns[:3]}
    assert {tuple(transcript.sequence(index, 0)[:21]) for index in turns[3:]} == said
    if loop == "closed":
        assert ran.numerics().passed, ran.numerics().as_json()
    assert ran.numerics().largest_error < 1e-5


@pytest.mark.parametrize("scheduler", ["vllm-v1", "orca"])
def test_sliding_windows_drop_blocks(scheduler: str, tmp_path: Path) -> None:
    name = config(tmp_path, "mistral")
    ran = decode(workload(name, {**PAGED, "sliding_window": 21}, kv_kib=TIGHT, engine={"scheduler": scheduler}))
    assert any(step.usage.dropped for step in ran.recorded.steps)
    assert ran.numerics().passed, ran.numerics().as_json()


def test_a_window_too_narrow_for_the_model_is_found(tmp_path: Path) -> None:
    ran = decode(workload(config(tmp_path, "mistral"), {**PAGED, "sliding_window": 12}))
    assert not ran.numerics().passed


def test_chunks_and_decodes_share_a_step() -> None:
    ran = decode(workload("tiny-llama", PAGED, engine={"max_num_batched_tokens": 16}))
    assert any(step.decodes and step.chunks for step in ran.recorded.steps)
    assert any(start for step in ran.recorded.steps for _, _, start, _ in step.chunks)
    assert ran.numerics().passed, ran.numerics().as_json()


def test_bf16_stays_within_its_tolerance() -> None:
    ran = decode(workload({"name": "tiny-llama", "dtype": "bf16"}, PAGED))
    numerics = ran.numerics()
    assert numerics.passed, numerics.as_json()
    assert not numerics.exact


class Sabotaged(Executor):
    """Runs plans after something has gone wrong with their K/V."""

    def __init__(self, executor: Executor, runtime: Runtime, fault: str) -> None:
        self.executor, self.runtime, self.fault = executor, runtime, fault

    def run(self, plan: Plan, serving: Serving) -> int:
        moves = plan.moves
        if self.fault == "copies are lost":
            plan.moves = [move for move in moves if move.kind != "copy"]
        elif self.fault == "swaps are lost":
            plan.moves = [move for move in moves if move.kind != "in"]
        elif self.fault == "a slot is wrong" and plan.decodes:
            row = int(serving.decoding.column(serving.decoding.ROW)[0])
            block = int(serving.allocator.table.row(row)[0])
            self.runtime.store.blocks[1, 0, block, 0] *= -1
        try:
            return self.executor.run(plan, serving)
        finally:
            plan.moves = moves  # the engine knows nothing of it


@pytest.mark.parametrize("fault", ["none", "copies are lost", "swaps are lost", "a slot is wrong"])
def test_what_is_wrong_is_found(fault: str) -> None:
    options = {**PAGED, "host_blocks": 200}
    engine = {"scheduler": "vllm-v0", "preemption": "swap", "max_num_seqs": 24}
    work = workload("tiny-llama", options, kv_kib=64, engine=engine, requests={"samples": 3})
    ran = decode(work, wrap=lambda executor, runtime: Sabotaged(executor, runtime, fault))
    numerics = ran.numerics()
    assert numerics.passed == (fault == "none")
    assert bool(numerics.first) == (fault != "none")


@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-llama"])
def test_the_tokens_are_those_of_generate(model: str) -> None:
    ran = decode(workload(model, {**PAGED, "prefix_cache": True}))
    network, transcript = ran.decoder.network, ran.runtime.transcript
    network.config._attn_implementation = "sdpa"
    network.generation_config.eos_token_id, network.generation_config.pad_token_id = None, 0
    for index in range(4):
        tokens, prompt = transcript.sequence(index, 0), int(transcript.prompt[index])
        ids = torch.tensor([tokens[:prompt]])
        said = network.generate(ids, do_sample=False, max_new_tokens=int(transcript.output[index]))
        assert said[0].tolist() == tokens
