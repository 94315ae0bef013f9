"""Small workloads for the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

SMALL = """\
name: small
model: tiny-llama
device: {name: h100-80gb, kv_memory_gib: 0.0005}
engine: {max_num_seqs: 8, max_model_len: 256}
requests: {count: 40, arrivals: {kind: poisson, rate: 400}, lengths: {kind: fixed, prompt: 24, output: 16}}
allocators:
  - {kind: preallocated}
  - {kind: paged}
"""


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workload of a moment, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path
