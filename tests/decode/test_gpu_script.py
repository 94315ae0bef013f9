"""The script for a GPU describes runs that work; here they are cut short and run on the CPU."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.gpu.validate_gpu import SMALL, Job, jobs, run
from workloads.loader import load

if TYPE_CHECKING:
    from pathlib import Path


def test_every_job_names_a_workload_that_loads() -> None:
    names = [job.name for job in jobs()]
    assert len(set(names)) == len(names)
    assert {job.workload for job in jobs()} == {"validate_tiny", "validate_1b", "validate_opt13b"}
    for job in jobs():
        assert load(job.workload).allocators


@pytest.mark.parametrize("config", SMALL)
def test_small_geometries_agree(config: str, tmp_path: Path) -> None:
    short = ("requests.count=2", "requests.lengths.output={min: 3, max: 5}")
    result = run(Job("short", "validate_tiny", "torch", config, "float32", short), "cpu", tmp_path)
    assert result.passed, result.as_json()
    assert len(result.findings) == 4
    assert dataclasses.asdict(result)["dtype"] == "fp32"
