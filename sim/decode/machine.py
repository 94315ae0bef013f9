"""How fast this machine is, beside the one on which a calibration was measured.

Machines with the same device differ: steps take a few percent less or more, and what the host does for each step tens
of percent.  So before times are predicted for a real run, some of the calibration's captured decodes are measured
again, in the same way, and a short run tells what the host takes for a step.  The workload to be predicted has no part
in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.costs.calibration import described, load_calibration
from sim.costs.shapes import Shapes
from sim.decode.device import as_served, name_of, release
from sim.decode.rehearsal import prefill_host_s
from sim.decode.stage import Stage
from sim.decode.testbed import EXTENTS, engine_for, rehearsal
from sim.setup import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from sim.costs.captured import CapturedStep
    from sim.decode.model import Decoder

SEATS = 64
"""Most decodes of a step that is measured again."""


def factors_of(
    decoder: Decoder, model: str, calibration: Path, *, backend: str, base: Path | None = None
) -> dict[str, float]:
    """Measure the machine.

    Args:
        decoder: the model.
        model: its name, as in a workload.
        calibration: what is to predict its times.
        backend: attends.
        base: folder that relative paths start from.

    Returns:
        coefficients that are other than the calibration says: `step_factor`, the median ratio of what the decodes take,
        and `prefill_host_s`.  None of them where the calibration has no captured steps, or is of another device.

    """
    known = load_calibration(calibration)
    if decoder.device.type != "cuda" or not known.captured or known.measured_on != name_of(decoder.device):
        return {}
    geometry = decoder.geometry
    extent = EXTENTS["cuda"]
    extent = extent._replace(longest=min(extent.longest, geometry.max_model_len))
    words = described(known.device, known.peaks)
    setup = prepare(engine_for(model, geometry.model.dtype, words, "paged", extent), base)
    with as_served():
        stage = Stage(
            decoder, setup, backend=backend, longest=extent.longest, seats=SEATS, shapes=Shapes(SEATS, tokens=0)
        )
        ratio = slower(known.captured, stage.captured(extent.longest))
        del stage
        release(decoder.device)
        host = prefill_host_s(decoder, rehearsal(setup.workload), backend)
    return {"step_factor": ratio * known.coefficients.step_factor, "prefill_host_s": host}


def slower(before: tuple[CapturedStep, ...], now: list[CapturedStep]) -> float:
    """Return how many times as long steps take now, in the median of those that were measured before; 1 if none was."""
    known = {step._replace(seconds=0.0): step.seconds for step in before}
    ratios = [
        step.seconds / known[same] for step in now if not step.chunks and (same := step._replace(seconds=0.0)) in known
    ]
    return float(np.median(ratios)) if ratios else 1.0
