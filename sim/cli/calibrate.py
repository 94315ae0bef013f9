"""`calibrate`: step times measured on a device, and the cost model fitted to them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from sim.cli.output import Terminal, add, emit, lay_out, listing, terminal
from sim.cli.progress import bars
from sim.costs.calibration import SECONDS, Calibration, load_calibration, sureness
from sim.costs.calibration_text import save_calibration
from sim.decode import demand_extras
from sim.errors import UserError
from sim.results.claims import demand_new, unused


def calibrate(
    *,
    model: str | None = None,
    dtype: Literal["fp32", "fp16", "bf16"] | None = None,
    device: str = "auto",
    backend: Literal["torch", "flashinfer"] | None = None,
    out: Path | None = None,
    seconds: float = SECONDS,
    refit: Path | None = None,
    force: bool = False,
    quiet: bool = False,
    json: bool = False,
) -> None:
    """Measure steps of a model on a device and fit the cost model to them.

    A workload uses the file that is written as costs: {calibration: FILE}.
    Needs: pip install torch transformers safetensors

    Args:
        model: A shipped geometry, or the path of a config.json or of a checkpoint.
        dtype: Number format instead of the geometry's.
        device: auto, cpu, cuda or cuda:N.
        backend: Attention; FlashInfer where it can be used if not given.
        out: File to write; DEVICE-MODEL.toml if not given, with a number where there is one.
        seconds: What the measurements may take, without loading, warming up and the least number of repeats.
        refit: Measure nothing; fit the steps of an earlier calibration file again, and write it.
        force: Replace the file to write; without it one that exists is left alone.
        quiet: Show no progress.
        json: Print one JSON document instead of the table.

    """
    if (model is None) == (refit is None):
        raise UserError("calibrate: give either --model, to measure, or --refit, to fit an earlier file again")
    if not 0 <= seconds < math.inf:
        raise UserError(f"--seconds {seconds:g}: give seconds to measure, at least 0")
    if out is not None:
        if not force:
            demand_new(out, forced_by="--force to replace it")
        out.parent.mkdir(parents=True, exist_ok=True)  # or fail before anything is measured
    demand_extras()
    from sim.decode.calibrate import fit_again  # noqa: PLC0415  torch takes seconds, and may be missing

    if refit is not None:
        found = fit_again(load_calibration(refit))
        path = out or refit
    else:
        found = _measured(str(model), dtype, device, backend, seconds, quiet=quiet)
        path = out or unused(Path(f"{found.name}.toml"))
    save_calibration(found, path)
    if json:
        emit(document(found, path))
    else:
        show(found, path, terminal())


def _measured(
    model: str, dtype: str | None, device: str, backend: str | None, seconds: float, *, quiet: bool
) -> Calibration:
    from sim.decode.calibrate import calibrate  # noqa: PLC0415  as above
    from sim.decode.testbed import Progress  # noqa: PLC0415  as above

    with bars(terminal(stderr=True), quiet=quiet) as rows:
        task = rows.add_task("loading", total=None)

        def report(progress: Progress) -> None:
            rows.update(task, description=progress.name, completed=progress.done, total=progress.total)

        return calibrate(model, dtype=dtype, device=device, backend=backend, seconds=seconds, progress=report)


def document(found: Calibration, path: Path) -> dict[str, object]:
    """Return a calibration as plain data."""
    return {
        "file": str(path),
        "model": found.model,
        "dtype": found.dtype,
        "device": found.device,
        "measured_on": found.measured_on,
        "date": found.date,
        "coefficients": {name: getattr(found.coefficients, name) for name in found.fitted},
        "uncertain": {
            name: error if math.isfinite(error) else None
            for name, error in zip(found.fitted, found.uncertain, strict=True)
        },
        "errors": found.errors(),
        "captured_steps": len(found.captured),
        "steps": [
            {"name": point.name, "measured_s": point.measured_s, "fitted_s": fit, "spread": point.spread}
            for point, fit in zip(found.points, found.fitted_s, strict=True)
        ],
    }


def show(found: Calibration, path: Path, console: Terminal) -> None:
    """Print every step beside its fit, then the coefficients, then how good the fit is."""
    numbers = {"measured": "measured\nms", "spread": "spread", "fitted": "fitted\nms", "residual": "residual"}
    steps = listing({"step": "step", **numbers}, numbers)
    for point, fit, residual in zip(found.points, found.fitted_s, found.residuals, strict=True):
        cells = f"{point.measured_s * 1e3:.3f}", f"{point.spread:.1%}", f"{fit * 1e3:.3f}", f"{residual:+.1%}"
        add(steps, point.name, *cells)
    lay_out(console, steps)
    columns = {"coefficient": "coefficient", "value": "value", "sure": "standard error", "is": "what it is"}
    values = listing(columns, {"value"})
    for name, error in zip(found.fitted, found.uncertain, strict=True):
        value = f"{getattr(found.coefficients, name):.4g}"
        add(values, name, value, sureness(error), found.coefficients.meaning(name))
    lay_out(console, values)
    errors = found.errors()
    console.print(
        f"{found.model} in {found.dtype} on {found.measured_on}, attention by {found.backend}: "
        f"{len(found.points)} steps fitted with a median error of {errors['median']:.1%}, "
        f"90 % of them within {errors['p90']:.1%}, all within {errors['largest']:.1%}",
        markup=False,
    )
    if found.captured:
        console.say(
            f"{len(found.captured)} steps of captured shapes besides: for this model on this device these are looked "
            "up, and coefficients count for all others"
        )
    console.say(f"Written: {path}")
