"""The bench: a model on a device that serves workloads for real, and what is found in each run.

Three things are compared: the tokens decoded with the model's own (`sim.decode.numerics`), the decisions
with those of a simulation under the measured clock (`sim.decode.trace`), and the memory taken with what
was counted.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from analysis.reading import open_directory
from sim.decode.checks import Decisions, Finding, Memory, decisions_of, exercised, memory_of
from sim.decode.executor import OutOfMemoryError
from sim.decode.numerics import Recorder, Reference, compare
from sim.decode.placement import Placing
from sim.decode.runtime import assemble, host_blocks
from sim.decode.trace import DivergedError, Recorded, Replayed
from sim.results.rundir import ParquetSink
from sim.runner import run
from sim.serve import engine_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from allocators.base import Allocator
    from sim.case import Case
    from sim.decode.model import Decoder
    from sim.decode.outcome import Validation
    from sim.engine.telemetry import Sink
    from sim.serve import Progress
    from sim.setup import Setup
    from workloads.requests import Requests
    from workloads.schema import Workload


class Bench:
    """A model on a device, and the runs it makes."""

    def __init__(self, decoder: Decoder, backend: str, result: Validation) -> None:
        """Enter what is found in `result`."""
        self._decoder = decoder
        self._backend = backend
        self._result = result
        self._reference = Reference(decoder)
        self._served: list[tuple[Finding, Recorded, Setup, Case, Requests]] = []

    @property
    def findings(self) -> list[Finding]:
        """What has been found so far."""
        return self._result.findings

    def serve(
        self,
        workload: Workload,
        out: Path,
        suffix: str,
        base: Path | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        """Run a workload for real and as a simulation, into two run directories."""
        measured = out / f"measured{suffix}"
        facts = {"executor": {"device": self._result.device, "versions": self._result.versions}}
        self._served.clear()
        run(workload, measured, base=base, force=True, progress=progress, executing=self._executing, facts=facts)
        folders = {each.label: each.path for each in open_directory(measured).runs}
        for finding, recorded, setup, case, requests in self._served:
            if finding.stopped is None:
                finding.decisions = replay(setup, case, requests, recorded, folders[case.label], finding.memory)
        run(workload, out / f"simulated{suffix}", base=base, force=True)

    @contextmanager
    def _executing(
        self, setup: Setup, case: Case, requests: Requests, allocator: Allocator, sink: Sink
    ) -> Iterator[tuple[Recorded, Sink]]:
        """Make a real executor, which waits for each step; when its run is over, compare tokens and memory."""
        workload, recorder = setup.workload, Recorder(requests, setup.geometry)
        runtime = assemble(
            self._decoder,
            case,
            allocator,
            requests,
            seed=workload.seed,
            backend=self._backend,
            swap=case.preemption == "swap",
            watcher=recorder,
        )
        finding = Finding(case.label, case.spec.kind, case.scheduler, case.preemption, runtime.backend)
        recorded = Recorded(runtime.executor)
        self._result.findings.append(finding)
        self._served.append((finding, recorded, setup, case, requests))
        try:
            yield recorded, sink
        except OutOfMemoryError as error:
            finding.stopped = str(error)
        finding.numerics = compare(self._reference, recorder, runtime.transcript, setup.geometry.model.dtype)
        finding.memory = memory_of(runtime, case, allocator)
        finding.exercised = exercised(recorded.steps)
        finding.can_swap = host_blocks(allocator) > 0
        finding.decoding_s = sum(recorded.durations) / 1e9
        recorded.close()  # the next run needs the room


def replay(
    setup: Setup, case: Case, requests: Requests, recorded: Recorded, measured: Path, memory: Memory
) -> Decisions:
    """Simulate a run under its measured clock, once step by step and once leaping, and compare the decisions.

    Args:
        setup: the workload.
        case: what ran.
        requests: what it served.
        recorded: what it decided, and its clock.
        measured: its run directory.
        memory: gets the peaks of tensors that the simulation comes to, if there are any.

    """
    replayed = Replayed(recorded.durations)
    placing = Placing(replayed, setup, case) if memory.kind == "tensors" else None
    again = Recorded(placing or replayed)
    with TemporaryDirectory() as folder:
        try:
            for executor in (again, replayed):
                with ParquetSink(Path(folder)) as sink:
                    engine = engine_of(setup, case, requests, case.allocator(), executor, sink)
                    replayed.follow(engine)
                    engine.run()
        except DivergedError as error:
            return Decisions(len(recorded.steps), str(error))
        if placing is not None:
            memory.simulated = placing.peaks
        return decisions_of(recorded.steps, again.steps, (measured, Path(folder)))
