"""The script for a GPU describes runs that work; here they are cut short and run on the CPU."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from sim.decode.model import load as load_model
from sim.models.geometry import resolve_model
from tests.decode.room import CPU
from tests.gpu import decode_speed
from tests.gpu.validate_gpu import ALLOCATORS, SMALL, Job, jobs, run
from workloads.loader import load

if TYPE_CHECKING:
    from pathlib import Path


def test_every_job_names_a_workload_that_loads() -> None:
    names = [job.name for job in jobs()]
    assert len(set(names)) == len(names)
    assert {job.workload for job in jobs()} == {
        "validate_tiny",
        "validate_hybrid",
        "validate_1b",
        "validate_opt13b",
    }
    for job in jobs():
        assert load(job.workload).allocators


@pytest.mark.parametrize("config", SMALL)
def test_small_geometries_agree(config: str, tmp_path: Path) -> None:
    short = ("requests.count=2", "requests.lengths.output={min: 3, max: 5}")
    result = run(Job("short", "validate_tiny", "torch", config, "float32", short), "cpu", tmp_path)
    assert result.passed, result.as_json()
    assert len(result.findings) == len(ALLOCATORS)
    assert dataclasses.asdict(result)["dtype"] == "fp32"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CONTEXT": 40, "STEPS": 8, "REQUESTS": 6, "PROMPT": 9, "OUTPUT": 5}.items():
        monkeypatch.setattr(decode_speed, name, value)


@pytest.mark.usefixtures("small")
def test_speed_is_counted_over_full_steps_of_decodes() -> None:
    geometry = resolve_model({"name": "tiny-llama", "dtype": "bf16"})
    decoder = load_model("tiny-llama", geometry, CPU)
    found = decode_speed.floor(decoder, 4, 1e9)
    assert found["steps"] == 6  # 8 tokens: one by the prefill, and one by the step that the clock starts after
    assert found["mean_context"] == 36 + 1 + (2 + 7) / 2 - 1
    weights = sum(each.nbytes for each in decoder.network.parameters())
    embedding = decoder.network.get_input_embeddings().weight
    tied = embedding.data_ptr() == decoder.network.lm_head.weight.data_ptr()
    assert decode_speed.read_bytes(decoder) == weights - (0 if tied else embedding.nbytes)
    read = decode_speed.read_bytes(decoder) + 4 * found["mean_context"] * geometry.kv_bytes_per_token
    assert found["floor_ms"] == pytest.approx(read / 1e6)
    assert found["share_of_floor"] == pytest.approx(found["floor_ms"] / found["step_ms"])
    assert decode_speed.ours(decoder)["output_tokens"] == 30
