"""What a model's architecture does to step times: attention of every kind, experts, states, formats, several GPUs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.models.geometry import resolve_model
from sim.setup import prepare
from tests.costs import H100, ROOFLINE, decode, model, prompt
from workloads.loader import load as load_preset


def test_naive_attention_pays_for_every_score() -> None:
    flash, naive = (model("llama-2-7b", attention=kind, coefficients=ROOFLINE) for kind in ("flash", "naive"))
    n = 2048
    extra = (naive.step_ns(prompt(n)) - flash.step_ns(prompt(n))) / 1e9
    traffic = n * n * 32 * 32 * 4 * 2 / 3.35e12  # layers, heads, passes, bytes
    other_half = (n * n - n * (n + 1) // 2) * 4 * 32 * 32 * 128 / 989e12
    kv = n * 524_288 / 3.35e12
    assert extra == pytest.approx(traffic + other_half + kv, rel=1e-6)
    # Twice the prompt, four times the scores.
    longer = (naive.step_ns(prompt(2 * n)) - flash.step_ns(prompt(2 * n))) / 1e9
    assert longer / extra == pytest.approx(4, rel=0.05)


def test_without_a_cache_the_whole_sequence_is_computed_again() -> None:
    cost = model("gpt2")
    with_cache = [cost.step_ns(decode(1, n)) for n in (1000, 100_000)]
    without = [cost.step_ns(prompt(n)) for n in (1000, 100_000)]
    assert with_cache[1] < 3 * with_cache[0]
    assert without[1] > 200 * without[0] > 200 * with_cache[0]


def test_sessions_end_where_the_context_of_the_model_does() -> None:
    session = "requests.session={kind: turns, turns: 40, think_s: 1}"
    setup = prepare(load_preset("quickstart", ["model=gpt2", "engine={}", "requests.count=400", session]))
    made = setup.requests()
    later = made.after >= 0
    assert (made.prompt_tokens + made.output_tokens)[later].max() <= 1024
    assert "sessions end early: the next turn would make them longer than 1,024 tokens" in made.notes[0]


def test_fewer_kv_heads_and_smaller_kv_make_decode_faster() -> None:
    load = decode(64, 8192)
    mha, gqa, mqa = (model({"name": "llama-3.1-8b", "kv_heads": heads}).step_ns(load) for heads in (32, 8, 1))
    assert mha > 2.5 * gqa > 2.5 * mqa
    fp8 = model({"name": "llama-3.1-8b", "kv_dtype": "fp8"}).step_ns(load)
    assert 0.5 * gqa < fp8 < 0.7 * gqa


def test_sliding_layers_read_their_window_only() -> None:
    cost = model("gemma-3-12b", coefficients=ROOFLINE)
    load = decode(1, 100_000)
    windowed = cost.step_ns(load._replace(window_decode_context=1024)) - cost.step_ns(Load(decode_seqs=1, samples=1))
    assert windowed == pytest.approx((8 * 100_000 + 40 * 1024) * 8192 / 3.35e12 * 1e9, abs=2)


def test_a_mixture_reads_the_experts_that_its_tokens_reach() -> None:
    cost = model({"name": "deepseek-v3", "tensor_parallel": 8}, coefficients=ROOFLINE)
    routed = cost.geometry.routed_bytes / 3.35e12 * 1e9
    one, two = (cost.step_ns(decode(batch, 0)) for batch in (1, 2))
    assert two - one == pytest.approx(routed * (8 / 256) * (1 - 8 / 256), rel=0.05)
    many = cost.step_ns(decode(1000, 0))
    assert many > routed


def test_a_mixture_computes_only_the_experts_to_which_a_token_is_sent() -> None:
    cost = model("gpt-oss-20b", coefficients=ROOFLINE)
    geometry, (few, many) = cost.geometry, (Load(prefill_tokens=tokens) for tokens in (50_000, 100_000))
    products = (cost.step_ns(many) - cost.step_ns(few) - (cost.attention_s(many) - cost.attention_s(few)) * 1e9) / 1e9
    per_token = geometry.weights.dense + geometry.weights.routed * 4 / 32
    assert products == pytest.approx(50_000 * 2 * per_token / H100.peak(geometry.model.compute_dtype), rel=1e-6)


def test_latent_attention_unpacks_the_context_of_a_chunk() -> None:
    cost = model({"name": "deepseek-v3", "tensor_parallel": 8}, coefficients=ROOFLINE)
    later, first = prompt(16, start=4096), prompt(16)
    unpack = 4096 * 2 * 512 * 16 * 256 * 61 / 1979e12

    def attention(load: Load) -> float:
        read = load.prefill_context * 70_272 / 3.35e12
        return max(read, load.prefill_pairs * 2 * 16 * (128 + 64 + 128) * 61 / 989e12)

    assert cost.attention_s(first) == pytest.approx(attention(first)), "its own tokens are unpacked already"
    assert cost.attention_s(later) == pytest.approx(attention(later) + unpack)
    assert cost.step_ns(later) - cost.step_ns(first) == pytest.approx(
        (cost.attention_s(later) - cost.attention_s(first)) * 1e9, abs=2
    )


def test_latent_attention_decodes_in_the_compressed_space() -> None:
    """Scores over 512 + 64 elements of the cached vector, and a weighted sum of its 512, for each of 16 heads."""
    geometry = resolve_model({"name": "deepseek-v3", "tensor_parallel": 8})
    cost = CostModel(geometry, replace(H100, bandwidth=1e30), ROOFLINE)
    assert cost.attention_s(decode(1, 1000)) == pytest.approx(1000 * 2 * 16 * (576 + 512) * 61 / 989e12)


def test_gpus_in_parallel_share_work_and_pay_for_all_reduces() -> None:
    one, four = (model({"name": "opt-13b", "tensor_parallel": tp}, "a100-40gb", coefficients=ROOFLINE) for tp in (1, 4))
    load = decode(8, 512)
    reduces = 2 * 40 * 2 * 3 / 4 * 8 * 5120 * 2 / 300e9
    assert four.step_ns(load) / 1e9 == pytest.approx(one.step_ns(load) / 4e9 + reduces, rel=0.02)
    late = model(
        {"name": "opt-13b", "tensor_parallel": 4}, "a100-40gb", coefficients=replace(ROOFLINE, allreduce_latency_s=1e-5)
    )
    assert late.step_ns(load) - four.step_ns(load) == pytest.approx(2 * 40 * 10_000, abs=2)
    slow = model(
        {"name": "opt-13b", "tensor_parallel": 4}, "a100-40gb", coefficients=replace(ROOFLINE, link_efficiency=0.5)
    )
    assert slow.step_ns(load) - four.step_ns(load) == pytest.approx(reduces * 1e9, abs=2)


def test_recurrent_layers_move_their_state_once_a_sequence() -> None:
    cost = model({"name": "jamba-v0.1", "tensor_parallel": 4}, coefficients=ROOFLINE)
    state = 2 * 28 * 8192 * 19 * 2 / 4 / 3.35e12
    grown = cost.step_ns(Load(decode_seqs=1, prefill_seqs=100)) - cost.step_ns(Load(decode_seqs=1))
    assert grown == pytest.approx(100 * state * 1e9, abs=2)


def test_quantized_products_use_their_own_units() -> None:
    fp8, bf16 = model("deepseek-v3"), model({"name": "deepseek-v3", "dtype": "bf16"})
    load = prompt(64, count=512)
    assert bf16.step_ns(load) == pytest.approx(2 * fp8.step_ns(load), rel=0.1)
