"""Step times against what was measured and published; and blocks, moves of memory, the host and the power limit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim.costs.coefficients import Coefficients
from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.errors import UserError
from sim.models.geometry import resolve_model
from sim.setup import prepare
from tests.costs import H100, LLAMA, REPLAYED, ROOFLINE, decode, model, prompt
from workloads.loader import load as load_preset


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
    cost = model("llama-3.1-8b")
    assert sum(map(cost.step_ns, chunks)) > cost.step_ns(whole)


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


def test_a_prefill_waits_for_the_host_as_far_as_the_step_before_was_shorter() -> None:
    ready, slow = (model("llama-3.2-1b", coefficients=REPLAYED.changed({"prefill_host_s": s}, "")) for s in (0, 2e-3))
    small = Load(100, 5050, 100, 1, decode_seqs=8, decode_context=800, samples=9)
    for before in (0, 1_500_000, 2_000_000, 9_000_000):
        load = small._replace(behind_ns=before)
        assert slow.step_ns(load) - ready.step_ns(load) == pytest.approx(max(0, 2_000_000 - before), abs=1)
    alone = Load(decode_seqs=8, decode_context=800, samples=8)
    assert slow.step_ns(alone) == ready.step_ns(alone)


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
    beside = load._replace(decode_seqs=256, decode_context=256, samples=257)
    assert held.step_ns(small._replace(heat_ns=10**9)) == free.step_ns(small)
    assert held.step_ns(beside._replace(heat_ns=10**9)) == pytest.approx(1.2 * free.step_ns(beside), abs=2)
    mostly = small._replace(decode_seqs=256, decode_context=256, samples=257)
    assert held.step_ns(mostly._replace(heat_ns=10**9)) == free.step_ns(mostly), "its prompts are bound by memory"


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


def test_no_step_hides_launches_where_attention_goes_sequence_by_sequence() -> None:
    waits = Coefficients(launch_layer_s=1e-2, separate_launch_layer_s=1e-2, recompute_launch_layer_s=1e-2)
    load = Load(100, 5050, 100, 1, decode_seqs=8, decode_context=800, samples=9)
    behind = load._replace(behind_ns=5_000_000)
    for route, hidden in (("blocks", 5_000_000), ("tensors", 0), ("recompute", 0)):
        cost = model("llama-3.2-1b", coefficients=waits, route=route)
        assert cost.step_ns(load) - cost.step_ns(behind) == pytest.approx(hidden, abs=1)
        assert cost.leap_ns(behind).tolist() == cost.step_ns(behind)
