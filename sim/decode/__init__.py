"""Real decode: the simulator's plans and block tables, executed by PyTorch.

Serving loop, schedulers, allocators and telemetry are those of the simulation; only the executor
differs.  It runs each plan through a Hugging Face model whose attention reads and writes K/V
through the allocator's own block table, and the time that takes advances the clock.

No other package imports torch and transformers, and here only the modules do: importing
`sim.decode` itself costs nothing and works without them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from sim.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import Console

    from sim.serve import Progress
    from workloads.schema import Workload


TORCH = ("torch", "transformers", "safetensors")


def demand_extras() -> None:
    """Raise UserError unless what real decode needs can be imported."""
    missing = [name for name in TORCH if find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed; real decode needs: pip install {' '.join(TORCH)}")


def main_validate(
    workload: Workload,
    out: Path,
    console: Console,
    *,
    device: str = "auto",
    backend: str | None = None,
    base: Path | None = None,
    part: Literal["exact", "timed"] | None = None,
    calibration: str | None = None,
    force: bool = False,
    as_json: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> int:
    """Validate a workload, write validation.json and its pages, and print what was found.

    Args:
        workload: what to run.
        out: folder to write.
        console: takes a table, or with `as_json` the content of validation.json and nothing else.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        backend: `torch` or `flashinfer`; FlashInfer where it can be used if not given.
        base: folder that the workload's relative files start from.
        part: only that part.
        calibration: what simulated times come from (see `sim.decode.validate`).
        force: whether results of another workload or device in `out` give way.
        as_json: print one JSON document.
        progress: called now and then.

    Returns:
        the exit status: 0, or 1 where the real run and the simulation differ, in time by more than is allowed.

    Raises:
        UserError: it cannot run here; said before anything is allocated on the device.

    """
    demand_extras()
    from analysis.report import write_joint_report  # noqa: PLC0415  (start-up time of other commands)
    from analysis.validation import write_validation  # noqa: PLC0415  (start-up time of other commands)
    from sim.decode.show import show  # noqa: PLC0415  (start-up time of other commands)
    from sim.decode.validate import PARTS, validate  # noqa: PLC0415  torch takes seconds, and may be missing

    parts = PARTS if part is None else (part,)
    result = validate(
        workload,
        out,
        device=device,
        backend=backend,
        base=base,
        parts=parts,
        calibration=calibration,
        force=force,
        progress=progress,
    )
    pairs = ("measured", "simulated") if "exact" in parts else ("timed", "predicted")
    write_joint_report([out / name for name in pairs], out / "together.html")
    write_validation(out)
    if as_json:
        console.print_json(data=result.as_json(), indent=2)
    else:
        show(result, console)
        console.print(
            f"Written to {out}/: validation.json, validation.html, together.html", markup=False, soft_wrap=True
        )
    return 0 if result.passed else 1
