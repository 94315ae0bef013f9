"""Step times: one formula on numbers and on arrays, and figures that were measured elsewhere."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.costs.coefficients import Coefficients
from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.devices import resolve_device
from sim.errors import UserError
from sim.models.geometry import resolve_model
from sim.setup import prepare
from workloads.loader import load as load_preset

H100 = resolve_device("h100-80gb")
LLAMA = resolve_model("llama-3.1-8b")
REPLAYED = Coefficients(captured_tokens=512.0)
"""Of an engine whose small prefills are replayed from CUDA graphs."""
ROOFLINE = Coefficients(
    memory_efficiency=1.0,
    compute_efficiency=1.0,
    overlap_loss=0.0,
    attention_memory_efficiency=1.0,
    attention_compute_efficiency=1.0,
    layer_overhead_s=0.0,
    step_overhead_s=0.0,
    transfer_overhead_s=0.0,
    copy_efficiency=1.0,
    link_efficiency=1.0,
    pcie_efficiency=1.0,
    allreduce_latency_s=0.0,
)
"""The peaks and nothing else, so that times can be computed by hand."""


def model(spec: str | dict[str, Any], device: str = "h100-80gb", **more: Any) -> CostModel:
    return CostModel(resolve_model(spec), resolve_device(device), more.pop("coefficients", None), **more)


def decode(batch: int, context: int) -> Load:
    return Load(decode_seqs=batch, decode_context=batch * context, samples=batch)


def prompt(tokens: int, start: int = 0, count: int = 1) -> Load:
    """`count` chunks of `tokens` tokens after `start` others."""
    return Load(
        prefill_tokens=count * tokens,
        prefill_pairs=count * (tokens * start + tokens * (tokens + 1) // 2),
        prefill_context=count * (start + tokens),
        prefill_seqs=count,
        samples=count,
    )


MODELS = [
    model("llama-3.1-8b"),
    model("opt-13b", "a100-40gb", attention="naive", coefficients=Coefficients(paged_attention_overhead=0.23)),
    model("gemma-3-12b"),
    model({"name": "deepseek-v3", "tensor_parallel": 8}, "h200"),
    model(
        {"name": "jamba-v0.1", "tensor_parallel": 4},
        coefficients=Coefficients(sequence_overhead_s=7e-6, step_factor=1.03),
    ),
    model({"name": "gpt-oss-20b", "kv_dtype": "fp8"}, "l4", attention="naive"),
    model("llama-3.1-8b", coefficients=Coefficients(repeated_reads_cached=0.7)),
    model("llama-3.1-8b", coefficients=Coefficients(power_throttle=0.2, power_reserve_s=0.03)),
    model("gemma-3-12b", attention="naive", coefficients=Coefficients(repeated_reads_cached=1.0)),
    model(
        "llama-3.1-8b",
        route="recompute",
        coefficients=Coefficients(recompute_launch_layer_s=2e-5, recompute_slowdown=0.1),
    ),
]
WAITING = model("llama-3.2-1b", coefficients=REPLAYED.changed({"prefill_host_s": 0.5}, ""))
"""Waits for the host, so that a step with a prefill can be longer than one with a larger prefill."""


@st.composite
def loads(draw: st.DrawFn) -> Load:
    """Anything a step may compute and move."""
    seqs, chunks = draw(st.integers(0, 512)), draw(st.integers(0, 8))
    context = draw(st.integers(seqs, 200_000 * seqs)) if seqs else 0
    tokens = draw(st.integers(chunks, 8192 * chunks)) if chunks else 0
    start = draw(st.integers(0, 100_000)) * chunks
    pairs = draw(st.integers(tokens, (start + tokens) ** 2)) if chunks else 0
    rare = st.one_of(st.just(0), st.integers(0, 2**30))
    mapped, unmapped = draw(rare), draw(rare)
    return Load(
        prefill_tokens=tokens,
        prefill_pairs=pairs,
        prefill_context=start + tokens,
        prefill_seqs=chunks,
        decode_seqs=seqs,
        decode_context=context,
        samples=draw(st.integers(0, seqs + chunks)),
        copied_tokens=draw(rare),
        swapped_bytes=draw(rare),
        transfers=draw(rare),
        mapped_pages=mapped,
        unmapped_pages=unmapped,
        mapped_ahead=draw(st.integers(0, mapped)),
        unmapped_ahead=draw(st.integers(0, unmapped)),
        before_ns=draw(rare),
        window_pairs=pairs // 2,
        window_prefill_context=(start + tokens) // 2,
        window_decode_context=context // 3,
        decode_repeated=draw(st.integers(0, context)),
        heat_ns=draw(st.one_of(st.just(0), st.integers(0, 10**8))),
    )


@given(which=st.sampled_from([*MODELS, WAITING]), steps=st.lists(loads(), min_size=1, max_size=20))
def test_a_leap_is_its_steps_to_the_bit(which: CostModel, steps: list[Load]) -> None:
    columns = {
        name: np.array(column, np.int64) for name, column in zip(Load._fields, zip(*steps, strict=True), strict=True)
    }
    leap = which.leap_ns(Load(), **columns)
    assert leap.dtype == np.int64
    assert leap.tolist() == [which.step_ns(step) for step in steps]


@given(
    which=st.sampled_from(MODELS),
    seqs=st.integers(1, 512),
    earlier=st.lists(st.integers(0, 10**8), min_size=1, max_size=50),
    copied=st.booleans(),
    data=st.data(),
)
def test_pure_decode_steps_leapt_over_are_those_steps(
    which: CostModel, seqs: int, earlier: list[int], copied: bool, data: st.DataObject
) -> None:
    repeated = data.draw(st.one_of(st.just(0), st.integers(0, min(earlier))))
    leap = which.decode_ns(seqs, np.array(earlier, np.float64) + seqs, repeated, copied=copied)
    load = Load(decode_seqs=seqs, samples=seqs, decode_repeated=repeated)
    steps = [load._replace(decode_context=tokens + seqs, copied_tokens=copied * tokens) for tokens in earlier]
    assert leap.tolist() == [which.step_ns(step) for step in steps]


@given(which=st.sampled_from(MODELS), load=loads(), field=st.sampled_from(Load._fields), more=st.integers(1, 10**6))
def test_more_of_anything_never_takes_less_time(which: CostModel, load: Load, field: str, more: int) -> None:
    if field == "prefill_tokens":  # more tokens come with their pairs
        larger = load._replace(
            prefill_tokens=load.prefill_tokens + more,
            prefill_context=load.prefill_context + more,
            prefill_pairs=load.prefill_pairs + more,
            window_pairs=load.window_pairs + more,
        )
    else:
        larger = load._replace(**{field: getattr(load, field) + more})
    if field in {"mapped_ahead", "unmapped_ahead", "before_ns", "decode_repeated"}:  # these say what is hidden
        load, larger = larger, load
    assert which.step_ns(larger) >= which.step_ns(load)


def test_nothing_to_run_costs_only_the_step() -> None:
    assert MODELS[0].step_ns(Load()) == 610_000
    assert MODELS[0].step_ns(Load(copied_tokens=1)) > 610_000


def test_decode_at_the_memory_floor() -> None:
    # The weights but the input embedding, and the K/V, once over 3.35 TB/s.
    weights = 2 * (8_030_261_248 - 128_256 * 4096)
    kv = 64 * 1024 * 131_072
    extras = 64 * ((6 * 4096 + 3 * 14336) * 32 * 2 + 131_072 + 4096 * 2 + 128_256 * 4)
    step = model("llama-3.1-8b", coefficients=ROOFLINE).step_ns(decode(64, 1024))
    assert step == pytest.approx((weights + kv + extras) / 3.35e12 * 1e9, abs=2)


def test_prefill_at_the_peak() -> None:
    dense = 8_030_261_248 - 2 * 128_256 * 4096 - 65 * 4096
    products = 2 * 4096 * dense / 989e12
    pairs = 4096 * 4097 // 2
    attention = pairs * 4 * 32 * 32 * 128 / 989e12
    head = 2 * 128_256 * 4096 / 3.35e12  # one row of logits: its weights' traffic
    step = model("llama-3.1-8b", coefficients=ROOFLINE).step_ns(prompt(4096)) / 1e9
    assert step == pytest.approx(products + attention + head, rel=1e-3)


def test_chunks_of_a_prompt_cost_at_least_the_prompt_and_do_the_same_pairs() -> None:
    whole = prompt(4096)
    chunks = [prompt(512, start) for start in range(0, 4096, 512)]
    assert sum(chunk.prefill_pairs for chunk in chunks) == whole.prefill_pairs
    assert sum(map(MODELS[0].step_ns, chunks)) > MODELS[0].step_ns(whole)


@pytest.mark.parametrize(
    ("name", "batch", "share"),
    [
        ("llama-3.1-8b", 1, 0.71),
        ("llama-3.1-8b", 64, 0.75),
        ("llama-3.1-8b", 256, 0.79),
        ("llama-3.2-1b", 1, 0.48),
        ("llama-3.2-1b", 64, 0.56),
        ("llama-3.2-1b", 256, 0.69),
    ],
)
def test_the_defaults_meet_steps_measured_on_an_h100(name: str, batch: int, share: float) -> None:
    """Decode under torch.compile and CUDA graphs at context 1,024, as a share of (weights + KV) / 3.04 TB/s."""
    geometry = resolve_model(name)
    count = geometry.weights
    read = 2 * (count.dense + count.head + count.vectors) + batch * 1024 * geometry.kv_bytes_per_token
    measured = read / 3.04e12 / share
    assert model(name).step_ns(decode(batch, 1024)) / 1e9 == pytest.approx(measured, rel=0.065)


@pytest.mark.parametrize(("batch", "floor"), [(64, 7.8e-3), (256, 16.2e-3)])
def test_the_measured_memory_floor(batch: int, floor: float) -> None:
    only_memory = replace(ROOFLINE, memory_efficiency=3.04 / 3.35, attention_memory_efficiency=3.04 / 3.35)
    ideal = replace(H100, flops={"bf16": 1e30})
    step = CostModel(LLAMA, ideal, only_memory).step_ns(decode(batch, 1024)) / 1e9
    assert step == pytest.approx(floor, rel=0.05)  # activations come on top of it


def test_products_and_attention_as_measured_kernel_by_kernel() -> None:
    quiet = CostModel(LLAMA, H100, Coefficients(step_overhead_s=0.0, layer_overhead_s=0.0))
    attention = {}
    for batch, products in ((64, 5.84e-3), (256, 7.34e-3)):
        assert quiet.step_ns(decode(batch, 0)) / 1e9 == pytest.approx(products, rel=0.01)
        attention[batch] = (quiet.step_ns(decode(batch, 1024)) - quiet.step_ns(decode(batch, 0))) / 32 / 1e9
    assert attention[256] - attention[64] == pytest.approx(372e-6 - 102e-6, rel=0.01)


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


def test_small_blocks_slow_a_paged_kernel_only_if_that_is_set() -> None:
    old = Coefficients(paged_block_overhead=3.68)
    load = decode(64, 1024)
    attention = model("opt-13b").step_ns(load) - model("opt-13b").step_ns(decode(64, 0))
    for block_size, slower in ((1, 3.68), (16, 0.23), (128, 0.02875)):
        fast, slow = (model("opt-13b", coefficients=c, block_size=block_size).step_ns(load) for c in (None, old))
        assert slow - fast == pytest.approx(slower * attention, abs=10)
        assert fast == model("opt-13b").step_ns(load)


def test_the_bound_s_single_slots_are_read_like_blocks() -> None:
    setup = prepare(load_preset("sosp23_sharegpt"))
    costs = {case.label: setup.cost(case.allocator()) for case in setup.cases}
    load = decode(30, 458)
    assert costs["ideal"].step_ns(load) == costs["vLLM"].step_ns(load) > costs["Orca (Oracle)"].step_ns(load)


@pytest.mark.parametrize(
    "change", ["device.bandwidth_tbps=1e-300", "costs.step_overhead_s=1e300", "costs.step_overhead_s=4000"]
)
def test_a_token_that_takes_an_hour_is_a_unit_gone_wrong(change: str) -> None:
    setup = prepare(load_preset("quickstart", ["device={name: h100-80gb}", change]))
    with pytest.raises(UserError, match=r"one token of llama-3.1-8b would take .* s on h100-80gb: look at the units"):
        setup.cost(setup.cases[0].allocator())


def test_sessions_end_where_the_context_of_the_model_does() -> None:
    session = "requests.session={kind: turns, turns: 40, think_s: 1}"
    setup = prepare(load_preset("quickstart", ["model=gpt2", "engine={}", "requests.count=400", session]))
    made = setup.requests()
    later = made.after >= 0
    assert (made.prompt_tokens + made.output_tokens)[later].max() <= 1024
    assert "sessions end early: the next turn would make them longer than 1,024 tokens" in made.notes[0]


def test_the_paged_kernel_s_penalty_is_assumed_only_if_set() -> None:
    slow = Coefficients(paged_attention_overhead=0.2)
    plain, paged, contiguous = (
        CostModel(LLAMA, H100, coefficients, paged=through_table)
        for coefficients, through_table in ((None, True), (slow, True), (slow, False))
    )
    load = decode(64, 1024)
    assert contiguous.step_ns(load) == plain.step_ns(load)
    attention = plain.step_ns(load) - plain.step_ns(decode(64, 0))
    assert paged.step_ns(load) - plain.step_ns(load) == pytest.approx(0.2 * attention, abs=2)
    assert paged.step_ns(prompt(100)) == plain.step_ns(prompt(100))


def test_what_decodes_share_is_read_from_memory_once_if_the_cache_serves_the_rest() -> None:
    def attention(repeated: int, cached: float, **more: Any) -> int:
        costs = model("llama-3.1-8b", coefficients=replace(ROOFLINE, repeated_reads_cached=cached), **more)
        load = decode(32, 1000)._replace(decode_repeated=repeated)
        return costs.step_ns(load) - costs.step_ns(load._replace(decode_context=0, decode_repeated=0))

    token = LLAMA.kv_bytes_per_token / 3.35e12 * 1e9
    assert attention(31 * 400, 0.0) == attention(0, 1.0) == pytest.approx(32_000 * token, abs=2)
    assert attention(31 * 400, 1.0) == pytest.approx((32_000 - 31 * 400) * token, abs=2)
    assert attention(31 * 400, 0.75) == pytest.approx((32_000 - 31 * 300) * token, abs=2)
    assert attention(31 * 1000, 1.0) > 1000 * token, "pairs of queries and keys are computed for every sequence"
    slowed = ROOFLINE.changed({"paged_attention_overhead": 0.25}, "")
    paged, load = model("llama-3.1-8b", coefficients=replace(slowed, repeated_reads_cached=1.0)), decode(32, 1000)
    repeated = load._replace(decode_repeated=31 * 400)
    assert paged.step_ns(load) - paged.step_ns(repeated) == pytest.approx(1.25 * 31 * 400 * token, abs=2)
    # scores are of one sequence alone, whoever has the same keys
    scores = attention(0, 1.0, attention="naive") - attention(0, 1.0)
    assert attention(31 * 400, 1.0, attention="naive") == pytest.approx((32_000 - 31 * 400) * token + scores, abs=3)


def test_whether_sharing_matters_is_known() -> None:
    halved = Coefficients(repeated_reads_cached=0.5)
    assert not model("llama-3.1-8b").spares
    assert model("llama-3.1-8b", coefficients=halved).spares
    assert model("gemma-3-12b", coefficients=halved).spares
    assert not model("tiny-mistral", coefficients=halved).spares, "windows are read each for itself"


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


def test_moves_of_memory() -> None:
    cost = model("opt-13b", "a100-40gb", coefficients=replace(ROOFLINE, transfer_overhead_s=3e-6))
    assert cost.step_ns(Load(copied_tokens=1000)) == pytest.approx(2 * 1000 * 819_200 / 1.555e12 * 1e9, abs=1)
    assert cost.step_ns(Load(swapped_bytes=10**9)) == pytest.approx(1e9 / 32e9 * 1e9, abs=1)
    assert cost.step_ns(Load(transfers=7)) == 7 * 2 * 40 * 3000
    once = model("opt-13b", "a100-40gb", coefficients=replace(cost.coefficients, swap_overhead_s=1e-3))
    assert [once.step_ns(load) - cost.step_ns(load) for load in (Load(transfers=7), Load(copied_tokens=9))] == [
        10**6,
        0,
    ]
    steps = once.leap_ns(Load(), transfers=np.array([0, 7, 1]))
    assert steps.tolist() == [once.step_ns(Load(transfers=count)) for count in (0, 7, 1)]
    assert cost.step_ns(Load(mapped_pages=2, unmapped_pages=1)) == 2 * 40_000 + 34_000


@pytest.mark.parametrize(
    ("page_kib", "microseconds", "published"), [(64, 8, 7.59), (128, 8.5, 14.56), (256, 9, 27.04), (2048, 40, None)]
)
def test_pages_of_every_size_cost_what_the_vattention_paper_says(
    page_kib: int, microseconds: float, published: float | None
) -> None:
    """Calls one after the other give the GB/s that the paper reaches allocating, less what its loop adds."""
    cost = model("opt-13b", "a100-40gb", page_bytes=page_kib << 10)
    calls = Load(mapped_pages=1000)
    assert cost.moves.mapping_ns(calls) == (0, 1_000_000 * microseconds)
    assert cost.step_ns(calls) - cost.step_ns(Load()) == 1_000_000 * microseconds
    if published:
        assert published < 1000 * (page_kib << 10) / cost.moves.mapping_ns(calls)[1] < 1.09 * published


def test_pages_that_were_foreseen_hide_behind_the_step_before() -> None:
    cost = model("opt-13b", "a100-40gb")
    calls = Load(mapped_pages=5, mapped_ahead=3, unmapped_pages=2, unmapped_ahead=1)
    assert cost.moves.mapping_ns(calls) == (0, 5 * 40_000 + 2 * 34_000)
    assert cost.moves.mapping_ns(calls._replace(before_ns=100_000)) == (100_000, 5 * 40_000 + 2 * 34_000 - 100_000)
    assert cost.moves.mapping_ns(calls._replace(before_ns=10**9)) == (3 * 40_000 + 34_000, 2 * 40_000 + 34_000)


def test_recurrent_layers_move_their_state_once_a_sequence() -> None:
    cost = model({"name": "jamba-v0.1", "tensor_parallel": 4}, coefficients=ROOFLINE)
    state = 2 * 28 * 8192 * 19 * 2 / 4 / 3.35e12
    grown = cost.step_ns(Load(decode_seqs=1, prefill_seqs=100)) - cost.step_ns(Load(decode_seqs=1))
    assert grown == pytest.approx(100 * state * 1e9, abs=2)


def test_a_prefill_waits_for_the_host_as_far_as_the_step_before_was_shorter() -> None:
    ready, slow = (model("llama-3.2-1b", coefficients=REPLAYED.changed({"prefill_host_s": s}, "")) for s in (0, 2e-3))
    small = Load(100, 5050, 100, 1, decode_seqs=8, decode_context=800, samples=9)
    for before in (0, 1_500_000, 2_000_000, 9_000_000):
        load = small._replace(before_ns=before)
        assert slow.step_ns(load) - ready.step_ns(load) == pytest.approx(max(0, 2_000_000 - before), abs=1)
    alone = Load(decode_seqs=8, decode_context=800, samples=8)
    large = small._replace(prefill_tokens=600)  # is launched kernel by kernel
    assert [slow.step_ns(load) for load in (alone, large)] == [ready.step_ns(load) for load in (alone, large)]


def test_quantized_products_use_their_own_units() -> None:
    fp8, bf16 = model("deepseek-v3"), model({"name": "deepseek-v3", "dtype": "bf16"})
    load = prompt(64, count=512)
    assert bf16.step_ns(load) == pytest.approx(2 * fp8.step_ns(load), rel=0.1)


def test_every_coefficient_is_named_explained_and_changes_a_step() -> None:
    rows = dict(MODELS[0].explain())
    for entry in fields(Coefficients):
        assert entry.metadata["is"]
        assert entry.metadata["from"]
        assert entry.name in rows
    load = decode(64, 1024)._replace(**prompt(300, 900, 2)._asdict() | {"decode_seqs": 64, "decode_context": 65_536})
    load = load._replace(copied_tokens=9, swapped_bytes=10**6, transfers=2, mapped_pages=3, unmapped_pages=4)
    load = load._replace(behind_ns=10**8, decode_repeated=30_000, heat_ns=10**8)
    pages = {"page_bytes": 128 << 10}
    spec = {"name": "llama-3.1-8b", "tensor_parallel": 2}
    for entry in fields(Coefficients):
        eases = entry.name in {"run_ahead", "captured_tokens"}  # a floor under the step
        replayed = 1e4 if entry.name == "prefill_host_s" else 0.0
        base = Coefficients(
            launch_layer_s=0.1 if eases else 0.0,
            captured_tokens=replayed,
            power_throttle=0.1 if entry.name in {"power_reserve_s", "power_constant_s"} else 0.0,
        )
        changed = base.changed(
            {entry.name: 1e4 if entry.name == "captured_tokens" else entry.default / 2 + 0.1}, "here"
        )
        way = pages if entry.name.startswith("small_page") else {}
        alone = entry.name in {"separate_launch_layer_s", "sequence_launch_layer_s"}
        route = "recompute" if entry.name.startswith("recompute") else "tensors" if alone else "blocks"
        way |= {"attention": "naive", "route": route}
        some = load._replace(prefill_tokens=30) if entry.name == "power_slowdown" else load
        before, after = (model(spec, coefficients=c, **way).step_ns(some) for c in (base, changed))
        assert before != after, entry.name


def test_long_prefills_in_a_row_take_longer_from_where_the_power_limit_is_reached() -> None:
    free = model("llama-3.1-8b")
    limit = Coefficients(power_throttle=0.2, power_reserve_s=0.03, power_constant_s=0.01)
    held = model("llama-3.1-8b", coefficients=limit)
    load = prompt(800)
    took = free.step_ns(load)
    assert 15e6 < took < 25e6
    assert held.step_ns(load) == took
    assert held.step_ns(load._replace(heat_ns=10**9)) == pytest.approx(1.2 * took, abs=2)
    beyond = took / 1e9 - 0.01  # of the reserve
    lost = beyond - 0.01 * (1 - math.exp(-beyond / 0.01))
    assert held.step_ns(load._replace(heat_ns=20_000_000)) == pytest.approx(took + 0.2e9 * lost, abs=2)
    for cool in (decode(64, 1000), prompt(60)):
        assert held.step_ns(cool._replace(heat_ns=10**9)) == free.step_ns(cool), "bound by memory"
    small = prompt(200)
    beside = small._replace(decode_seqs=256, decode_context=256, samples=257)
    assert held.step_ns(small._replace(heat_ns=10**9)) == free.step_ns(small)
    assert held.step_ns(beside._replace(heat_ns=10**9)) == pytest.approx(1.2 * free.step_ns(beside), abs=2)


def test_steps_that_draw_less_take_longer_behind_prefills_from_the_beginning() -> None:
    free = model("llama-3.1-8b")
    limit = Coefficients(power_throttle=0.2, power_reserve_s=0.03, power_constant_s=0.01, power_slowdown=0.05)
    held = model("llama-3.1-8b", coefficients=limit)
    assert held.throttles
    for cool in (decode(64, 1000), prompt(60)):
        took = free.step_ns(cool)
        assert held.step_ns(cool) == took
        for heat in (2_000_000, 20_000_000, 10**9):
            share = 1 - math.exp(-heat / 10_000_000)
            step = held.step_ns(cool._replace(heat_ns=heat))
            assert step == pytest.approx(took * (1 + 0.05 * share), abs=2)
            assert held.leap_ns(cool, heat_ns=np.array([0, heat])).tolist() == [took, step]
    hot = prompt(800)._replace(heat_ns=10**9)
    assert held.step_ns(hot) == pytest.approx(1.2 * free.step_ns(hot), abs=2)


def test_a_machine_may_compute_slower_than_it_reads() -> None:
    usual = model("llama-3.1-8b")
    other = model("llama-3.1-8b", coefficients=Coefficients(step_factor=0.98, compute_factor=1.03))
    for load, ratio in ((decode(64, 1000), 0.98), (prompt(60), 0.98), (prompt(800), 0.98 * 1.03)):
        assert other.step_ns(load) == pytest.approx(ratio * usual.step_ns(load), abs=2)
    several = np.array([60, 800])
    steps = other.leap_ns(prompt(800), prefill_tokens=several)
    assert steps.tolist() == [other.step_ns(prompt(800)._replace(prefill_tokens=n)) for n in several.tolist()]


def test_a_floor_of_launches_is_not_longer_for_a_lower_clock() -> None:
    waits = Coefficients(launch_layer_s=0.1, power_throttle=0.2)
    assert model("llama-3.1-8b", coefficients=waits).step_ns(prompt(800)) == pytest.approx(3.2e9, rel=1e-3)


def test_changes_are_shown_as_such() -> None:
    rows = dict(Coefficients(step_overhead_s=0.01).explain())
    assert rows["step_overhead_s"].endswith("(set; default 0.00061)")
    assert "assumed" in rows["link_efficiency"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"step_overhead": 1}, "here: unknown coefficient 'step_overhead' (did you mean step_overhead_s?)"),
        ({"step_overhead_s": -1}, "here: step_overhead_s: -1 is not a number of at least 0"),
        ({"repeated_reads_cached": 2}, "here: repeated_reads_cached: 2 is more than 1, which is all"),
        ({"run_ahead": 1.5}, "here: run_ahead: 1.5 is more than 1, which is all"),
        ({"step_overhead_s": "1"}, "here: step_overhead_s: '1' is not a number of at least 0"),
        ({"step_overhead_s": float("nan")}, "here: step_overhead_s: nan is not"),
        ({"step_factor": 0}, "here: step_factor: is more than 0; steps that take no time are of no engine"),
        ({"compute_factor": 0}, "here: compute_factor: is more than 0; steps that take no time are of no engine"),
        ({"pcie_efficiency": 0}, "here: pcie_efficiency: an efficiency is more than 0"),
    ],
)
def test_a_bad_coefficient_gets_one_line(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        Coefficients().changed(values, "here")
    assert words in str(error.value)
