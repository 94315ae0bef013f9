"""Calibration: a grid of steps measured on a device, and the cost model fitted to them."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sim.costs.calibration import SECONDS, Calibration, Point, described
from sim.costs.fit import fit
from sim.costs.load import Load
from sim.costs.power import NAMES, Series, fit_power
from sim.costs.shapes import Shapes, captured_tokens
from sim.decode.device import as_served, demand_memory, name_of, release, resolve
from sim.decode.model import load, supported
from sim.decode.peaks import peaks_of, shipped_name
from sim.decode.quiet import CALM, Quiet
from sim.decode.rehearsal import prefill_host_s
from sim.decode.runtime import build_kernels, choose_backend
from sim.decode.series import series
from sim.decode.stage import Stage
from sim.decode.testbed import EXTENTS, Progress, engine_for, measured, rehearsal, scenes_of
from sim.decode.versions import versions
from sim.devices import resolve_device
from sim.models.geometry import resolve_model
from sim.setup import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch

    from sim.costs.captured import CapturedStep
    from sim.decode.model import Decoder
    from sim.setup import Setup

FACTS = ("captured_tokens", *NAMES)
"""Coefficients that steps of the grid do not determine, but that matter to them."""
SEPARATE = ("growing", "no-cache")
"""Allocators without blocks."""
SMALL = 1
"""Token slots of the small blocks that decodes are measured with as well ..."""
SMALL_SEATS = (1, 8, 32, 64)
"""... of so many sequences."""


def calibrate(
    model: str,
    *,
    dtype: str | None = None,
    device: str = "auto",
    backend: str | None = None,
    base: Path | None = None,
    seconds: float = SECONDS,
    progress: Callable[[Progress], None] | None = None,
) -> Calibration:
    """Measure the grid on a device and fit the cost model.

    Args:
        model: a shipped geometry, or the path of a config.json or of a checkpoint.
        dtype: number format in place of the geometry's.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        backend: `torch` or `flashinfer`; FlashInfer where it can be used if not given.
        base: folder that relative paths start from.
        seconds: what measuring may take, start aside.
        progress: called before each step.

    Raises:
        UserError: it cannot run here; said before anything is allocated on the device.

    """
    where, made_with = resolve(device), versions()
    named = shipped_name(name_of(where)) if where.type == "cuda" else None
    peaks: dict[str, float] = {} if named else peaks_of(where)
    words: dict[str, Any] = {"name": named} if named else dict(peaks)
    extent = EXTENTS[where.type]
    usual, *separate = [prepare(engine_for(model, dtype, words, kind, extent), base) for kind in ("paged", *SEPARATE)]
    small = prepare(engine_for(model, dtype, words, "paged", extent, block_size=SMALL), base)
    geometry, pool = usual.geometry, usual.cases[0].pool
    extent = extent._replace(longest=min(extent.longest, geometry.max_model_len))
    supported(model, geometry, base)
    attends = choose_backend(backend, geometry, where)
    sizes = {"weights": pool.weight_bytes, "the KV pool": pool.kv_bytes, "activations": pool.activation_bytes}
    demand_memory(where, sizes)
    decoder = load(model, geometry, where, base=base, seed=0)
    build_kernels(attends, geometry)
    points: list[Point] = []
    steps: list[CapturedStep] = []
    rows: list[Series] = []
    facts: dict[str, float] = {}
    host = 0.0
    with _host(where), as_served():  # as in the runs that are to be foretold
        for number, setup in enumerate((usual, *separate)):
            release(decoder.device)
            stage = Stage(decoder, setup, backend=attends, longest=extent.longest, seats=extent.seats)
            points += measured(stage, scenes_of(stage, extent), seconds * (0.2 if number else 0.6), progress)
            if geometry.window is None:  # what a window reads of a context is not in the tables
                steps += stage.captured(extent.longest)
                rows += series(stage, extent, captured_tokens(geometry), progress) if steps and not number else []
            del stage
        if steps:
            if progress is not None:
                progress(Progress(f"decodes in blocks of {SMALL}", 0, 1))
            points += _small_blocks(decoder, small, attends, extent.longest)
        if where.type == "cuda" and attends == "flashinfer":
            facts["captured_tokens"] = float(captured_tokens(geometry))
            host = prefill_host_s(decoder, rehearsal(usual.workload), attends)
    if rows:
        facts |= fit_power(rows)
    found = fit(points, geometry, resolve_device(words), facts=facts, captured=steps)
    return Calibration(
        model=geometry.name,
        dtype=geometry.model.dtype,
        device=named or "custom",
        peaks=peaks,
        measured_on=name_of(where),
        backend=attends,
        versions=made_with,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        coefficients=replace(found.coefficients, prefill_host_s=host),
        fitted=found.fitted,
        points=tuple(points),
        fitted_s=found.seconds,
        parameters=geometry.parameters,
        captured=tuple(steps),
        series=tuple(rows),
        uncertain=found.uncertain,
    )


def fit_again(calibration: Calibration) -> Calibration:
    """Fit the measurements of a calibration anew: after the cost model has changed, say."""
    device = resolve_device(described(calibration.device, calibration.peaks))
    geometry = resolve_model({"name": calibration.model, "dtype": calibration.dtype})
    before = calibration.coefficients
    facts = {name: getattr(before, name) for name in FACTS}
    if calibration.series:
        facts |= fit_power(calibration.series)
    found = fit(calibration.points, geometry, device, facts=facts, captured=calibration.captured)
    return replace(
        calibration,
        coefficients=replace(found.coefficients, prefill_host_s=before.prefill_host_s),
        fitted=found.fitted,
        uncertain=found.uncertain,
        fitted_s=found.seconds,
    )


@contextmanager
def _host(device: torch.device) -> Iterator[None]:
    """Keep to the quietest core where steps are launched for a GPU, and warn if others were at work on it after all."""
    if device.type != "cuda":
        yield
        return
    with Quiet().watched() as watch:
        yield
    if watch.share > CALM:
        warnings.warn(f"others held up the host for {watch.share:.1%} of the time: better measured again", stacklevel=2)


def _small_blocks(decoder: Decoder, setup: Setup, backend: str, longest: int) -> list[Point]:
    """Measure decodes, captured ones, whose K/V lies in small blocks."""
    release(decoder.device)
    shapes = Shapes(max(SMALL_SEATS), 0, decodes=SMALL_SEATS)
    stage = Stage(decoder, setup, backend=backend, longest=longest, seats=max(SMALL_SEATS), shapes=shapes)
    return [
        Point(
            f"decode {count} x {context // count} in blocks of {SMALL}",
            Load(decode_seqs=count, samples=count, decode_context=context, decode_longest=most),
            seconds,
            block_size=SMALL,
        )
        for count, _, _, context, seconds, most, others in stage.captured(longest)
        if context > count and not others
    ]
