"""Validation: a workload run for real, and everything that must agree with its simulation.

Each allocator serves the workload on a real model.  Then three things are compared: the tokens decoded
with the model's own (`sim.decode.numerics`), the decisions with those of a simulation under the measured
clock (`sim.decode.trace`), and the memory taken with what was counted.  An allocator that ran short of
memory and can swap serves the workload twice, so that both kinds of preemption are exercised.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from allocators.registry import find
from analysis.reading import open_directory
from analysis.validation import NAME
from sim.claims import MANIFEST, changed, earlier, refuse
from sim.decode.checks import Decisions, Finding, Memory, decisions_of, exercised, memory_of
from sim.decode.device import demand_memory, name_of, release, resolve
from sim.decode.executor import OutOfMemoryError
from sim.decode.model import load, supported
from sim.decode.numerics import Recorder, Reference, compare, compared
from sim.decode.outcome import Validation
from sim.decode.placement import Placing
from sim.decode.runtime import assemble, choose_backend, host_blocks
from sim.decode.timed import calibration_of, timed_part
from sim.decode.trace import DivergedError, Recorded, Replayed
from sim.decode.versions import versions
from sim.engine.loop import Engine
from sim.errors import UserError
from sim.files import digests
from sim.rundir import ParquetSink, write_json
from sim.runner import run
from sim.serve import contents
from sim.setup import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    import torch

    from allocators.base import Allocator
    from sim.case import Case
    from sim.decode.model import Decoder
    from sim.engine.telemetry import Sink
    from sim.serve import Progress
    from sim.setup import Setup
    from workloads.requests import Requests
    from workloads.schema import Workload

Part: TypeAlias = Literal["exact", "timed"]
PARTS: tuple[Part, ...] = ("exact", "timed")
QUESTION = "validation"


def validate(
    workload: Workload,
    out: Path,
    *,
    device: str = "auto",
    backend: str | None = None,
    base: Path | None = None,
    parts: Collection[Part] = PARTS,
    calibration: str | None = None,
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Validation:
    """Validate a workload.

    Args:
        workload: what to run; its first replication.
        out: folder for validation.json and the run directories: `measured` and `simulated` of the exact part, and of
            the timed part `timed` (where the other will not do) and `predicted`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        backend: `torch` or `flashinfer`; FlashInfer where it can be used if not given.
        base: folder that the workload's relative files start from.
        parts: `exact`: tokens, decisions and memory; `timed`: how near the simulated times come.
        calibration: what simulated times come from, a shipped name or a file; else the workload's own, else the one
            shipped for the model on this device.  Without any, times are reported and not judged.
        force: whether results of another workload or device in `out` give way.
        progress: called now and then.

    Raises:
        UserError: it cannot run here; said before anything is allocated on the device.

    """
    where = resolve(device)
    workload, not_run = _runnable(workload.model_copy(update={"repeat": 1}))
    setup = prepare(workload, base)
    supported(workload.model.name, setup.geometry, base)
    attends = choose_backend(backend, setup.geometry, where)
    _demand_room(setup, where, setup.requests())
    asked = {
        "question": QUESTION,
        "workload": workload.resolved(),
        "files": digests(workload),
        "device": name_of(where),
    }
    _demand_free(out, asked, force=force)
    decoder = load(workload.model.name, setup.geometry, where, base=base, seed=workload.seed)
    result = Validation(
        workload.name,
        setup.geometry.name,
        decoder.weights,
        setup.geometry.model.dtype,
        name_of(where),
        versions(),
        datetime.now(UTC).isoformat(timespec="seconds"),
        not_run,
    )
    _enter(out, asked)
    basis = calibration_of(workload, result.device, result.dtype, calibration)
    if "exact" in parts:
        _exact_part(Bench(decoder, attends, result), workload, out, base, progress)
    if "timed" in parts:
        release(where)
        served = where.type == "cpu" and "exact" in parts
        facts = {"executor": {"device": result.device, "versions": result.versions}}
        result.timing = timed_part(
            decoder,
            workload,
            out,
            backend=attends,
            calibration=basis,
            served=served,
            base=base,
            facts=facts,
            progress=progress,
        )
    write_json(out / NAME, result.as_json())
    return result


def _demand_free(out: Path, asked: Mapping[str, Any], *, force: bool) -> None:
    """Raise UserError if what is asked would replace results of something else, which it may only if forced to."""
    if (out / NAME).exists() and not (out / MANIFEST).exists():
        if force:
            return
        raise UserError(
            f"{out}: holds a validation that does not say what workload it is of, as older ones do not; give another "
            "--out, or --force to replace it"
        )
    before = earlier(out, QUESTION)
    if before is not None and not force and (change := changed(before, asked, tuple(asked))):
        raise refuse(out, change)


def _enter(out: Path, asked: Mapping[str, Any]) -> None:
    """Say in `out` what it is about to hold; from here on everything else in it gives way."""
    out.mkdir(parents=True, exist_ok=True)
    (out / NAME).unlink(missing_ok=True)
    write_json(out / MANIFEST, {"schema": 1, **asked})


def _exact_part(
    bench: Bench, workload: Workload, out: Path, base: Path | None, progress: Callable[[Progress], None] | None
) -> None:
    """Serve a workload, and once more with the other kind of preemption whatever ran short of memory and can swap."""
    bench.serve(workload, out, "", base, progress)
    again = [
        spec.model_copy(update={"label": finding.label, "preemption": _other(finding.preemption)})
        for spec, finding in zip(workload.allocators, bench.findings, strict=True)
        if finding.twice
    ]
    if again:
        other = _other(workload.engine.preemption)
        bench.serve(workload.model_copy(update={"allocators": tuple(again)}), out, f"-{other}", base, progress)


def _other(preemption: str) -> str:
    """Return the other kind of preemption."""
    return "swap" if preemption == "recompute" else "recompute"


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
    workload = setup.workload
    replayed = Replayed(recorded.durations)
    placing = Placing(replayed, setup, case) if memory.kind == "tensors" else None
    again = Recorded(placing or replayed)
    with TemporaryDirectory() as folder:
        try:
            for executor in (again, replayed):
                with ParquetSink(Path(folder)) as sink:
                    engine = Engine(
                        requests,
                        contents(requests),
                        case.allocator(),
                        case.make_scheduler(),
                        executor,
                        sink,
                        seed=workload.seed,
                        swap=case.preemption == "swap",
                        instants=workload.telemetry.snapshots,
                        horizon_s=workload.horizon_s,
                    )
                    replayed.follow(engine)
                    engine.run()
        except DivergedError as error:
            return Decisions(len(recorded.steps), str(error))
        if placing is not None:
            memory.simulated = placing.peaks
        return decisions_of(recorded.steps, again.steps, (measured, Path(folder)))


def _runnable(workload: Workload) -> tuple[Workload, dict[str, str]]:
    """Take out allocators without a real counterpart."""
    if getattr(workload.requests, "beam", False):
        raise UserError("requests.beam: beams are chosen by the simulator, not by the model; validate without them")
    specs, not_run = [], {}
    for spec in workload.allocators:
        kind = find(spec.kind)
        if kind.free_preemption:
            not_run[spec.label or spec.kind] = "a bound: preemption that costs nothing has no real counterpart"
            continue
        specs.append(spec)
    if not specs:
        raise UserError("allocators: none of them can run on a device: " + "; ".join(not_run.values()))
    return workload.model_copy(update={"allocators": tuple(specs)}), not_run


def _demand_room(setup: Setup, device: torch.device, requests: Requests) -> None:
    """Raise UserError unless weights, the largest pool, the activations of a full step and what is compared fit."""
    largest = max((case.pool for case in setup.cases), key=lambda pool: pool.kv_bytes)
    parts = {
        "weights": largest.weight_bytes,
        "the KV pool with its null block": (largest.num_blocks + 1) * largest.block_bytes,
        "activations": largest.activation_bytes,
        "logits to compare, of the run and of the reference": 2 * compared(requests, setup.geometry)[1],
    }
    demand_memory(device, parts)
