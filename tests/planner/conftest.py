"""A workload of a moment, to be varied, and a small grid over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.planner.grid import Base

SMALL = """\
name: small
model: tiny-llama
device: {name: h100-80gb, kv_memory_gib: 0.0005}
engine: {max_num_seqs: 8, max_model_len: 256}
requests: {count: 30, arrivals: {kind: poisson, rate: 400}, lengths: {kind: fixed, prompt: 24, output: 16}}
allocators:
  - {kind: preallocated}
  - {kind: paged}
slo: {ttft_s: 0.01}
"""
GRID = ("requests.arrivals.rate=200,800", "allocators.paged.block_size=4,16")


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture
def base(workload: Path) -> Base:
    return Base(str(workload), ["repeat=2"])
