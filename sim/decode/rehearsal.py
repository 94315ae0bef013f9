"""The host's work for a step, as in a real run: the serving loop, the allocator, laying out, planning, launching.

On a stage the same step is repeated and nothing else happens; in a run the host does more, and its
caches are colder.  As it works while the device runs the step before, this matters only where a short
step precedes one that takes the host long: a prefill after decodes.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from sim.decode.device import release
from sim.decode.runtime import assemble
from sim.engine.executor import Executor
from sim.runner import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocators.base import Allocator
    from sim.case import Case
    from sim.decode.executor import TorchExecutor
    from sim.decode.model import Decoder
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving
    from sim.engine.telemetry import Sink
    from sim.setup import Setup
    from workloads.requests import Requests
    from workloads.schema import Workload


def prefill_host_s(decoder: Decoder, workload: Workload, backend: str) -> float:
    """Serve a workload; returns the seconds that the host works on a step with a prefill, in the median.

    Args:
        decoder: the model.
        workload: what to serve; its first allocator does.
        backend: attends.

    """
    release(decoder.device)
    clocked: list[Clocked] = []

    @contextmanager
    def executing(
        _: Setup, case: Case, requests: Requests, allocator: Allocator, sink: Sink
    ) -> Iterator[tuple[Clocked, Sink]]:
        runtime = assemble(decoder, case, allocator, requests, seed=workload.seed, backend=backend, metered=False)
        clocked.append(Clocked(runtime.executor))
        yield clocked[-1], sink

    with TemporaryDirectory() as folder:
        run(workload, Path(folder) / "rehearsal", executing=executing)
    return float(np.median(clocked[0].prefills)) / 1e9


class Clocked(Executor):
    """An executor that notes what the host does from the end of its last step to the launch of one that prefills."""

    def __init__(self, executor: TorchExecutor) -> None:
        """Run plans with `executor`."""
        self._executor = executor
        self._ended: int | None = None
        self.prefills: list[int] = []
        """Nanoseconds of each step with a prefill, without those in which the host waited for the device."""

    def run(self, plan: Plan, serving: Serving) -> int:
        """Carry out one step."""
        waited = self._executor.waited
        duration = self._executor.run(plan, serving)
        ended = time.perf_counter_ns()
        if plan.chunks and self._ended is not None:
            self.prefills.append(ended - self._ended - (self._executor.waited - waited))
        self._ended = ended
        return duration
