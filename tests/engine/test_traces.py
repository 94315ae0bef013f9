"""The engine equals the reference engine on slices of recorded traces, down to the bytes of the run directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.observed import SHARES
from sim.case import Case
from sim.engine.loop import Engine
from sim.reference import ReferenceEngine
from sim.results.rundir import ParquetSink
from sim.serve import contents, simulated
from sim.setup import Setup, prepare
from tests.engine.harness import Memory, differences
from workloads.generate import requests as make_requests
from workloads.loader import load
from workloads.requests import Requests

SHARED = Path(os.environ.get("KVSIM_SHARED", Path(__file__).parents[2].parent / "shared"))
FILES = {
    "conv": "azure2023_conv/AzureLLMInferenceTrace_conv.csv.gz",
    "code": "azure2023_code/AzureLLMInferenceTrace_code.csv.gz",
    "mooncake": "mooncake_conversation/conversation_trace.jsonl.gz",
}
WORKLOAD = """\
name: slice
model: llama-3.1-8b
device: {{name: h100-80gb, kv_memory_gib: {memory}}}
engine: {{scheduler: {scheduler}, max_num_seqs: 16, max_num_batched_tokens: 8192, max_model_len: {longest}, {engine}}}
requests: {{trace: {trace}, count: {count}, rate_scale: 4}}
costs: {{{costs}}}
allocators: [{{{allocator}}}]
"""


def setup(folder: Path, name: str, allocator: str, **changes: Any) -> Setup:
    """Resolve a workload that replays the beginning of a trace."""
    trace = SHARED / "data" / "traces" / FILES[name]
    if not trace.is_file():
        pytest.skip(f"no recorded trace at {trace}; set KVSIM_SHARED to the folder that holds data/traces")
    values = {"memory": 1, "scheduler": "vllm-v1", "longest": 8192, "engine": "", "costs": "", "count": 40} | changes
    path = folder / "slice.yaml"
    path.write_text(WORKLOAD.format(trace=trace, allocator=allocator, **values), encoding="utf-8")
    return prepare(load(path))


def run(make: Callable[..., Any], resolved: Setup, case: Case, requests: Requests, sink: Any, **more: Any) -> Any:
    """Run one case with one of the engines."""
    allocator = case.allocator()
    with simulated(resolved, case, requests, allocator, sink) as (executor, telemetry):
        engine = make(
            requests,
            contents(requests),
            allocator,
            case.make_scheduler(),
            executor,
            telemetry,
            swap=resolved.workload.engine.preemption == "swap",
            instants=20,
            **more,
        )
        return engine.run()


CASES = [
    ("conv", "kind: paged", {}),
    ("conv", "kind: paged", {"scheduler": "vllm-v0", "engine": "preemption: swap"}),
    ("conv", "kind: paged", {"scheduler": "static", "count": 30}),
    ("conv", "kind: contiguous, reserve: pow2, block_size: 16", {"scheduler": "orca", "longest": 4096}),
    ("code", "kind: paged", {"memory": 2, "costs": "power_throttle: 0.3, power_reserve_s: 0.02"}),
    ("code", "kind: virtual", {"memory": 2, "costs": "power_throttle: 0.3, power_slowdown: 0.5, prefill_host_s: 0.01"}),
    ("conv", "kind: growing", {"count": 30}),
    ("conv", "kind: ideal", {"count": 8, "memory": 0.5}),
    ("code", "kind: paged, block_size: 32", {"memory": 2, "engine": "long_prefill_token_threshold: 512"}),
    ("code", "kind: preallocated, block_size: 64", {"memory": 3, "scheduler": "orca"}),
    ("mooncake", "kind: paged, block_size: 128, prefix_cache: true", {"memory": 6, "count": 10, "longest": 32768}),
]


@pytest.mark.parametrize(("name", "allocator", "changes"), CASES, ids=lambda value: str(value).replace("kind: ", ""))
def test_a_slice_of_a_trace(name: str, allocator: str, changes: dict[str, Any], tmp_path: Path) -> None:
    resolved = setup(tmp_path, name, allocator, **changes)
    requests = make_requests(resolved.workload)
    (case,) = resolved.cases
    reference = Memory()
    expected = run(ReferenceEngine, resolved, case, requests, reference)
    assert expected.finished > len(requests) // 2
    for row in reference.rows("steps"):
        assert sum(row[share] for share in SHARES) == case.pool.slots, row
        assert min(row[share] for share in SHARES) >= 0, row
    for leaps in (True, False):
        sink = Memory()
        assert run(Engine, resolved, case, requests, sink, leaps=leaps) == expected
        assert not differences(reference, sink), f"leaps={leaps}"


def test_both_engines_write_the_same_bytes(tmp_path: Path) -> None:
    resolved = setup(tmp_path, "code", "kind: paged", count=40, engine="preemption: swap")
    requests = make_requests(resolved.workload)
    (case,) = resolved.cases
    folders = {"reference": ReferenceEngine, "engine": Engine}
    for folder, make in folders.items():
        with ParquetSink(tmp_path / folder) as sink:
            run(make, resolved, case, requests, sink)
    for table in ("requests", "steps", "blocks"):
        ours, theirs = ((tmp_path / folder / f"{table}.parquet").read_bytes() for folder in folders)
        assert ours == theirs, table
