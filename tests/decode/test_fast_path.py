"""Fused products and padded steps say what the model says; all of it but the kernels runs on the CPU too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from sim.decode.elementwise import Angles, HeadNorms, rotate, rotate_and_store
from sim.decode.fused import fusible
from sim.decode.graphs import PaddedSteps
from sim.decode.model import Decoder, load
from sim.decode.store import KVStore
from sim.decode.transcript import Transcript
from sim.models.geometry import resolve_model
from tests.decode.room import CONFIGS, CPU, config, decode, workload

if TYPE_CHECKING:
    from pathlib import Path

    from sim.decode.trace import Step

PAGED = {"kind": "paged", "block_size": 4}
FUSED = ("tiny-llama", "mistral", "qwen2", "qwen3")


def named(model: str, folder: Path) -> str:
    return config(folder, model) if model in CONFIGS else model


@pytest.mark.parametrize("model", FUSED)
def test_fused_weights_are_the_models_own(model: str, tmp_path: Path) -> None:
    name = named(model, tmp_path)
    decoder = load(name, resolve_model(name), CPU)
    plain = load(name, resolve_model(name), CPU, fuse=False)
    assert decoder.fused is not None
    assert plain.fused is None
    for (which, mine), (_, yours) in zip(
        decoder.network.named_parameters(), plain.network.named_parameters(), strict=True
    ):
        assert torch.equal(mine, yours), which
    attention = decoder.network.model.layers[1].self_attn
    assert attention.q_proj.weight.untyped_storage().data_ptr() == attention.v_proj.weight.untyped_storage().data_ptr()


@pytest.mark.parametrize("model", [*FUSED, "tiny-gpt2", "opt", "tiny-falcon"])
@pytest.mark.parametrize("fuse", [True, False])
def test_padded_steps_say_the_same(model: str, *, fuse: bool, tmp_path: Path) -> None:
    name = named(model, tmp_path)
    if fuse and model not in FUSED:
        pytest.skip("its products are not fused")
    padded = decode(workload(name, PAGED, kv_kib=512), padded=True, fuse=fuse)
    assert padded.numerics().passed, padded.numerics().as_json()
    assert padded.numerics().largest_error < 1e-5


def test_an_architecture_that_is_not_known_is_not_fused() -> None:
    unknown = {"model_type": "llama", "hidden_act": "silu", "rope_parameters": {"rope_type": "dynamic"}}
    network: Any = SimpleNamespace(config=SimpleNamespace(**unknown))
    assert not fusible(network)
    network.config.rope_parameters = {"rope_type": "llama3"}
    assert fusible(network)
    network.config.model_type = "falcon"
    assert not fusible(network)


def alone(step: Step) -> bool:
    return bool(step.decodes) and not step.chunks


def mixed(step: Step) -> bool:
    return bool(step.decodes) and bool(step.chunks)


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
@pytest.mark.parametrize("prefix_cache", [False, True])
def test_padded_steps_survive_preemption_and_forks(preemption: str, prefix_cache: bool) -> None:
    options = {**PAGED, "host_blocks": 200, "prefix_cache": prefix_cache}
    engine = {"scheduler": "vllm-v0", "preemption": preemption, "max_num_seqs": 24}
    work = workload("tiny-llama", options, kv_kib=64, engine=engine, requests={"samples": 3})
    ran = decode(work, padded=True)
    steps = ran.recorded.steps
    assert any(alone(step) and step.moves for step in steps)
    assert any(step.preempted for step in steps)
    assert len({len(step.decodes) for step in steps if alone(step)}) > 3
    assert ran.numerics().passed, ran.numerics().as_json()


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_decodes_and_chunks_share_a_padded_step(preemption: str) -> None:
    engine = {"scheduler": "vllm-v1", "preemption": preemption, "max_num_batched_tokens": 40}
    options = {**PAGED, "host_blocks": 200, "prefix_cache": True}
    ran = decode(workload("tiny-llama", options, kv_kib=48, engine=engine), padded=True)
    steps = ran.recorded.steps
    both = [step for step in steps if mixed(step)]
    assert len({len(step.decodes) for step in both}) > 2
    assert len({len(step.chunks) for step in both}) > 1
    assert any(step.preempted for step in steps)
    assert ran.numerics().passed, ran.numerics().as_json()
    assert ran.numerics().largest_error < 1e-5


SWAPS = {"engine": {"scheduler": "vllm-v0", "preemption": "swap"}, "kv_kib": 48}
TURNS = {
    "requests": {
        "count": 9,
        "arrivals": {"kind": "fixed", "rate": 50},
        "lengths": {"kind": "uniform", "prompt": {"min": 8, "max": 16}, "output": {"min": 4, "max": 8}},
        "session": {"kind": "turns", "turns": 3, "think_s": 0.001},
    }
}


@pytest.mark.parametrize("changes", [SWAPS, TURNS], ids=["blocks that move", "prompts that repeat what was said"])
def test_a_device_settles_behind_what_was_launched_singly(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noted(owner: type, method: str) -> None:
        original = getattr(owner, method)

        def note(self: object, *given: Any) -> Any:
            done.append(method)
            return original(self, *given)

        monkeypatch.setattr(owner, method, note)

    for owner, method in ((Decoder, "settle"), (PaddedSteps, "run"), (KVStore, "swap_out"), (KVStore, "swap_in")):
        noted(owner, method)
    completed = 0
    original = Transcript.open

    def opened(self: Transcript, job: Any) -> None:
        nonlocal completed
        original(self, job)
        if self.completed > completed:
            done.append("open")
        completed = self.completed

    monkeypatch.setattr(Transcript, "open", opened)
    work = workload("tiny-llama", {**PAGED, "host_blocks": 200}, **changes)
    assert decode(work, padded=True).numerics().passed
    steps = " ".join(done).split("run")
    singly = [step for step in steps if "swap" in step or "open" in step]
    assert len(singly) > 3
    assert all(step.split()[-1] == "settle" for step in singly)
    assert sum("settle" not in step for step in steps) > len(singly)


@pytest.mark.parametrize("kind", ["contiguous", "preallocated", "virtual", "radix"])
def test_padded_steps_serve_every_allocator_with_blocks(kind: str) -> None:
    kib = {"virtual": 4096, "radix": 48}.get(kind, 96)
    options = {"kind": kind, "scheduler": "orca"} | ({"page_kib": 64} if kind == "virtual" else {})
    ran = decode(workload("tiny-llama", options, kv_kib=kib), padded=True)
    assert ran.numerics().passed, ran.numerics().as_json()


def test_padded_steps_see_through_a_window(tmp_path: Path) -> None:
    ran = decode(workload(config(tmp_path, "mistral"), {**PAGED, "sliding_window": 21}, kv_kib=48), padded=True)
    assert any(step.usage.dropped for step in ran.recorded.steps)
    assert ran.numerics().passed, ran.numerics().as_json()


@pytest.mark.parametrize("normed", [False, True])
def test_what_is_rotated_is_stored(*, normed: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    heads, kv_heads, dim, tokens = 6, 2, 8, 5
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * dim, generator=rng)
    angles = Angles(*torch.randn(2, tokens, dim // 2, generator=rng))
    norms = HeadNorms(*torch.randn(2, dim, generator=rng), 1e-6) if normed else None
    query, key, value = rotate(qkv, angles, heads, kv_heads, norms)
    cache = (torch.zeros(4, 4, kv_heads, dim), torch.zeros(4, 4, kv_heads, dim))
    slots = torch.tensor([3, 15, 0, 7, 8])
    assert torch.equal(rotate_and_store(qkv, angles, heads, norms, cache, slots), query)
    for blocks, new in zip(cache, (key, value), strict=True):
        assert torch.equal(blocks.flatten(0, 1)[slots], new)
        assert int(blocks.flatten(0, 1).abs().sum(dim=(1, 2)).count_nonzero()) == tokens
