"""Fitting the cost model to measured steps: robust least squares on the relative error.

What the measurements do not determine is not fitted.  On one model an overhead a layer cannot
be told from one a step, so `layer_overhead_s` is 0 and `step_overhead_s` carries both; attention
through a block table is what is measured, so there is nothing on top of it; and a coefficient
that changes no measured step (swaps where none was measured) keeps its default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sim.coefficients import Coefficients
from sim.cost import CostModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from sim.calibration import Point
    from sim.devices import Device
    from sim.models.geometry import Geometry

    Floats = npt.NDArray[np.float64]

EFFICIENCIES = (1e-4, 2.0)
"""Where a share of a peak is looked for: caches can make small reads faster than the memory's peak."""
TRIES = 60
"""Evaluations a search may take."""
STARTS = 5
"""Searches from different places; the best counts, as the roofline's corners make local ones."""
PRIOR = 0.003
"""Relative error that an efficiency e times its default is worth.  It settles what the points leave open: on one model
the time to read the weights is nearly as constant as an overhead."""
NUDGE = 1e-3
"""Step of numerical derivatives, in the logarithm of a coefficient: times come in whole nanoseconds."""
NOTHING = 1e-9
"""Overheads less than a few of these are none: in seconds, or as a share."""
NOISE = 0.02
"""Relative error above which a point counts less than its square: timings have outliers."""
FITTED = (
    "memory_efficiency",
    "compute_efficiency",
    "overlap_loss",
    "attention_memory_efficiency",
    "attention_compute_efficiency",
    "step_overhead_s",
    "sequence_overhead_s",
    "launch_layer_s",
    "sequence_layer_overhead_s",
    "copy_efficiency",
    "pcie_efficiency",
    "transfer_overhead_s",
)
"""Coefficients that measured steps of one model on one GPU can determine, if they contain such work."""
HELD = {"layer_overhead_s": 0.0, "paged_attention_overhead": 0.0}
"""Coefficients that others carry (see above)."""


@dataclass(frozen=True)
class Fit:
    """The outcome."""

    coefficients: Coefficients
    fitted: tuple[str, ...]
    """Names of those that the points determine."""
    seconds: tuple[float, ...]
    """What the cost model says of each point."""


def fit(points: Sequence[Point], geometry: Geometry, device: Device) -> Fit:
    """Fit the cost model's coefficients to measured steps.

    Args:
        points: what was measured.
        geometry: of the model.
        device: whose peaks the efficiencies are shares of.

    Raises:
        ValueError: there are no points.

    """
    from scipy.optimize import least_squares  # noqa: PLC0415  takes half a second, and only fitting needs it

    if not points:
        raise ValueError("no points to fit")
    measured = np.array([point.measured_s for point in points])
    shortest = min((point.measured_s for point in points if point.load.prefill_tokens), default=0.0)
    start = replace(
        Coefficients(),
        **HELD,
        step_overhead_s=float(measured.min()) / 2,
        launch_layer_s=(0.95 * shortest - float(measured.min()) / 2) / geometry.layers if shortest else 0.0,
    )

    def predicted(coefficients: Coefficients) -> Floats:
        return seconds(points, geometry, device, coefficients)

    names = [name for name in FITTED if _matters(name, start, predicted)]
    low, high = np.array([_bounds(name) for name in names]).T
    first = np.log([max(getattr(start, name), NOTHING * 1e3) for name in names])

    def coefficients(x: Floats) -> Coefficients:
        return replace(start, **dict(zip(names, np.exp(x).tolist(), strict=True)))

    def errors(x: Floats) -> Floats:
        relative: Floats = predicted(coefficients(x)) / measured - 1
        return np.concatenate([relative, PRIOR * (x - first)[efficiencies]])

    def slopes(x: Floats) -> Floats:
        here = errors(x)
        return np.stack([(errors(x + nudge) - here) / NUDGE for nudge in NUDGE * np.eye(len(x))], axis=1)

    efficiencies = np.array([name.endswith("_efficiency") for name in names])
    rng = np.random.default_rng(0)
    found = []
    for attempt in range(STARTS):
        x0 = first + (rng.normal(0, 0.5, len(first)) if attempt else 0)
        x0 = np.clip(x0, low + 1e-9, high - 1e-9)
        options = {"loss": "soft_l1", "f_scale": NOISE, "jac": slopes, "max_nfev": TRIES}
        found.append(least_squares(errors, x0, bounds=(low, high), **options))
    best = coefficients(min(found, key=lambda result: float(result.cost)).x)
    best = replace(best, **{name: 0.0 for name in names if getattr(best, name) < 5 * NOTHING})
    return Fit(best, tuple(names), tuple(predicted(best).tolist()))


def seconds(points: Sequence[Point], geometry: Geometry, device: Device, coefficients: Coefficients) -> Floats:
    """Say what the cost model makes of each point: float64[points], seconds."""
    models = {
        separate: CostModel(geometry, device, coefficients, separate=separate)
        for separate in {point.route != "blocks" for point in points}
    }
    return np.array([models[point.route != "blocks"].step_ns(point.load) / 1e9 for point in points])


def _matters(name: str, start: Coefficients, predicted: Callable[[Coefficients], Floats]) -> bool:
    """Whether a coefficient changes any prediction: it is made worse a hundredfold, as it may hide behind a maximum."""
    value = getattr(start, name)
    worse = value / 100 if name.endswith("_efficiency") else value * 100 + 1e-3
    changed = predicted(replace(start, **{name: worse}))
    return bool(np.any(np.abs(changed / predicted(start) - 1) > 1e-4))


def _bounds(name: str) -> tuple[float, float]:
    """Bounds of a coefficient's logarithm."""
    if name.endswith("_efficiency"):
        return math.log(EFFICIENCIES[0]), math.log(EFFICIENCIES[1])
    return math.log(NOTHING), 0.0
