"""What every scheduler must do, plug-ins included: respect limits, serve every request, and be right about `steady`.

A scheduler whose `plan` does more than `steady` says (for example, if it calls itself `fcfs` and lets short requests
pass) gives different results when the engine leaps; these tests find that.  Requests come at two rates: so fast that
the queue is long, and so slowly that the engine can leap between two arrivals.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sim.runner import run_case
from sim.schedulers import find_scheduler
from sim.setup import prepare
from workloads.loader import load

FILE = """\
name: tight
model: tiny-llama
device: {name: h100-80gb, kv_memory_gib: 0.0003}
engine: {max_num_seqs: 12, max_num_batched_tokens: 256, max_model_len: 256}
requests: {count: 150, arrivals: {kind: poisson, rate: 300}, lengths: {kind: uniform, prompt: {min: 4, max: 90}, output: {min: 1, max: 150}}}
allocators: [{kind: paged}, {kind: contiguous, reserve: pow2}]
"""  # noqa: E501  a block of the file stays in one line


@pytest.mark.parametrize("rate", [900, 300])
@pytest.mark.parametrize("allocator", [0, 1], ids=["paged", "contiguous"])
def test_leaping_changes_nothing_and_limits_hold(scheduler: str, allocator: int, rate: int, tmp_path: Path) -> None:
    file = tmp_path / "tight.yaml"
    file.write_text(FILE, encoding="utf-8")
    setup = prepare(load(file, [f"engine.scheduler={scheduler}", f"requests.arrivals.rate={rate}"]))
    case, requests = setup.cases[allocator], setup.requests()
    for leaps in (False, True):
        run_case(setup, case, requests, tmp_path / str(leaps), leaps=leaps)
    for stepped in sorted(Path(tmp_path, "False").glob("*.parquet")):
        leapt = pq.read_table(tmp_path / "True" / stepped.name)
        assert pq.read_table(stepped).equals(leapt), f"{scheduler}: {stepped.name} differs where steps are leapt over"
    served = pq.read_table(tmp_path / "True" / "requests.parquet")
    assert set(served["status"].to_pylist()) == {"finished"}
    steps = pq.read_table(tmp_path / "True" / "steps.parquet")
    assert (np.asarray(steps["running"]) <= case.limits.max_num_seqs).all()
    waited = {"memory", "order"} & set(steps["blocked"].to_pylist())
    assert waited, f"{scheduler}: requests wait for memory, but `plan` never says so by `serving.block`"
    if find_scheduler(scheduler).has_budget:
        computed = np.asarray(steps["prefill_tokens"]) + np.asarray(steps["decode_tokens"])
        assert computed.max() <= case.limits.max_num_batched_tokens
