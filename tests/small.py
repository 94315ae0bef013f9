"""A workload of a moment, as a file in the working directory of a test."""

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


def settle(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a workload to `small.yaml` in `folder`, work there on a terminal of 100 columns, and return the file."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path
