"""How fast this machine is, beside the one on which a calibration was measured.

Machines with the same device differ: decodes, which wait for memory, take a few percent less or more, prefills, which
compute, do so on others, the clock of one falls further than that of the next at the same power limit, and what the
host does for each step takes tens of percent more or less.  So before times are predicted for a real run, some of the
calibration's captured steps and its series are measured again, in the same way, and so are steps that are launched
kernel by kernel; a short run tells what the host takes for any other.  The requests to be served have no part in it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from allocators.registry import find
from sim.costs.calibration import described, load_calibration
from sim.costs.captured import factor_of
from sim.costs.fit import fit_launches
from sim.costs.power import fit_power
from sim.costs.products import Products
from sim.costs.shapes import Shapes, captured_tokens
from sim.decode.device import as_served, name_of, release
from sim.decode.grid import launch_scenes
from sim.decode.rehearsal import prefill_host_s
from sim.decode.series import series
from sim.decode.stage import Stage
from sim.decode.testbed import EXTENTS, engine_for, measured, rehearsal, scenes_of
from sim.devices import resolve_device
from sim.setup import prepare, route_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sim.costs.captured import CapturedStep
    from sim.decode.grid import Extent
    from sim.decode.model import Decoder
    from sim.setup import Setup
    from workloads.schema import Workload

SEATS = 16
"""Most decodes of a step that is measured again with every number of prompt tokens ..."""
MANY_SEATS, MANY_TOKENS = (128, 256), 64
"""... and those that are measured with so many at most."""
BLOCKS_S = 1.0
"""Seconds for steps over blocks that are launched kernel by kernel."""
LAUNCHED_SEATS = 64
"""Room for decodes where there are no blocks: the grid has a quarter of them at most ..."""
LAUNCHED_S = 8.0
"""... and takes so many seconds for each allocator, as a host's speed varies from one to the next."""


def factors_of(
    decoder: Decoder, workload: Workload, calibration: Path, *, backend: str, base: Path | None = None
) -> dict[str, float]:
    """Measure the machine.

    Args:
        decoder: the model.
        workload: names it, and the allocators; its requests are not looked at.
        calibration: what is to predict its times.
        backend: attends.
        base: folder that relative paths start from.

    Returns:
        coefficients in place of the calibration's: `step_factor`, `wide_factor`, `many_factor` and `compute_factor`,
        from the median ratios of what few decodes, short prompts, many decodes and long prompts take,
        `prefill_host_s`, those of the power limit (`sim.costs.power.NAMES`), and those of launches
        (`sim.costs.fit.LAUNCHES`).  None where the calibration has no captured steps, or is of another device.

    """
    known = load_calibration(calibration)
    if decoder.device.type != "cuda" or not known.captured or known.measured_on != name_of(decoder.device):
        return {}
    geometry = decoder.geometry
    extent = EXTENTS["cuda"]
    extent = extent._replace(longest=min(extent.longest, geometry.max_model_len))
    words = described(known.device, known.peaks)

    def prepared(kind: str, extent: Extent) -> Setup:
        return prepare(engine_for(workload.model.name, geometry.model.dtype, words, kind, extent), base)

    usual = prepared("paged", extent)
    with as_served():
        shapes = Shapes(SEATS, captured_tokens(geometry))
        stage = Stage(decoder, usual, backend=backend, longest=extent.longest, seats=SEATS, shapes=shapes)
        now = stage.captured(extent.longest)
        points = list(measured(stage, launch_scenes(extent), BLOCKS_S))
        limit = fit_power(series(stage, extent, captured_tokens(geometry)))
        del stage
        release(decoder.device)
        shapes, most = Shapes(max(MANY_SEATS), MANY_TOKENS, decodes=MANY_SEATS), max(MANY_SEATS)
        stage = Stage(decoder, usual, backend=backend, longest=extent.longest, seats=most, shapes=shapes)
        now += stage.captured(extent.longest)
        del stage
        release(decoder.device)
        bound = Products(geometry, usual.device, known.coefficients).bound
        found = differing(known.captured, now, bound) | limit
        found["prefill_host_s"] = prefill_host_s(decoder, rehearsal(usual.workload), backend)
        few = extent._replace(seats=LAUNCHED_SEATS)
        for kind in launching(workload):
            release(decoder.device)
            stage = Stage(decoder, prepared(kind, few), backend=backend, longest=few.longest, seats=few.seats)
            points += measured(stage, scenes_of(stage, few), LAUNCHED_S)
            del stage
    if points:
        now_known = replace(known.coefficients, **found)
        found |= fit_launches(points, geometry, resolve_device(words), now_known, known.captured)
    return found


def launching(workload: Workload) -> list[str]:
    """Return the kinds of a workload's allocators without blocks, whose steps are launched kernel by kernel."""
    return sorted({spec.kind for spec in workload.allocators if route_of(find(spec.kind)) != "blocks"})


def differing(before: Sequence[CapturedStep], now: Sequence[CapturedStep], bound: float) -> dict[str, float]:
    """Return the coefficients of a machine that replays some steps not as fast as they were `before`.

    Args:
        before: as calibrated.
        now: steps, some of which are among these but for their times.
        bound: tokens from which a step is bound by compute.

    """
    alike: dict[str | None, list[CapturedStep]] = defaultdict(list)
    for step in now:
        alike[factor_of(step, bound)].append(step)
    narrow = slower(before, alike[None])
    others = ("wide_factor", "many_factor", "compute_factor")
    return {"step_factor": narrow, **{name: slower(before, alike[name], narrow) / narrow for name in others}}


def slower(before: Sequence[CapturedStep], now: Sequence[CapturedStep], usual: float = 1.0) -> float:
    """Return how many times as long steps take now, in the median of those that were measured before; else `usual`."""
    known = {step._replace(seconds=0.0): step.seconds for step in before}
    ratios = [step.seconds / known[same] for step in now if (same := step._replace(seconds=0.0)) in known]
    return float(np.median(ratios)) if ratios else usual
