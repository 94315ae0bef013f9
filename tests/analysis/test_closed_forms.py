"""Queues with a textbook answer, expressed as workloads: one seat, and a step that always takes as long."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.figures import group
from analysis.reading import open_directory
from sim.runner import run
from workloads.loader import load

STEP = 0.01
"""Seconds a step, whatever it computes: a request of n output tokens takes n steps."""
TOKENS = 100
LOAD = 0.6
QUEUE = """\
name: queue
seed: 1
model: tiny-llama
device: {{memory_gib: 80, bandwidth_tbps: 1.0e+9, bf16_tflops: 1.0e+9, kv_memory_gib: 0.01}}
engine: {{scheduler: orca, max_num_seqs: 1, max_model_len: 4096}}
requests:
  count: 1200
  arrivals: {{kind: poisson, rate: {rate}}}
  lengths: {{kind: marginals, prompt: 1, output: {output}}}
allocators: [{{kind: paged}}]
costs: {{step_overhead_s: {step}, sequence_overhead_s: 0, layer_overhead_s: 0}}
telemetry: {{blocks: "off"}}
repeat: 8
"""


@pytest.mark.parametrize(
    ("output", "second_moment"),
    [("{{kind: exponential, mean: {}}}", 2.0), ("{}", 1.0)],
    ids=["M/M/1", "M/D/1"],
)
def test_waiting_times_are_those_of_the_textbook(output: str, second_moment: float, tmp_path: Path) -> None:
    """Pollaczek and Khinchine: the mean wait is rate x E[S^2] / (2 (1 - load)); with exponential S that is M/M/1's."""
    service = TOKENS * STEP
    rate = LOAD / service
    path = tmp_path / "queue.yaml"
    length = output.format(TOKENS).replace("{{", "{").replace("}}", "}")
    path.write_text(QUEUE.format(rate=rate, output=length, step=STEP))
    run(load(path), tmp_path / "run")
    directory = open_directory(tmp_path / "run")
    (queue,) = group(directory.summary())
    wait = rate * second_moment * service**2 / (2 * (1 - LOAD))
    for name, expected in (("queue_s", wait), ("e2e_s", wait + service), ("waiting", rate * wait)):
        mean = queue.interval(name)
        assert mean.n == 8
        assert mean.low < expected < mean.high, name
        assert mean.high - mean.low < 0.5 * expected, "an interval that wide would say nothing"
    assert all(entry["little"]["gap"] < 1e-9 for entry in directory.summary())
