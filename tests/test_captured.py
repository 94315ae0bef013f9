"""Captured steps, looked up: shapes, lines between contexts, one chunk and many, and what costs come of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from allocators.paged import PagedAllocator
from sim.costs.calibration import Calibration, Point, load_calibration, load_captured
from sim.costs.calibration_text import save_calibration
from sim.costs.captured import CapturedStep
from sim.costs.coefficients import REPLAYED, Coefficients
from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.costs.shapes import MIXED_TOKENS, captured_tokens, shapes_for
from sim.engine.executor import Simulated
from sim.errors import UserError
from sim.limits import Limits
from sim.models.geometry import resolve_model
from sim.runner import run_case
from sim.setup import prepare
from tests.captures import BEHIND, H100, LLAMA, MERGE, MS, PAIR, RULE, captured, made, measured, spread
from tests.engine.harness import Setup, ask
from workloads.generate import requests as make_requests
from workloads.schema import Workload


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


LOADS = [
    Load(decode_seqs=3, decode_context=900, samples=3),
    Load(decode_seqs=70, decode_context=900, samples=70),
    Load(200, 20_100, 200, 1, 5, 800, 6, prefill_merged=200),
    Load(200, 20_100 + 200 * 50, 250, 1, 5, 800, 6, before_ns=10_000),
    Load(3000, 4_501_500, 3000, 1, 5, 800, 6, behind_ns=5_000_000),
    Load(decode_seqs=8, decode_context=100, samples=8, copied_tokens=16, swapped_bytes=1 << 20, transfers=4),
    Load(copied_tokens=16),
    Load(decode_seqs=8, decode_context=900, samples=8, decode_repeated=300),
    Load(decode_seqs=70, decode_context=9000, samples=70, decode_repeated=3000),
    Load(200, 20_100, 200, 1, 5, 800, 6, decode_repeated=300),
]
COEFFICIENTS = Coefficients(prefill_host_s=1e-3, launch_layer_s=0.4e-3, captured_tokens=1024, repeated_reads_cached=0.7)


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
    assert model.unhidden_ns(decodes) == model.unhidden_ns(launched) == 1_000_000
    assert model.unhidden_ns(replayed) == 0  # it waits for all of it anyhow, as no time has passed
    for before in (300_000, 5_000_000):
        behind = replayed._replace(before_ns=before)
        assert model.step_ns(behind) + model.unhidden_ns(behind) == model.step_ns(replayed)
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


def calibrated(path: Path, **changes: Any) -> Path:
    """Write a calibration of the 8B whose captured steps take 5 ms and more."""
    facts: dict[str, Any] = {"parameters": LLAMA.parameters, "captured": tuple(measured(256))} | changes
    point = Point("decode 1 x 8", Load(decode_seqs=1, decode_context=8, samples=1), 5 * MS)
    found = Calibration(
        model="llama-3.1-8b",
        dtype="bf16",
        device="h100-80gb",
        peaks={},
        measured_on="a device",
        backend="flashinfer",
        versions={},
        date="2026-01-02",
        coefficients=COEFFICIENTS,
        fitted=(),
        points=(point,),
        fitted_s=(5 * MS,),
        **facts,
    )
    save_calibration(found, path)
    return path


def workload(path: Path, **changes: Any) -> Workload:
    return Workload.model_validate(
        {
            "name": "w",
            "model": "llama-3.1-8b",
            "device": {"name": "h100-80gb", "kv_memory_gib": 2},
            "engine": {"max_num_seqs": 64, "max_model_len": 2048},
            "requests": {
                "count": 40,
                "arrivals": {"kind": "poisson", "rate": 50},
                "lengths": {"kind": "uniform", "prompt": {"min": 20, "max": 400}, "output": {"min": 5, "max": 60}},
            },
            "allocators": [{"kind": "paged"}],
            "costs": {"calibration": str(path)},
        }
        | changes
    )


def test_a_file_keeps_captured_steps(tmp_path: Path) -> None:
    path = calibrated(tmp_path / "one.toml")
    again = load_calibration(path)
    assert [step[:4] for step in again.captured] == [step[:4] for step in sorted(measured(256))]
    seconds = [[step.seconds for step in steps] for steps in (again.captured, sorted(measured(256)))]
    assert seconds[0] == pytest.approx(seconds[1], rel=1e-5)
    assert again.parameters == LLAMA.parameters
    path.write_text(path.read_text().replace("  [1, 0, 0, 1,", "  [1, 0, 0,"))
    for read in (load_calibration, lambda file: load_captured(file, LLAMA, H100)):
        with pytest.raises(UserError, match=r"one\.toml: captured: \[1, 0, 0, 0\.005.*\] is not decodes, tokens"):
            read(path)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("steps = [[1, 0, 0, 1, nan]]", "is not decodes, tokens, chunks, context, seconds"),
        ("steps = [[1, 0, 0, 1, inf]]", "is not"),
        ("steps = [[1, 0, 0, 1, 0.0]]", "is not"),
        ("steps = [[1, 0, 0, 1, true]]", "is not"),
        ("steps = [[1, 0, 0, 1, '0.1']]", "is not"),
        ("steps = [[-1, 0, 0, 1, 0.1]]", "is not"),
        ("steps = [[1.5, 0, 0, 1, 0.1]]", "is not"),
        ("steps = [[true, 0, 0, 1, 0.1]]", "is not"),
        ("steps = ['10015']", "is not"),
        ("steps = [[1, 32, 0, 1, 0.1]]", "is no step"),
        ("steps = [[1, 0, 1, 1, 0.1]]", "is no step"),
        ("steps = [[0, 0, 0, 1, 0.1]]", "is no step"),
        ("steps = [1]", "int"),
        ("steps = 1", "int"),
        ("", "steps is missing"),
        ("steps = []\nparameters = '8'", 'parameters: "8" is not a whole number'),
        ("steps = []\nparameters = true", "parameters: true is not a whole number"),
    ],
)
def test_captured_steps_that_are_none_are_told_in_one_line(tmp_path: Path, wrong: str, why: str) -> None:
    path = calibrated(tmp_path / "one.toml")
    sound = path.read_text().partition("[captured]")[0]
    parameters = "" if "parameters" in wrong else f"parameters = {LLAMA.parameters}\n"
    path.write_text(f"{sound}[captured]\n{parameters}{wrong}\n")
    for read in (load_calibration, lambda file: load_captured(file, LLAMA, H100)):
        with pytest.raises(UserError, match=f"one.toml: captured: .*{why}") as told:
            read(path)
        assert "\n" not in str(told.value)


def test_a_table_of_captured_steps_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    path = calibrated(tmp_path / "one.toml")
    path.write_text("captured = 3\n" + path.read_text().partition("[captured]")[0])
    for read in (load_calibration, lambda file: load_captured(file, LLAMA, H100)):
        with pytest.raises(UserError, match=r"one\.toml: captured: "):
            read(path)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, True),
        ({"device": {"name": "h100-80gb", "kv_memory_gib": 4}}, True),
        ({"device": {"name": "h100-80gb", "bandwidth_tbps": 4}}, False),
        ({"device": "h200"}, False),
        ({"model": "mistral-7b"}, False),
        ({"model": {"name": "llama-3.1-8b", "kv_heads": 32}}, False),
        ({"model": {"name": "llama-3.1-8b", "kv_dtype": "fp8"}}, False),
        ({"model": {"name": "llama-3.1-8b", "tensor_parallel": 2}}, False),
        ({"engine": {"attention": "naive", "max_model_len": 2048}}, False),
    ],
)
def test_captured_steps_are_of_one_model_on_one_device(tmp_path: Path, changes: dict[str, Any], found: bool) -> None:
    assert bool(prepare(workload(calibrated(tmp_path / "one.toml"), **changes)).captured) == found


def test_whatever_a_captured_step_depends_on_is_known_to_count() -> None:
    """Of a decode and a chunk at the start of its prompt, where the host is fast and there is one GPU."""
    loads = [LOADS[0], Load(200, 20_100, 200, 1, 5, 800, 6)]
    told = [CostModel(LLAMA, H100).step_ns(load) for load in loads]
    for name in Coefficients.__dataclass_fields__:
        value = 2 * getattr(Coefficients(), name) or 0.5
        changed = CostModel(LLAMA, H100, Coefficients().changed({name: min(value, 1.0)}, "costs"))
        if [changed.step_ns(load) for load in loads] != told and name not in {"prefill_host_s", "launch_layer_s"}:
            assert name in REPLAYED, name


def test_who_changes_what_they_stand_in_for_does_without_them(tmp_path: Path) -> None:
    path = str(calibrated(tmp_path / "one.toml"))
    changed = {
        name: not prepare(workload(Path(path), costs={"calibration": path, name: 0.5})).captured
        for name in Coefficients.__dataclass_fields__
    }
    assert {name for name, without in changed.items() if without} == REPLAYED
    assert prepare(workload(Path(path))).cost(PagedAllocator(64, 16, 64)).step_ns(LOADS[0]) == 5_936_000
    assert prepare(workload(calibrated(tmp_path / "two.toml", captured=()))).captured == ()


def test_a_run_with_captured_steps_is_the_same_leapt_over_and_step_by_step(tmp_path: Path) -> None:
    setup = prepare(workload(calibrated(tmp_path / "one.toml")))
    requests = make_requests(setup.workload, 0)
    tables = []
    for leaps in (True, False):
        folder = tmp_path / str(leaps)
        run_case(setup, setup.cases[0], requests, folder, leaps=leaps)
        tables.append({path.name: pq.read_table(path) for path in sorted(folder.glob("*.parquet"))})
    assert {*tables[0]} >= {"steps.parquet", "requests.parquet"}
    assert all(tables[0][name].equals(tables[1][name]) for name in tables[0])
    decodes = tables[0]["steps.parquet"].to_pandas()
    alone = decodes[(decodes.decode_tokens == 8) & (decodes.prefill_tokens == 0)]
    assert len(alone) > 5
    seconds = 5.08 * MS + (alone.live - 8).clip(lower=0) * 1e-6
    assert alone.duration_s.to_numpy() == pytest.approx(seconds.to_numpy(), abs=1e-9)
