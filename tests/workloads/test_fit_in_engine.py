"""A fitted workload loads an engine as its trace does: the same mean batch, the same waste."""

from pathlib import Path

import pytest

from sim.runner import run
from workloads.fit import fit
from workloads.generate import requests as make
from workloads.loader import load

FILE = """\
name: azure
model: llama-3.1-8b
device: {name: h100-80gb, kv_memory_gib: 12}
engine: {max_num_batched_tokens: 4096, max_model_len: 16384}
allocators:
  - {kind: paged, block_size: 64}
  - {kind: contiguous, reserve: oracle, placement: first-fit}
"""


def test_azure_s_conversations_and_their_fit_load_an_engine_alike(traces: Path, tmp_path: Path) -> None:
    trace = traces / "azure2023_conv" / "AzureLLMInferenceTrace_conv.csv.gz"
    path = tmp_path / "trace.yaml"
    path.write_text(f"{FILE}requests: {{trace: {trace}, count: 2500}}\ntelemetry: {{blocks: 'off'}}\n")
    recorded = load(path)
    path.write_text(f"{FILE}{fit(make(recorded)).yaml()}telemetry: {{blocks: 'off'}}\n")
    runs = [
        run(workload, tmp_path / name).summary() for name, workload in (("trace", recorded), ("fitted", load(path)))
    ]
    for one, other in zip(*runs, strict=True):
        assert other["metrics"]["batch_size"]["mean"] == pytest.approx(one["metrics"]["batch_size"]["mean"], rel=0.05)
        wasted = [sum(run["ledger"]["mean"][part] for part in ("reserved", "internal")) for run in (one, other)]
        assert wasted[1] == pytest.approx(wasted[0], rel=0.05)
        assert other["ledger"]["mean"]["live"] == pytest.approx(one["ledger"]["mean"]["live"], rel=0.05)
