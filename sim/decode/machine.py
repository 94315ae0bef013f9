"""How fast this machine is, beside the one on which a calibration was measured.

Machines with the same device differ: decodes, which wait for memory, take a few percent less or more, prefills, which
compute, do so on others, and what the host does for each step takes tens of percent more or less.  So before times are
predicted for a real run, some of the calibration's captured steps are measured again, in the same way, and a short run
tells what the host takes for a step.  The workload to be predicted has no part in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.costs.calibration import described, load_calibration
from sim.costs.load import Load
from sim.costs.shapes import Shapes, captured_tokens
from sim.decode.device import as_served, name_of, release
from sim.decode.rehearsal import prefill_host_s
from sim.decode.stage import Stage
from sim.decode.testbed import EXTENTS, engine_for, rehearsal
from sim.setup import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from sim.costs.captured import CapturedStep
    from sim.decode.model import Decoder

SEATS = 16
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
        coefficients in place of the calibration's: `step_factor` and `compute_factor`, from the median ratios of what
        decodes and prefills take, and `prefill_host_s`.  None where the calibration has no captured steps, or is of
        another device.

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
        shapes = Shapes(SEATS, captured_tokens(geometry))
        stage = Stage(decoder, setup, backend=backend, longest=extent.longest, seats=SEATS, shapes=shapes)
        now = stage.captured(extent.longest)
        computing = [step for step in now if stage.cost.heats(Load(step.tokens, decode_seqs=step.decodes))]
        decodes = slower(known.captured, [step for step in now if not step.tokens])
        prefills = slower(known.captured, computing)
        del stage
        release(decoder.device)
        host = prefill_host_s(decoder, rehearsal(setup.workload), backend)
    return {"step_factor": decodes, "compute_factor": prefills / decodes, "prefill_host_s": host}


def slower(before: tuple[CapturedStep, ...], now: list[CapturedStep]) -> float:
    """Return how many times as long steps take now, in the median of those that were measured before; 1 if none was."""
    known = {step._replace(seconds=0.0): step.seconds for step in before}
    ratios = [step.seconds / known[same] for step in now if (same := step._replace(seconds=0.0)) in known]
    return float(np.median(ratios)) if ratios else 1.0
