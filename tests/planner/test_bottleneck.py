"""What limits a workload: memory, seats, compute, bandwidth, or nothing but its arrivals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.planner.advising import words as in_words
from analysis.planner.binding import bound
from sim.planner.bottleneck import mean_length
from sim.planner.grid import Base
from sim.planner.job import Failed, Job, work
from sim.planner.knobs import hardware
from sim.setup import prepare
from tests.planner.memory import MEMORY
from workloads.loader import load
from workloads.schema import Workload


def limits(workload: Workload) -> dict[str, Any]:
    """What a simulation of the one allocator of a workload says of it."""
    done = work(Job(workload, "one", 0, limits=True))
    assert not isinstance(done, Failed), done.why
    found: dict[str, Any] = done["limits"]
    return found


@pytest.mark.parametrize(
    ("waits", "saved", "kept_up", "name"),
    [
        ({"memory": 0.4, "budget": 0.1}, {"bandwidth": 0.5, "compute": 0.1, "overhead": 0.1}, True, "memory"),
        ({"seats": 0.4}, {"bandwidth": 0.5, "compute": 0.1, "overhead": 0.1}, True, "seats"),
        ({"budget": 0.4}, {"bandwidth": 0.2, "compute": 0.6, "overhead": 0.1}, False, "compute"),
        ({}, {"bandwidth": 0.6, "compute": 0.1, "overhead": 0.1}, False, "bandwidth"),
        ({"memory": 0.01}, {"bandwidth": 0.6, "compute": 0.1, "overhead": 0.1}, True, "arrivals"),
    ],
)
def test_what_limits_is_read_off_the_queue_and_the_terms(
    waits: dict[str, float], saved: dict[str, float], kept_up: bool, name: str
) -> None:
    ledger = {"live": 0.5}
    what = {"waits": waits, "saved": saved, "kept_up": kept_up, "idle": 0.1, "ledger": ledger, "held_peak": 1.0}
    what |= {"during": "busy", "scheduler": "vllm-v1"}
    assert bound(what)["name"] == name


def test_seats_limit_nothing_where_more_of_them_gain_nothing() -> None:
    saved = {"bandwidth": 0.3, "compute": 0.5, "overhead": 0.0}
    what = {"waits": {"seats": 0.54}, "saved": saved, "kept_up": False, "idle": 0.0, "during": "waiting"}
    what |= {"scheduler": "vllm-v1", "ledger": {"live": 0.6}, "held_peak": 0.9}
    summary = {"limits": what, "slo": [], "basis": "replications", "hardware": [], "budget": 100, "left_out": []}
    summary["before"] = {"meets": False, "kept_up": False}
    summary["best"] = {"change": "", "knobs": []}

    def said(**tells: str) -> str:
        effects = [(name.replace("to", "max_num_seqs 256 -> "), tell) for name, tell in tells.items()]
        changes = [
            {"change": change, "knobs": ["max_num_seqs"], "effect": {"tells": tell}, "meets": False}
            for change, tell in effects
        ]
        return in_words(summary | {"changes": changes})[0].text

    seats = "The number of seats limits this workload. "
    assert said().startswith(seats)
    assert said(to512="worse", to1024="better").startswith(seats)
    assert said(to128="worse").startswith(seats), "that says nothing of more"
    vain = "Compute limits this workload: requests wait for a seat, but more gain nothing. "
    assert said(to128="better", to512="worse", to1024="same").startswith(vain)


def test_a_batch_that_must_end_first_is_no_lack_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "memory.yaml"
    path.write_text(MEMORY, encoding="utf-8")
    what = limits(load(path, ["device.kv_memory_gib=1", "engine.scheduler=static"]))
    found = bound(what)
    assert found["name"] == "batches"
    assert "waited for the end of the batch (static)" in found["text"]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ([], "memory"),
        (["device.kv_memory_gib=1", "requests.arrivals.rate=50"], "arrivals"),
        (["device.kv_memory_gib=1", "engine.max_num_seqs=2"], "seats"),
        (
            ["device.kv_memory_gib=1", "engine.max_num_seqs=256", "device.bf16_tflops=0.01", "model.dtype=bf16"],
            "compute",
        ),
        (["device.kv_memory_gib=1", "engine.max_num_seqs=256", "device.bandwidth_tbps=0.0002"], "bandwidth"),
    ],
)
def test_a_workload_that_is_made_to_lack_something_is_told_so(settings: list[str], name: str, tmp_path: Path) -> None:
    path = tmp_path / "memory.yaml"
    path.write_text(MEMORY, encoding="utf-8")
    what = limits(load(path, settings))
    assert bound(what)["name"] == name, what
    assert what["accounted"] == pytest.approx(1, abs=0.1)


def test_where_requests_wait_only_the_steps_count_meanwhile() -> None:
    """Prompts that wait for one another, and long after them one long answer: most of the time, but not of the wait."""
    prompts = "{name: prompts, count: 20, arrivals: {kind: batch}, lengths: {kind: fixed, prompt: 4000, output: 1}}"
    answer = (
        "{name: answer, count: 1, arrivals: {kind: batch, at_s: 9}, lengths: {kind: fixed, prompt: 1, output: 2000}}"
    )
    settings = ["engine={max_num_seqs: 1, max_model_len: 8192}", f"requests={{mix: [{prompts}, {answer}]}}"]
    what = limits(load("quickstart", ["device={name: h200}", "allocators=[{kind: paged}]", *settings]))
    assert what["during"] == "waiting"
    assert max(what["saved"], key=what["saved"].__getitem__) == "compute"


@pytest.mark.parametrize("arrivals", ["{kind: poisson, rate: 3000}", "{kind: batch}"])
def test_a_workload_of_which_no_request_is_served_is_told_so(arrivals: str, tmp_path: Path) -> None:
    """Whether the engine waits for one after the other, or is done before its first step."""
    path = tmp_path / "memory.yaml"
    path.write_text(MEMORY, encoding="utf-8")
    what = limits(load(path, ["engine.max_model_len=50", f"requests.arrivals={arrivals}"]))
    assert bound(what)["text"] == "No request is served: all are refused (longer than max_model_len)."
    del what["refusals"]  # as in directories of earlier versions
    assert bound(what)["text"] == "No request is served: all are refused."


def test_rebuilt_steps_take_the_time_that_was_recorded() -> None:
    for preset in ("quickstart", "sosp23_sharegpt"):
        base = Base(preset, ["requests.duration_s=60"] if preset.startswith("sosp") else ["requests.count=300"])
        place = [one.kind for one in base.workload.allocators].index("paged")
        what = limits(base.job(base.workload, place, 0).workload)
        assert what["accounted"] == pytest.approx(1, abs=0.05), preset


@pytest.mark.parametrize(
    ("model", "kind", "name"),
    [
        ("llama-3.1-8b", "no-cache", "compute"),
        ("llama-3.1-8b", "growing", "bandwidth"),
        ("gemma-3-12b", "hybrid", "bandwidth"),
        ("gemma-3-12b", "ideal", "bandwidth"),
        ("jamba-v0.1", "hybrid", "bandwidth"),
    ],
)
def test_steps_are_rebuilt_whatever_the_allocator_keeps_of_a_token(model: str, kind: str, name: str) -> None:
    """All of it in each group of layers, a window, a tensor that is copied whole, or nothing."""
    settings = [
        f"model={model}",
        "device={name: h200}",
        "engine={max_model_len: 4096, max_num_seqs: 24}",
        f"allocators=[{{kind: {kind}}}]",
        "requests={count: 60, arrivals: {kind: poisson, rate: 20}, lengths: {kind: fixed, prompt: 1500, output: 200}}",
    ]
    what = limits(load("quickstart", settings))
    assert what["accounted"] == pytest.approx(1, abs=0.03)
    assert max(what["saved"], key=what["saved"].__getitem__) == name


@pytest.mark.parametrize(
    ("model", "device", "knob", "key"),
    [
        ("llama-3.1-8b", "{name: h100-80gb}", "bf16", "bf16_tflops"),
        ("opt-13b", "{name: h100-80gb}", "fp16", "bf16_tflops"),
        ("{name: llama-3.1-8b, dtype: fp32}", "{name: h100-80gb}", "fp32", "fp32_tflops"),
        ("{name: deepseek-v3, tensor_parallel: 8}", "{name: h200}", "fp8", "fp8_tflops"),
        ("{name: deepseek-v3, tensor_parallel: 32}", "{name: a100-80gb}", "bf16", "bf16_tflops"),
    ],
)
def test_more_compute_is_more_of_what_the_model_computes_in(model: str, device: str, knob: str, key: str) -> None:
    one = next(
        change
        for change in hardware(prepare(load("quickstart", [f"model={model}", f"device={device}"])), 0)
        if change.knob.startswith("compute")
    )
    assert (one.unit, one.axis.places) == (f"{knob} TFLOP/s", (("device", key),))
    assert one.text.startswith("compute ")
    assert one.text.endswith(f" {knob} TFLOP/s")
    assert one.after == pytest.approx(1.25 * one.before, rel=1e-3)


def test_the_mean_length_of_those_that_decode_follows_from_when_they_began_and_ended() -> None:
    requests = {
        "prompt_tokens": np.array([10, 100, 7, 9]),
        "generated_tokens": np.array([5, 3, 1, 0]),
        "first_token_s": np.array([1.0, 2.0, 2.5, np.nan]),
        "finish_s": np.array([5.0, np.nan, 2.5, np.nan]),  # the second never ends, the third with its first token
        "samples": np.array([1, 3, 1, 1]),
    }
    found = mean_length(requests, np.array([0.0, 1.0, 3.0, 4.0, 6.0]))
    assert found == pytest.approx([0, 11, (13 + 3 * 101.5) / 4, (14 + 3 * 102) / 4, 0])
