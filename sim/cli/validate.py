"""`validate`: a workload served for real, beside its simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sim.cli.output import terminal
from sim.cli.progress import shown
from sim.cli.run import folder_for
from sim.cli.source import Changes
from sim.decode import main_validate


def validate(
    file: str,
    /,
    *,
    out: Path | None = None,
    device: str = "auto",
    backend: Literal["torch", "flashinfer"] | None = None,
    part: Literal["exact", "timed"] | None = None,
    calibration: str | None = None,
    changes: Changes = Changes(),
    force: bool = False,
    quiet: bool = False,
    json: bool = False,
) -> int:
    """Serve a workload on a real model with the simulator's own block tables, and compare with its simulation.

    Exit status 1 if anything differs: tokens, decisions, memory, or times by more than the tolerances. Times are
    judged where there is a calibration for the device; elsewhere they are only reported.
    Needs: pip install torch transformers safetensors

    Args:
        file: Workload file, or the name of a preset.
        out: Directory to write; runs/NAME-validated if not given, NAME being the workload's.
        device: auto, cpu, cuda or cuda:N.
        backend: Attention; FlashInfer where it can be used if not given.
        part: Only the exact part (tokens, decisions, memory) or only the timed one.
        calibration: What simulated times come from: a shipped name or a file that `calibrate` wrote; the one shipped
            for the model on this device if not given.
        changes: As of every command that takes a workload file.
        force: Replace results of something else in the directory; without it they are left alone.
        quiet: Show no progress.
        json: Print one JSON document instead of the table.

    """
    workload, base = changes.read(file)
    folder = out or folder_for(workload.name, "-validated")
    with changes.placed(file), shown(1, quiet=quiet) as progress:
        console = terminal()
        return main_validate(
            workload,
            folder,
            console,
            device=device,
            backend=backend,
            base=base,
            part=part,
            calibration=calibration,
            force=force,
            as_json=json,
            progress=progress,
        )
