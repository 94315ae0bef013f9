"""Fused products and padded steps say what the model says; all of it but the kernels runs on the CPU too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from sim.costs.shapes import CHUNKS, Shape, Shapes, padded_sizes
from sim.decode.elementwise import Angles, HeadNorms, rotate, rotate_and_store
from sim.decode.flashinfer_backend import workspace_bytes
from sim.decode.fused import fusible
from sim.decode.graphs import PaddedSteps
from sim.decode.lanes import Sequences, blank, make_lanes
from sim.decode.model import Decoder, load
from sim.decode.pace import Pace
from sim.decode.paging import Paging, pages_of
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


def test_sizes_grow_to_the_most_and_pad_little() -> None:
    for most in (1, 3, 8, 24, 100, 256, 1000):
        sizes = padded_sizes(most)
        assert sizes[-1] == most
        assert list(sizes) == sorted(set(sizes))
        for count in range(9, most + 1):
            assert next(size for size in sizes if size >= count) <= max(count + 8, 1.15 * count)


def test_the_smallest_shape_that_has_room_is_taken() -> None:
    shapes = Shapes(96, 300)
    assert [shapes.fit(decodes) for decodes in (1, 3, 96, 97)] == [Shape(1), Shape(4), Shape(96), None]
    assert shapes.fit(0, 20, 1) == Shape(0, 32, CHUNKS)
    assert shapes.fit(16, 33, CHUNKS) == Shape(16, 64, CHUNKS)
    assert shapes.fit(65, 225, 2) == Shape(96, 256, CHUNKS)
    assert shapes.fit(1, 257, 1) is shapes.fit(97, 1, 1) is shapes.fit(1, 100, CHUNKS + 1) is None
    assert {Shape(96), Shape(96, 256, CHUNKS), Shape(0, 32, CHUNKS)} <= set(shapes.all)
    assert [shape.width for shape in shapes.all] == sorted((shape.width for shape in shapes.all), reverse=True)


def test_a_larger_shape_is_taken_if_it_is_faster() -> None:
    shapes = Shapes(96, 300)
    periods = {shape: 1000 + shape.width for shape in shapes.all}
    periods[Shape(0, 160, CHUNKS)] = 2000
    periods[Shape(8)] = 1020  # 2 % slower than sixteen
    timed = shapes.timed(periods)
    assert timed.fit(0, 150, 1) == Shape(16, 160, CHUNKS)
    assert timed.fit(0, 161, 1) == shapes.fit(0, 161, 1)
    assert timed.fit(7) == Shape(8)
    assert timed.fit(97) is timed.fit(1, 257, 1) is None
    slow = shapes.timed(periods | {Shape(decodes): 5000 for decodes in (40, 48, 56)})
    assert [slow.fit(decodes) for decodes in (33, 64)] == [Shape(64), Shape(64)]  # never one with chunks


@pytest.mark.parametrize("shape", [Shape(4), Shape(0, 32, CHUNKS), Shape(3, 64, CHUNKS)])
def test_a_blank_step_fills_its_shape_and_touches_the_null_block_alone(shape: Shape) -> None:
    lanes = blank(shape, Paging(16, 16, 16), 999)
    assert lanes.inputs.shape == (3, shape.width)
    assert not lanes.inputs[1:].any()
    assert set(lanes.inputs[0]) | set(lanes.outputs[1]) == {999}
    assert not lanes.decodes.ids.any()
    assert not lanes.chunks.ids.any()
    assert len(lanes.decodes.last) == shape.decodes
    assert not shape.chunks or lanes.queries[-1] == shape.tokens


def test_the_chunks_of_a_blank_step_may_attend_to_earlier_tokens() -> None:
    lanes = blank(Shape(2, 64, CHUNKS), Paging(16, 16, 16), 999, chunks=3, start=100, blocks=12)
    assert np.diff(lanes.queries).tolist() == [21, 21, 22, 0, 0, 0, 0, 0]
    assert np.diff(lanes.chunks.offsets).tolist() == [8, 8, 8, 1, 1, 1, 1, 1]
    assert lanes.chunks.last.tolist() == [121 - 112, 121 - 112, 122 - 112, 1, 1, 1, 1, 1]
    assert lanes.chunks.ids[:24].tolist() == [*range(12), *range(12)]  # one block after the other, over and over
    assert not lanes.inputs[1:].any()


@pytest.mark.parametrize(
    ("model", "lanes", "mib"),
    [
        ("llama-3.1-8b", 256, 130),  # 64 tiles of 128 queries of chunks, 32 heads, 128 long, fp32
        ("llama-3.1-8b", 1024, 323),
        ("opt-13b", 512, 174),
        ("tiny-llama", 8, 128),
    ],
)
def test_the_workspace_holds_the_parts_of_a_padded_step(model: str, lanes: int, mib: int) -> None:
    assert workspace_bytes(resolve_model(model), Shapes(lanes, 1024)) / 2**20 == pytest.approx(mib, rel=0.01)


def test_lanes_that_stand_empty_hold_the_null_block() -> None:
    table = np.array([[5, 6, 7], [8, 9, 0]], np.int32)
    decodes = sequences((1, 100, 7, 1, 108), (0, 200, 8, 1, 999))
    lanes = make_lanes(table, Paging(4, 4, 4), Shape(4), decodes, None, spare=999)
    assert lanes.inputs.tolist() == [[107, 208, 999, 999], [7, 8, 0, 0], [39, 28, 0, 0]]
    assert lanes.outputs.tolist() == [[0, 1, 2, 3], [108, 999, 999, 999]]
    assert lanes.decodes.offsets.tolist() == [0, 2, 5, 6, 7]
    assert lanes.decodes.ids.tolist() == [8, 9, 5, 6, 7, 0, 0]
    assert lanes.decodes.last.tolist() == [4, 1, 1, 1]
    assert lanes.targets.tolist() == [108, 209]
    full = pages_of(table, np.array([0]), np.array([12]), Paging(4, 4, 4), 1)
    assert (full.ids.tolist(), full.last.tolist()) == ([5, 6, 7], [4])


def sequences(*columns: tuple[int, int, int, int, int]) -> Sequences:
    rows, names, starts, counts, said = np.array(columns).T
    return Sequences(rows, names, starts, counts, said, np.array([name != 300 for name in names]))


def test_chunks_stand_behind_the_lanes_of_decodes() -> None:
    table = np.array([[5, 6, 7], [8, 9, 0], [3, 0, 0]], np.int32)
    decodes, chunks = sequences((1, 100, 7, 1, 108)), sequences((0, 200, 3, 3, 206), (2, 300, 0, 2, 999))
    lanes = make_lanes(table, Paging(4, 4, 4), Shape(2, 8, 4), decodes, chunks, spare=999)
    assert lanes.inputs[0].tolist() == [107, 999, 203, 204, 205, 300, 301, 999, 999, 999]
    assert lanes.inputs[1].tolist() == [7, 0, 3, 4, 5, 0, 1, 0, 0, 0]
    assert lanes.inputs[2].tolist() == [39, 0, 23, 24, 25, 12, 13, 0, 0, 0]
    assert lanes.outputs.tolist() == [[0, 1, 4, 6, 0, 0], [108, 999, 206, 999, 999, 999]]
    assert lanes.queries.tolist() == [0, 3, 5, 5, 5]
    assert lanes.chunks.offsets.tolist() == [0, 2, 3, 4, 5]
    assert lanes.chunks.ids.tolist() == [5, 6, 3, 0, 0]
    assert lanes.chunks.last.tolist() == [2, 2, 1, 1]
    assert (lanes.picks.tolist(), lanes.targets.tolist()) == ([0, 2], [108, 206])


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


class Clock:
    """A device whose steps end when they are told to; stands in for CUDA events."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.end = 0.0, 0.0
        clock = self

        class Event:
            def __init__(self, *, enable_timing: bool = False) -> None:
                self.at = 0.0

            def record(self) -> None:
                self.at = clock.end

            def synchronize(self) -> None:
                clock.now = max(clock.now, self.at)

            def elapsed_time(self, other: Event) -> float:
                return (other.at - self.at) / 1e6

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr("sim.decode.pace.time.perf_counter_ns", lambda: int(clock.now))

    def step(self, pace: Pace, takes: float, *, lanes: int = 0, host: float = 0) -> int:
        """Spend `host` on the host, then launch what takes the device so long."""
        self.now += host
        pace.start()
        self.end = max(self.end, self.now) + takes
        return pace.launched(lanes) if lanes else pace.finished()


def test_what_a_step_told_was_off_by_is_set_right_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pace = Clock(monkeypatch), Pace(torch.device("cuda"), ahead=True)
    told = [clock.step(pace, 500), clock.step(pace, 100, lanes=8, host=7)]
    assert told == [500, 107]  # the second is waited for: the first of its size
    told.append(clock.step(pace, 90, lanes=8))
    assert (told[-1], clock.now) == (107, 607)  # told before it has run; the host goes on at once
    told.append(clock.step(pace, 110, lanes=8, host=5))
    assert (told[-1], clock.now) == (110 + 90 - 107, 807)  # waited for: the first that did not find the device idle
    told += [clock.step(pace, 95, lanes=8), clock.step(pace, 100, lanes=8)]
    assert (told[-2:], clock.now) == ([90, 110 + 95 - 90], 902)
    assert sum(told) - clock.end == 110 - 100
    told.append(clock.step(pace, 500, lanes=16))
    assert told[-1] == 500 + 100 - 110  # another size: both are waited for
    assert sum(told) == clock.end == clock.now
    told += [clock.step(pace, 40, lanes=8), clock.step(pace, 300)]
    assert told[-2:] == [95, 300 + 40 - 95]  # a prefill settles everything
    assert sum(told) == clock.end == clock.now


def test_the_first_step_of_a_shape_takes_what_its_graph_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pace = Clock(monkeypatch), Pace(torch.device("cuda"), ahead=True, periods={8: 90, 16: 150})
    told = [clock.step(pace, 500), clock.step(pace, 100, lanes=8, host=7)]
    assert (told, clock.now) == ([500, 90], 507)  # told before it has run
    told.append(clock.step(pace, 160, lanes=16))
    assert (told[-1], clock.now) == (150 + 107 - 90, 607)  # another shape, and what the one before was longer
    told += [clock.step(pace, 100, lanes=8), clock.step(pace, 300)]
    assert sum(told) == clock.end == clock.now


def test_what_the_host_does_while_resting_is_in_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pace = Clock(monkeypatch), Pace(torch.device("cuda"), ahead=True)
    for _ in range(4):
        clock.step(pace, 100, lanes=8)
    pace.rest()
    assert clock.now == clock.end
    clock.now += 10_000
    told = [clock.step(pace, takes, lanes=8) for takes in (70, 80, 90, 90)]
    assert told[0] == 70  # waited for, by the host's clock
    assert sum(told) == pytest.approx(330, abs=30)
    assert min(told) > 50


def test_host_work_is_told_only_where_the_device_had_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, shown = [], []
    for host, told in ((60, hidden), (160, shown)):
        clock, pace = Clock(monkeypatch), Pace(torch.device("cuda"), ahead=True)
        clock.step(pace, 100)
        for _ in range(12):
            told.append(clock.step(pace, 100, lanes=4, host=host))
    assert set(hidden[4:]) == {100}
    assert set(shown[4:]) == {160}


def test_where_nothing_runs_ahead_a_step_is_what_the_host_measured() -> None:
    pace = Pace(CPU, ahead=True)
    pace.start()
    one = pace.launched(4)
    pace.lost()
    assert 0 < one < pace.finished()
