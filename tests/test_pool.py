"""The number of blocks, from which everything else follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocators.answers import Measure
from sim.devices import GIB, resolve_device
from sim.errors import UserError
from sim.models.geometry import resolve_model
from sim.models.shipped import read_config
from sim.pool import Pool, activation_bytes, make_pool


def pool(model: str | dict[str, Any], device: str | dict[str, Any], block_size: int = 16, **more: Any) -> Pool:
    return make_pool(resolve_model(model), resolve_device(device), Measure(block_size), **more)


def test_the_paper_s_pools() -> None:
    # PagedAttention paper, table 1: 15.7K slots of 800 KiB in 12 GB, 60.1K slots of 4.5 MiB in 264 GB on 8 GPUs.
    # (12 GiB are 15,728.64 slots: a pool has whole ones.)
    small = pool("opt-13b", {"name": "a100-40gb", "kv_memory_gib": 12}, block_size=1)
    assert (small.slots, small.num_blocks) == (15_728, 15_728)
    assert pool("opt-13b", {"name": "a100-40gb", "kv_memory_gib": 12}).num_blocks == 983
    large = {"name": "opt-175b", "tensor_parallel": 8}
    assert pool(large, {"name": "a100-80gb", "kv_memory_gib": 264 / 8}, block_size=1).slots == 60_074


def test_the_pool_is_what_weights_and_activations_leave() -> None:
    made = pool("llama-3.1-8b", "h100-80gb", max_num_batched_tokens=8192)
    left = int(made.memory_bytes * 0.9) - made.weight_bytes - made.activation_bytes
    assert made.kv_bytes == left
    assert made.num_blocks == left // (16 * 128 * 1024) == 28_213
    assert not made.given


def test_the_pool_agrees_with_vllm_s_log() -> None:
    # vLLM pull request 12126 prints for an H100: 79.22 GiB x 0.90 = 71.29 GiB; pull request 10511 for Llama-3-8B:
    # weights 14.96 GiB, activations 1.26 GiB (8,192 tokens, 256 sequences).
    made = pool("llama-3.1-8b", "h100-80gb", max_num_batched_tokens=8192, max_num_seqs=256)
    assert made.memory_bytes * 0.9 / GIB == pytest.approx(71.29, abs=0.05)
    assert made.weight_bytes / GIB == pytest.approx(14.96, abs=0.005)
    assert made.activation_bytes / GIB == pytest.approx(1.26, abs=0.1)
    # vLLM pull request 2031: Llama-2-7B on an A100-80GB, 7,351 blocks of 16.
    assert pool("llama-2-7b", "a100-80gb", max_num_batched_tokens=4096).num_blocks == pytest.approx(7351, rel=0.015)


def test_activations_are_estimated_from_the_widest_layer_and_the_logits() -> None:
    geometry = resolve_model("llama-3.1-8b")
    tokens, logits = 1000 * (2 * 4096 + 3 * 14336) * 2, 10 * 128_256 * (2 + 12)
    assert activation_bytes(geometry, 1000, 10) == tokens + logits
    plain = 1000 * (2 * 5120 + 2 * 20480) * 2  # OPT's feed-forward has no gate
    assert activation_bytes(resolve_model("opt-13b"), 1000, 0) == plain
    halved = resolve_model({"name": "llama-3.1-8b", "tensor_parallel": 2})
    assert activation_bytes(halved, 1000, 0) == 1000 * (2 * 4096 + 3 * 7168) * 2
    twice = pool("llama-3.1-8b", "h100-80gb", activation_factor=2.0)
    assert twice.activation_bytes == 2 * pool("llama-3.1-8b", "h100-80gb").activation_bytes


def test_a_smaller_kv_dtype_and_fewer_kv_heads_give_more_slots() -> None:
    plain = pool("llama-3.1-8b", "h100-80gb").slots
    assert pool({"name": "llama-3.1-8b", "kv_dtype": "fp8"}, "h100-80gb").slots == pytest.approx(2 * plain, rel=1e-3)
    assert pool({"name": "llama-3.1-8b", "kv_heads": 1}, "h100-80gb").slots > 8 * plain


def test_recurrent_state_of_a_full_batch_is_set_aside() -> None:
    made = pool({"name": "jamba-v0.1", "tensor_parallel": 4}, "h100-80gb", max_num_seqs=256)
    assert made.state_bytes == 256 * 28 * 8192 * 19 * 2 // 4
    assert made.kv_bytes == int(made.memory_bytes * 0.9) - made.weight_bytes - made.activation_bytes - made.state_bytes
    assert "recurrent state of a full batch" in dict(made.explain())


def test_recurrent_state_comes_out_of_the_cache_s_memory_where_that_is_given() -> None:
    model, device = {"name": "jamba-v0.1", "tensor_parallel": 2}, {"name": "h100-80gb", "kv_memory_gib": 4}
    made = pool(model, device)
    assert made.kv_bytes == 4 * GIB - made.state_bytes
    assert dict(made.explain())["KV memory, as given, less that state"] == "2.96 GiB"
    with pytest.raises(
        UserError, match=r"4\.00 GiB, less a full batch's recurrent state of 4\.16 GiB, is less than one"
    ):
        pool(model, device, max_num_seqs=1024)
    all_in_blocks = Measure(4, slot_bytes=8192, multiple=532, states=True)
    whole = make_pool(resolve_model(model), resolve_device(device), all_in_blocks, max_num_seqs=1024)
    assert whole.num_blocks == 4 * GIB // (532 * 4 * 8192) * 532
    assert (whole.slots, whole.tokens) == (whole.num_blocks * 4, whole.num_blocks * 4)


def test_explain_shows_the_whole_sum() -> None:
    rows = dict(pool("opt-13b", {"name": "a100-40gb", "kv_memory_gib": 12}).explain())
    assert rows == {
        "GPU memory": "39.49 GiB",
        "weights": "23.94 GiB",
        "activations, estimated peak": "0.36 GiB",
        "KV memory, as given": "12.00 GiB",
        "token slot": "819,200 B",
        "block": "16 x 819,200 = 13,107,200 B",
        "pool": "983 blocks = 15,728 slots",
    }


@given(
    block_size=st.sampled_from([1, 8, 16, 32, 256]),
    utilization=st.floats(0.3, 1.0),
    tokens=st.integers(1, 16_384),
    seqs=st.integers(1, 1024),
)
def test_blocks_fill_the_memory_and_no_more(block_size: int, utilization: float, tokens: int, seqs: int) -> None:
    made = pool(
        "llama-3.1-8b",
        "h100-80gb",
        block_size,
        utilization=utilization,
        max_num_batched_tokens=tokens,
        max_num_seqs=seqs,
    )
    assert 0 <= made.kv_bytes - made.num_blocks * made.block_bytes < made.block_bytes
    assert made.slots == made.num_blocks * block_size
    assert made.kv_bytes + made.weight_bytes + made.activation_bytes <= made.memory_bytes * utilization


@pytest.mark.parametrize(
    ("model", "device", "words"),
    [
        (
            "llama-3.1-70b",
            "h100-80gb",
            "131.42 GiB, activations 0.82 GiB and one block 5.00 MiB are 60.97 GiB more than 90% of its 79.19 GiB",
        ),
        (
            {"name": "llama-3.1-70b", "tensor_parallel": 2},
            "a100-40gb",
            "on each of 2 x a100-40gb: weights 65.71 GiB, activations 0.65 GiB and one block 2.50 MiB",
        ),
        (
            "opt-13b",
            {"name": "a100-40gb", "kv_memory_gib": 20},
            "kv_memory_gib 20.00 GiB are 4.45 GiB more than 100% of its 39.49 GiB; a smaller kv_memory_gib, a larger",
        ),
        ("jamba-v0.1", "l4", "weights 96.06 GiB, recurrent state 2.08 GiB, activations"),
        ("tiny-llama", {"name": "l4", "kv_memory_gib": 1e-9}, "kv_memory_gib: 1 B is less than one block of 4,096 B"),
        ("opt-13b", {"name": "a100-40gb", "kv_memory_gib": 0.01}, "10.24 MiB is less than one block of 12.50 MiB"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line_with_by_how_much(model: Any, device: Any, words: str) -> None:
    with pytest.raises(UserError) as error:
        pool(model, device)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_without_attention_has_no_pool(tmp_path: Path) -> None:
    _, config = read_config("jamba-v0.1")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**config, "layer_types": ["mamba"] * 32}))
    with pytest.raises(UserError, match="has no attention: it keeps no K/V to manage"):
        pool({"name": str(path), "tensor_parallel": 4}, "h100-80gb")
