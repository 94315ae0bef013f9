"""Captured steps, looked up: shapes, lines between contexts, one chunk and many, and what costs come of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.costs.captured import CapturedStep
from sim.costs.coefficients import Coefficients
from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.costs.shapes import MIXED_TOKENS, captured_tokens, shapes_for
from sim.engine.executor import Simulated
from sim.limits import Limits
from sim.models.geometry import resolve_model
from tests.captures import (
    BEHIND,
    COEFFICIENTS,
    H100,
    LLAMA,
    LOADS,
    MERGE,
    MS,
    PAIR,
    RULE,
    captured,
    made,
    measured,
    spread,
)
from tests.engine.harness import Setup, ask


def test_decodes_are_padded_and_times_between_contexts_lie_on_a_line() -> None:
    curve = made().decoding(10)
    assert curve is not None
    assert curve is made().decoding(16) or curve == made().decoding(16)
    assert curve.at(16) == curve.at(3) == pytest.approx(5.16 * MS)  # empty lanes read a token each
    assert curve.at(5000) == pytest.approx(5.16 * MS + 4984e-6)
    assert curve.at(50_000) == pytest.approx(5.16 * MS + 49_984e-6)  # beyond the last point on the last line
    assert made().decoding(65) is made().decoding(0) is None


def test_decodes_take_longer_the_longer_the_longest_is() -> None:
    curve = spread().decoding(40)
    assert curve is not None
    assert curve.at(40) == curve.at(40, 1) == pytest.approx(5.4 * MS)
    assert curve.at(40 * 101) == curve.at(40 * 101, 404) == pytest.approx(5.4 * MS + 4000e-6, rel=1e-3)
    assert curve.at(40 * 101, 101) == pytest.approx(5.4 * MS + 1200e-6, rel=1e-3)
    assert curve.at(40 * 101, 50) == curve.at(40 * 101, 101)  # which cannot be
    assert curve.at(40 * 101, 252) == pytest.approx(5.4 * MS + 2600e-6, rel=1e-2)
    assert curve.at(40 * 101, 700) > curve.at(40 * 101)


def test_where_lengths_were_not_measured_the_longest_makes_no_difference() -> None:
    assert not made().spreads
    assert spread().spreads
    curve = made().decoding(40)
    assert curve is not None
    assert curve.at(5000, 2000) == curve.at(5000)


@pytest.mark.parametrize("decodes", [2, 3, 24, 64])
def test_many_contexts_with_their_longest_give_the_same_to_the_last_bit(decodes: int) -> None:
    curve = spread().decoding(decodes)
    assert curve is not None
    rng = np.random.default_rng(0)
    contexts = np.sort(rng.integers(decodes, 200_000, 500)).astype(np.float64)
    longest = np.maximum(1, (contexts / decodes * rng.uniform(1, 8, 500))).astype(np.int64)
    for some in (slice(None), slice(9), slice(200, 210), slice(499, 500)):
        for slower in (1.0, 1.3):
            each = curve.at_each(contexts[some], longest[some], slower).tolist()
            pairs = zip(contexts[some].tolist(), longest[some].tolist(), strict=True)
            assert each == [curve.at(context, most, slower) for context, most in pairs]


@pytest.mark.parametrize("decodes", [1, 3, 24, 64])
def test_many_contexts_at_once_give_the_same_to_the_last_bit(decodes: int) -> None:
    curve = made().decoding(decodes)
    assert curve is not None
    contexts = np.sort(np.random.default_rng(0).integers(1, 200_000, 500)).astype(np.float64)
    fewer = np.array([1.0, 2.0])  # than any lanes of the shape, all taken, attend to
    for some in (contexts, contexts[:9], contexts[200:210], contexts[-3:], contexts[:1], fewer):
        assert curve.at_each(some).tolist() == [curve.at(int(context)) for context in some]


def test_a_dip_of_a_measurement_is_evened_out() -> None:
    points = [CapturedStep(4, 0, 0, 4, 5 * MS), CapturedStep(4, 0, 0, 400, 4 * MS), CapturedStep(4, 0, 0, 4000, 6 * MS)]
    curve = captured(4, 32, points).decoding(4)
    assert curve is not None
    assert [curve.at(context) / MS for context in (4, 400, 2200, 4000)] == pytest.approx([5, 5, 5.5, 6])


@pytest.mark.parametrize(
    "chunks", [(448,), (100, 60), (300, 30, 30), (40, 40, 40, 40), (512,), (170, 171, 171), (900,)]
)
def test_fewer_chunks_take_as_much_longer_as_they_have_pairs_and_are_merged(chunks: tuple[int, ...]) -> None:
    steps, tokens = made(), sum(chunks)
    shape = min(size for size in MIXED_TOKENS if size >= tokens)
    pairs = sum(each * (each + 1) // 2 for each in chunks)
    merged = RULE.merged((each, 0) for each in chunks)
    longer = PAIR * (pairs - shape * (shape / 8 + 1) / 2) + MERGE * merged
    assert steps.mixed(0, 0, tokens, len(chunks), pairs=pairs, merged=merged) == pytest.approx(
        (5 + shape / 1000) * MS + longer
    )
    beside = steps.mixed(
        10, 1016, tokens, len(chunks), pairs=pairs, merged=merged
    )  # decodes beside them add nothing to that
    assert beside == pytest.approx((5.16 + shape / 1000 + 1) * MS + longer)


def test_pairs_are_those_that_so_many_chunks_may_have() -> None:
    steps = made()
    most, least = (
        steps.mixed(0, 0, 448, 2, pairs=448 * 449 / 2, merged=0),
        steps.mixed(0, 0, 448, 2, pairs=448 * 225 / 2, merged=0),
    )
    assert steps.mixed(0, 0, 448, 2, pairs=1e9, merged=0) == most
    assert steps.mixed(0, 0, 448, 2, pairs=-1e9, merged=0) == least


def test_steps_that_no_shape_has_room_for_are_not_known() -> None:
    assert made().mixed(10, 16, 2000, 1, pairs=2_001_000, merged=0) is None
    assert made().mixed(10, 16, 400, 9, pairs=9000, merged=0) is None


def test_without_steps_that_attend_to_earlier_tokens_single_chunks_tell_what_merging_takes() -> None:
    steps = captured(64, 1024, [step for step in measured() if step.plain or step.chunks == 1])
    assert steps.behind_s == pytest.approx(0, abs=2 * BEHIND)
    split = steps.mixed(0, 0, 448, 1, pairs=448 * 449 / 2, merged=448)
    assert split == pytest.approx(made().mixed(0, 0, 448, 1, pairs=448 * 449 / 2, merged=448), rel=0.03)


def test_a_larger_shape_that_is_faster_stands_in() -> None:
    slow = [
        step._replace(seconds=9 * MS) if step.decodes == 24 or (step.decodes, step.tokens) == (16, 64) else step
        for step in measured()
    ]
    steps = captured(64, 1024, slow)
    curve = steps.decoding(20)
    assert curve is not None
    assert curve.at(1) == pytest.approx(5.32 * MS)
    assert steps.mixed(10, 16, 50, 8, pairs=50 * 57 / 16, merged=0) == pytest.approx((5.16 + 0.096) * MS, rel=1e-3)


@pytest.mark.parametrize(
    ("budget", "length", "captured", "longest"),
    [(512, 100, 2048, 512), (64, 600, 2048, 512), (64, 6000, 1024, 1024), (4096, 40, 2048, 320), (64, 6000, 700, 640)],
)
def test_chunks_are_padded_as_far_as_a_budget_or_whole_prompts_reach_and_steps_are_captured(
    budget: int, length: int, captured: int, longest: int
) -> None:
    shapes = shapes_for(Limits(max_num_seqs=8, max_num_batched_tokens=budget, max_model_len=length), captured)
    assert max(shape.tokens for shape in shapes.all) == longest
    assert max(shape.decodes for shape in shapes.all) == 8


@pytest.mark.parametrize(
    ("model", "tokens"),
    [("llama-3.2-1b", 2048), ("llama-3.1-8b", 1024), ("opt-13b", 768), ("tiny-llama", MIXED_TOKENS[-1])],
)
def test_steps_are_captured_as_long_as_launching_a_layer_takes_longer_than_computing_it(
    model: str, tokens: int
) -> None:
    assert captured_tokens(resolve_model(model)) == tokens


def test_a_shape_that_was_not_measured_takes_as_long_as_the_next_larger_one() -> None:
    steps = captured(48, 256, measured(64))  # beside chunks this engine pads to 48
    assert steps.mixed(40, 48, 200, 8, pairs=2600, merged=0) == pytest.approx((5.64 + 0.224) * MS, rel=1e-3)
    few = [point for point in measured() if point.decodes != 24 or point.tokens]
    curve = captured(64, 32, few).decoding(20)
    assert curve is not None
    assert curve.at(1) == pytest.approx(5.32 * MS)


@pytest.mark.parametrize("block_size", [1, 16])
@pytest.mark.parametrize("load", LOADS)
def test_a_leap_says_what_single_steps_do(load: Load, block_size: int) -> None:
    coefficients = replace(COEFFICIENTS, paged_block_overhead=0.3)
    model = CostModel(LLAMA, H100, coefficients, captured=made(), block_size=block_size)
    together = {name: np.array([getattr(each, name) for each in (load, LOADS[0])]) for name in Load._fields}
    assert model.leap_ns(Load(), **together).tolist() == [model.step_ns(load), model.step_ns(LOADS[0])]


@pytest.mark.parametrize("block_size", [1, 16])
def test_decodes_leap_over_a_curve_as_they_step(block_size: int) -> None:
    coefficients = replace(COEFFICIENTS, paged_block_overhead=0.3)
    model = CostModel(LLAMA, H100, coefficients, captured=made(), block_size=block_size)
    for seqs in (3, 64, 65):
        contexts = np.arange(seqs * 10, seqs * 1500, seqs)
        for repeated in (0, seqs * 7 + 1):
            load = Load(decode_seqs=seqs, samples=seqs, decode_repeated=repeated)
            steps = [model.step_ns(load._replace(decode_context=each)) for each in contexts.tolist()]
            assert model.decode_ns(seqs, contexts.astype(np.float64), repeated).tolist() == steps
            assert model.decode_ns(seqs, contexts[200:220].astype(np.float64), repeated).tolist() == steps[200:220]


def test_small_blocks_take_longer_to_read_than_those_that_were_measured() -> None:
    coefficients = Coefficients(paged_block_overhead=0.32)
    usual, small = (CostModel(LLAMA, H100, coefficients, captured=made(), block_size=size) for size in (16, 1))
    decodes, mixed = Load(decode_seqs=8, decode_context=5008, samples=8), Load(100, 5050, 100, 1, 16, 5016, 17)
    for load in (decodes, mixed):
        assert small.step_ns(load) - usual.step_ns(load) == pytest.approx(5e6 * (1.32 / 1.02 - 1), abs=2)
    one = decodes._replace(decode_context=8)  # nothing but the new tokens
    assert small.step_ns(one) == usual.step_ns(one)


def test_what_is_read_again_is_off_the_context_as_far_as_the_cache_serves_it() -> None:
    steps = made()
    model = CostModel(LLAMA, H100, Coefficients(repeated_reads_cached=0.75), captured=steps)
    decodes = Load(decode_seqs=10, decode_context=5000, samples=10, decode_repeated=2000)
    curve = steps.decoding(10)
    assert curve is not None
    assert model.step_ns(decodes) == round(curve.at(3500) * 1e9)
    mixed = Load(100, 5050, 100, 1, 10, 5000, 11, decode_repeated=2000)
    assert model.step_ns(mixed) == model.step_ns(mixed._replace(decode_context=3500, decode_repeated=0))
    assert CostModel(LLAMA, H100, captured=steps).step_ns(decodes) == round(curve.at(5000) * 1e9)


def test_the_cost_model_looks_captured_steps_up_and_computes_all_others() -> None:
    plain, looked = CostModel(LLAMA, H100, COEFFICIENTS), CostModel(LLAMA, H100, COEFFICIENTS, captured=made())
    assert looked.step_ns(LOADS[0]) == round((5.04 * MS + 896e-6) * 1e9)
    assert looked.step_ns(LOADS[2]) == round(
        (5.16 * MS + 0.224 * MS + PAIR * (20_100 - 224 * 29 / 2) + MERGE * 200 + 784e-6 + MS) * 1e9
    )  # and the host, a ms
    assert looked.step_ns(LOADS[1]) == plain.step_ns(LOADS[1])
    assert looked.step_ns(LOADS[4]) == plain.step_ns(LOADS[4])
    moved = LOADS[5]
    bare = moved._replace(copied_tokens=0, swapped_bytes=0, transfers=0)
    costs = [model.step_ns(moved) - model.step_ns(bare) for model in (plain, looked)]
    assert costs[0] == pytest.approx(costs[1], abs=1)


def test_a_step_waits_for_the_host_where_no_step_hides_its_work() -> None:
    model = CostModel(LLAMA, H100, COEFFICIENTS, captured=made())  # of a millisecond
    assert model.hosted
    decodes, replayed, launched = LOADS[0], LOADS[2], LOADS[4]
    assert not model.launches(decodes)
    assert not model.launches(replayed)
    assert model.launches(launched)
    assert model.unhidden_ns(decodes) == 1_000_000
    for load in (replayed, launched._replace(behind_ns=0)):
        assert model.unhidden_ns(load) == 0, "its time has it"
        for before in (300_000, 5_000_000):
            behind = load._replace(behind_ns=before)
            assert model.step_ns(load) - model.step_ns(behind) == min(before, 1_000_000)
    assert not CostModel(LLAMA, H100, captured=made()).hosted
    assert not CostModel(LLAMA, H100, COEFFICIENTS, route="tensors").hosted


def test_the_first_step_and_those_behind_an_idle_gap_or_a_launched_one_wait_for_the_host() -> None:
    """Prompts of 700 and 16 tokens come at once, and another of 700 later; captured shapes end at 640."""
    took = []
    for host in (0.0, 2.0):
        cost = CostModel(LLAMA, H100, replace(COEFFICIENTS, prefill_host_s=host), captured=made(tokens=640))
        limits = Limits(max_num_seqs=1, max_num_batched_tokens=800, max_model_len=800)
        setup = Setup("orca", limits, "paged", 2000, {}, clock=Simulated(cost))
        steps = setup.run(ask((0, 700, 3), (0, 16, 2), (10_000, 700, 1)))[1].tables["steps"]
        took.append(
            [seconds for seconds, at_work in zip(steps["duration_s"], steps["running"], strict=True) if at_work]
        )
    prefill, behind_it, decode, second, last, after_a_gap = np.subtract(*reversed(took)).tolist()
    assert [prefill, behind_it, decode, last, after_a_gap] == pytest.approx([2, 2, 0, 0, 2])
    assert second == pytest.approx(2 - took[0][2], abs=1e-6), "less what the decode before it hides"


def test_a_chunk_that_has_more_chunks_than_are_captured_is_launched_kernel_by_kernel() -> None:
    model = CostModel(LLAMA, H100, replace(COEFFICIENTS, launch_layer_s=1.0), captured=made())
    assert model.step_ns(Load(90, 450, 90, 9, samples=9)) >= LLAMA.layers * 1e9
    assert model.step_ns(Load(80, 400, 80, 8, samples=8)) < 1e9


def test_a_chunk_longer_than_the_longest_shape_of_an_engine_is_launched_kernel_by_kernel() -> None:
    model = CostModel(LLAMA, H100, replace(COEFFICIENTS, launch_layer_s=1.0), captured=made(tokens=1000))
    assert model.step_ns(Load(900, 405_450, 900, 1, samples=1)) >= LLAMA.layers * 1e9
    assert model.step_ns(Load(890, 396_495, 890, 1, samples=1)) < 1e9


def test_a_captured_shape_that_was_not_measured_is_computed_but_not_launched() -> None:
    slow = replace(COEFFICIENTS, launch_layer_s=1.0)
    wide = captured(512, 1024, measured())  # up to 64 decodes are known
    model = CostModel(LLAMA, H100, slow, captured=wide)
    assert model.step_ns(Load(100, 5050, 100, 1, 300, 3000, 301)) < 1e9
    assert model.step_ns(Load(3000, 4_501_500, 3000, 1, 300, 3000, 301)) > 1e9


def test_what_a_chunk_attends_to_before_its_own_tokens_is_added() -> None:
    model = CostModel(LLAMA, H100, Coefficients(), captured=made())
    alone = model.step_ns(Load(200, 20_100, 200, 1, samples=1))
    later = model.step_ns(Load(200, 20_100 + 200 * 3000, 3200, 1, samples=1))
    flops = 200 * 3000 * LLAMA.layers * 4 * LLAMA.heads * LLAMA.head_dim
    assert later - alone == pytest.approx((BEHIND + flops / (H100.peak("bf16") * 0.5)) * 1e9, rel=1e-3)
