"""Validation: a workload run for real, and everything that must agree with its simulation.

The exact part compares tokens, decisions and memory (`sim.decode.bench`); an allocator that ran short of
memory and can swap serves the workload twice, so that both kinds of preemption are exercised.  The timed
part compares times (`sim.decode.timed`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from allocators.registry import find
from analysis.validation import NAME
from analysis.written import MANIFEST
from sim.decode.bench import Bench
from sim.decode.device import demand_memory, name_of, release, resolve
from sim.decode.model import load, supported
from sim.decode.numerics import compared
from sim.decode.outcome import Validation
from sim.decode.runtime import choose_backend
from sim.decode.timed import calibration_of, timed_part
from sim.decode.versions import versions
from sim.errors import UserError
from sim.files import digests
from sim.results.claims import changed, earlier, refuse
from sim.results.rundir import write_json
from sim.setup import prepare
from workloads.source import Generated, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import torch

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
    workload = setup.workload
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


def _runnable(workload: Workload) -> tuple[Workload, dict[str, str]]:
    """Take out allocators without a real counterpart."""
    if any(isinstance(source, Generated) and source.beam for source in parts_of(workload.requests)):
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
