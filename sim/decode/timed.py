"""The timed part of a validation: a workload served for real, compared with its simulation under a calibration.

The prediction precedes the measurement: it uses a calibration of steps measured earlier, with lengths
and batches that no workload has, and how fast this machine is beside the calibration's (`sim.decode.machine`).
Nothing observes the real run, so the host may run a step ahead of the device, as in service.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from allocators.registry import find
from analysis.reading import open_directory
from analysis.timing import MACHINES, Timing, timed, with_others
from sim.costs.calibration import find_calibration, fitted_in, load_origin, shipped_for
from sim.decode.device import as_served
from sim.decode.executor import OutOfMemoryError, TorchExecutor
from sim.decode.hindsight import Hindsight
from sim.decode.machine import factors_of
from sim.decode.peaks import shipped_name
from sim.decode.quiet import Quiet
from sim.decode.runtime import assemble, build_kernels
from sim.devices import GIB, resolve_device
from sim.errors import UserError
from sim.runner import run
from workloads.machine import Device
from workloads.schema import Costs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from allocators.base import Allocator
    from sim.case import Case
    from sim.decode.model import Decoder
    from sim.engine.telemetry import Sink
    from sim.serve import Progress
    from sim.setup import Setup
    from workloads.requests import Requests
    from workloads.schema import Workload

NOT_REAL = dict.fromkeys(
    ("page_map_s", "page_unmap_s", "small_page_map_s", "small_page_doubling_s", "small_page_unmap_s"), 0.0
)
"""Costs of what a real run does not do: its pages are blocks of one tensor, which nobody maps."""
AS_CALIBRATED: Mapping[str, float] = MappingProxyType({})
"""Coefficients of a machine of which nothing is known."""
FACTORS = tuple((1 + MACHINES * np.linspace(-1, 1, 8)).tolist())
"""What steps take in other simulations, in times of what the calibration says."""


def calibration_of(workload: Workload, device: str, dtype: str, asked: str | None = None) -> str | None:
    """Find the calibration that a simulation is to be judged with.

    Args:
        workload: may name one itself, which is heeded only on the device that it was measured on.
        device: what the device calls itself.
        dtype: number format of the model.
        asked: a shipped name or a file, if the user names one.

    Returns:
        its name or file; None if nobody names one and none is shipped for this model on this device.

    Raises:
        UserError: the one asked for is not there.

    """
    if asked is not None:
        find_calibration(asked)
        return asked
    shipped, own = shipped_name(device), workload.costs.calibration
    if own is not None and load_origin(find_calibration(own)).foretells(device, shipped):
        return own
    return None if shipped is None else shipped_for(workload.model.name, shipped, dtype)


def simulate(
    workload: Workload,
    out: Path,
    calibration: str | None,
    base: Path | None,
    machine: Mapping[str, float] = AS_CALIBRATED,
) -> None:
    """Run the simulation of a workload that is also run for real.

    Its steps take as long as on the device that the calibration was measured on, whatever device the workload names,
    but for the coefficients that are measured on this `machine`; memory is the workload's, as in the real run.
    """
    costs: dict[str, object] = {**NOT_REAL, **machine, **workload.costs.factors}
    changes: dict[str, object] = {}
    if calibration is not None:
        path = find_calibration(calibration)
        costs["calibration"] = str(path)
        changes["device"] = moved_to(load_origin(path).described, workload.device)
    run(workload.model_copy(update={"costs": Costs.model_validate(costs), **changes}), out, base=base, force=True)


def with_reach(timing: Timing, workload: Workload, base: Path | None) -> Timing:
    """Simulate a workload again with steps that take less or more time, if step times were predicted at all."""
    if timing.calibration is None:
        return timing
    with TemporaryDirectory() as scratch:
        others = [Path(scratch, f"{factor:.3f}") for factor in FACTORS]
        for factor, other in zip(FACTORS, others, strict=True):
            usual = {**timing.machine, **workload.costs.factors}.get("step_factor", 1.0)
            costs = workload.costs.model_copy(update={"step_factor": usual * factor})
            simulate(workload.model_copy(update={"costs": costs}), other, timing.calibration, base, timing.machine)
        return with_others(timing, others)


def moved_to(described: Mapping[str, Any], device: Device) -> Device:
    """Return a device as fast as the one `described` and with the memory of `device`."""
    memory = resolve_device(device.model_dump(exclude_none=True)).memory_bytes / GIB
    return Device.model_validate({**described, "memory_gib": memory, "kv_memory_gib": device.kv_memory_gib})


def serve(
    decoder: Decoder,
    workload: Workload,
    out: Path,
    *,
    backend: str,
    base: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Run a workload for real, unwatched, into a run directory.

    Args:
        decoder: the model.
        workload: what to run.
        out: the directory.
        backend: attends, where there are blocks.
        base: folder that the workload's relative files start from.
        facts: what else the manifest shall say.
        progress: called now and then.

    A run that the device has no room for ends early; that shows in the requests it has finished.
    """

    @contextmanager
    def executing(
        _: Setup, case: Case, requests: Requests, allocator: Allocator, sink: Sink
    ) -> Iterator[tuple[TorchExecutor, Sink]]:
        swap = case.preemption == "swap"
        with as_served():
            runtime = assemble(
                decoder, case, allocator, requests, seed=workload.seed, backend=backend, swap=swap, metered=False
            )
            if runtime.padded is not None:
                runtime.padded.rehearse()
            with suppress(OutOfMemoryError):
                yield runtime.executor, Hindsight(sink, runtime.executor.errors)

    unseen = {"telemetry": workload.telemetry.model_copy(update={"blocks": "off"})}  # looking takes the host a while
    run(
        workload.model_copy(update=unseen),
        out,
        base=base,
        force=True,
        progress=progress,
        executing=executing,
        facts=facts,
    )


def compare(measured: Path, simulated: Path, calibration: str | None) -> Timing:
    """Compare the two run directories of a workload.

    Allocators that keep no blocks are judged only where the calibration has measured their steps.
    """
    unjudged: list[str] = []
    if calibration is not None:
        fitted = set(fitted_in(find_calibration(calibration)))
        kinds = {run.label: find(str(run.facts["kind"])) for run in open_directory(measured).runs}
        unjudged = [
            label
            for label, kind in kinds.items()
            if (kind.concatenates and "separate_launch_layer_s" not in fitted)
            or (kind.recomputes and "recompute_launch_layer_s" not in fitted)
        ]
    return Timing(calibration, timed(measured, simulated, unjudged))


def timed_part(
    decoder: Decoder,
    workload: Workload,
    out: Path,
    *,
    backend: str,
    calibration: str | None,
    served: bool,
    base: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Timing:
    """Do the timed part of a validation.

    Args:
        decoder: the model.
        workload: what to run.
        out: folder of the validation.
        backend: attends, where there are blocks.
        calibration: what the simulation's step times come from.
        served: whether the run in `measured` will do: on a CPU nothing runs ahead, watched or not.
        base: folder that the workload's relative files start from.
        facts: what else the manifest shall say.
        progress: called now and then.

    """
    measured, simulated = out / ("measured" if served else "timed"), out / "predicted"
    if served:
        simulate(workload, simulated, calibration, base)
        return with_reach(compare(measured, simulated, calibration), workload, base)
    build_kernels(backend, decoder.geometry)
    quiet = Quiet()
    machine = on_this_machine(decoder, workload, calibration, quiet, backend=backend, base=base)
    simulate(workload, simulated, calibration, base, machine)
    with quiet.watched() as watch:
        serve(decoder, workload, measured, backend=backend, base=base, facts=facts, progress=progress)
    timing = replace(compare(measured, simulated, calibration), held_up=(watch.share,), machine=machine)
    return with_reach(timing, workload, base)


def on_this_machine(
    decoder: Decoder,
    workload: Workload,
    calibration: str | None,
    quiet: Quiet,
    *,
    backend: str,
    base: Path | None = None,
) -> Mapping[str, float]:
    """Return coefficients of this machine in place of the calibration's, measured on a quiet core.

    None, with a warning, where the device has no room for what is measured, though it may have for the workload.
    """
    if calibration is None:
        return AS_CALIBRATED
    path = find_calibration(calibration)
    try:
        with quiet.watched():
            return factors_of(decoder, workload, path, backend=backend, base=base)
    except UserError as error:
        warnings.warn(f"this machine is taken to be as fast as the calibrated one: {error}", stacklevel=2)
        return AS_CALIBRATED
