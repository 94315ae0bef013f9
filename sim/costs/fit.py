"""Fitting the cost model to measured steps: robust least squares on the relative error.

What the measurements cannot determine is not fitted.  On a single model an overhead per layer cannot be
told from one per step, so `layer_overhead_s` is 0 and `step_overhead_s` carries both; all measured attention
goes through a block table, so nothing is added for that except the effect of blocks of another size than the
usual (`paged_block_overhead`); and a coefficient that changes no measured step (swaps, where none was measured)
keeps its default.  Each fitted coefficient comes with its uncertainty: some affect few steps, or affect them
little except in combination.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from sim.costs.calibration import Point
from sim.costs.captured import CapturedStep, CapturedSteps
from sim.costs.coefficients import Coefficients
from sim.costs.evidence import Evidence, seconds
from sim.costs.load import Load
from sim.costs.minima import NUDGE, deepest, standard_errors
from sim.costs.model import USUAL_BLOCK
from sim.costs.shapes import CHUNKS, Shapes
from sim.costs.splitting import Splitting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from scipy.optimize import OptimizeResult

    from sim.devices import Device
    from sim.models.geometry import Geometry

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

LOWEST = 1e-4
"""Least share of a peak that is looked for."""
HIGHEST = {"shipped": 0.95, "custom": 2.0}
"""The largest: no kernel reaches a datasheet's peak (on an H100 a large copy 0.907 of its bandwidth, large products
0.807 of its FLOP/s), but peaks measured in a moment may be beaten by caches."""
TRIES = 100
"""Evaluations a search may take."""
PRIOR = 0.003
"""Relative error that an efficiency e times its default is worth.  It settles what the points leave open: on one model
the time to read the weights is nearly as constant as an overhead."""
NOTHING = 1e-9
"""Overheads less than a few of these are none: in seconds, or as a share."""
NOISE = 0.02
"""Relative error, and spread of a point's repeats, above which the point counts less: timings have outliers."""
LASTING_NS = 150_000_000
"""Nanoseconds of prefills behind which another one does not count as one of the first."""
STEADY = 0.5
"""Largest spread of a point that a first guess is taken from."""
TOGETHER = (
    "memory_efficiency",
    "compute_efficiency",
    "overlap_loss",
    "attention_memory_efficiency",
    "attention_compute_efficiency",
    "repeated_reads_cached",
    "paged_block_overhead",
    "step_overhead_s",
    "prefill_layer_s",
    "sequence_overhead_s",
    "launch_layer_s",
    "launch_beside_layer_s",
    "launch_lead_s",
)
"""What steps over blocks determine, if they contain such work."""
SWAPS = ("pcie_efficiency", "swap_overhead_s", "transfer_overhead_s")
"""What those of them that swap determine, once all of the above is known: too few to be heard among all the others."""
APART = (
    "separate_launch_layer_s",
    "sequence_launch_layer_s",
    "copy_efficiency",
    "recompute_launch_layer_s",
    "recompute_slowdown",
)
"""What steps without blocks determine, growing tensors the first and no cache the last, once all of the above is
known."""
LAUNCHES = (
    "launch_layer_s",
    "launch_beside_layer_s",
    "launch_lead_s",
    "separate_launch_layer_s",
    "sequence_launch_layer_s",
    "recompute_launch_layer_s",
)
"""Coefficients that the host determines, not the device."""
NOTHING_KNOWN: Mapping[str, float] = MappingProxyType({})
HELD = {"layer_overhead_s": 0.0, "paged_attention_overhead": 0.0}
"""Coefficients that others carry (see above)."""


@dataclass(frozen=True)
class Fit:
    """The outcome."""

    coefficients: Coefficients
    fitted: tuple[str, ...]
    """Names of those that the points determine."""
    uncertain: tuple[float, ...]
    """Relative standard error of each of these, to first order: beyond 1 the points hardly determine it."""
    seconds: tuple[float, ...]
    """What the cost model says of each point."""


def fit(
    points: Sequence[Point],
    geometry: Geometry,
    device: Device,
    *,
    facts: Mapping[str, float] = NOTHING_KNOWN,
    captured: Sequence[CapturedStep] = (),
) -> Fit:
    """Fit the cost model's coefficients to measured steps.

    Args:
        points: what was measured.
        geometry: of the model.
        device: whose peaks the efficiencies are shares of.
        facts: coefficients that are known otherwise, such as `captured_tokens`, and not fitted.
        captured: steps of captured shapes.  Points that are such steps tell nothing but what these leave open; the
            roofline is fitted to them themselves, for a model or a device that is not the same.

    Raises:
        ValueError: there are no points.

    """
    if not points:
        raise ValueError("no points to fit")
    together = [point for point in points if point.route == "blocks"]
    still = [point for point in together if not point.load.transfers]
    swapping = [point for point in together if point.load.transfers]
    apart = [point for point in points if point.route != "blocks"]
    found = replace(Coefficients(), **HELD, **facts)
    uncertain: dict[str, float] = {}
    noise = 0.0
    known = _looked_up(captured, Splitting.of(geometry, device)) if captured else None
    for part, wanted in ((still, TOGETHER), (swapping, SWAPS), (apart, APART)):
        if part:
            evidence = [Evidence.of(part, known)]
            if captured and part is still:
                plain = [_point(step) for step in captured if step.plain]  # merging what was split is no roofline's
                evidence.append(Evidence.of(plain, None))
            guesses = _guesses(part, geometry, found.captured_tokens)
            start = replace(found, **{name: guesses[name] for name in wanted if name in guesses})
            best, errors, noise = _search(evidence, wanted, start, geometry, device, noise)
            found = replace(best, **{name: getattr(found, name) for name in wanted if name not in errors})
            uncertain |= errors
    return Fit(
        found,
        tuple(uncertain),
        tuple(uncertain.values()),
        tuple(seconds(points, geometry, device, found, known).tolist()),
    )


def fit_launches(
    points: Sequence[Point],
    geometry: Geometry,
    device: Device,
    known: Coefficients,
    captured: Sequence[CapturedStep] = (),
) -> dict[str, float]:
    """Fit the launches of steps alone: as those of another host.

    Args:
        points: steps that are launched kernel by kernel, measured there.
        geometry: of the model.
        device: whose peaks the efficiencies are shares of.
        known: all coefficients, from which the search starts too.
        captured: as calibrated.

    Returns:
        those of `LAUNCHES` that are known and that the points determine.

    Raises:
        ValueError: there are no points.

    """
    if not points:
        raise ValueError("no points to fit")
    steps = _looked_up(captured, Splitting.of(geometry, device)) if captured else None
    wanted = [name for name in LAUNCHES if getattr(known, name)]
    best, errors, _ = _search([Evidence.of(points, steps)], wanted, known, geometry, device)
    return {name: getattr(best, name) for name in errors}


def _looked_up(captured: Sequence[CapturedStep], splitting: Splitting) -> CapturedSteps:
    """Look captured steps up in an engine as large as they reach."""
    most, tokens = max(step.decodes for step in captured), max(step.tokens for step in captured)
    return CapturedSteps(Shapes(most, tokens), captured, splitting)


def _point(step: CapturedStep) -> Point:
    """Describe a captured step as any other."""
    decodes, tokens, chunks, context, took, *_ = step
    pairs = tokens * (tokens // max(1, chunks) + 1) // 2
    return Point("captured", Load(tokens, pairs, tokens, chunks, decodes, context, decodes + chunks), took)


def _sustained(point: Point, captured_tokens: float) -> bool:
    """Whether a step is a long prefill behind many others.

    By then a GPU at its power limit varies its clock from one tenth of a second to the next, by as much again as
    `power_throttle` says; so what such a step tells is only that it does not take longer.
    """
    long = 0 < captured_tokens < point.load.prefill_tokens
    first = point.load.behind_ns or 0 < point.load.heat_ns < LASTING_NS
    return long and not first and point.route == "blocks"


def _guesses(points: Sequence[Point], geometry: Geometry, captured_tokens: float) -> dict[str, float]:
    """Start from overheads that are not more than the shortest steps."""
    steady = [point for point in points if point.spread <= STEADY] or points
    shortest = min(point.measured_s for point in steady)
    layer = shortest / 2 / geometry.layers
    launched = [
        point for point in points if point.load.prefill_tokens > captured_tokens or point.load.prefill_seqs > CHUNKS
    ]
    alone = [point for point in launched if not point.load.behind_ns and not _sustained(point, captured_tokens)]
    prefill = min((point.measured_s for point in alone or launched), default=0.0)
    guesses = {
        "step_overhead_s": shortest / 2,
        "launch_layer_s": max(0.0, 0.95 * prefill - shortest / 2) / geometry.layers,
        "swap_overhead_s": shortest / 20,
        "transfer_overhead_s": 1e-7,
        "separate_launch_layer_s": layer,
        "sequence_launch_layer_s": 1e-5,
        "recompute_launch_layer_s": layer,
        "recompute_slowdown": 0.1,
    }
    if any(point.load.decode_repeated for point in points):
        guesses["repeated_reads_cached"] = 0.5
    if any(point.block_size != USUAL_BLOCK for point in points):
        guesses["paged_block_overhead"] = 0.5
    return guesses


def _search(
    evidence: Sequence[Evidence],
    wanted: Sequence[str],
    start: Coefficients,
    geometry: Geometry,
    device: Device,
    noise: float = 0.0,
) -> tuple[Coefficients, dict[str, float], float]:
    """Fit those of the coefficients `wanted` that matter to `evidence`, say how uncertain each is, and the noise.

    The others stay as in `start`.  The noise is the variance of relative errors; what few points that agree tell is no
    surer than `noise`, that of others.
    """
    from scipy.optimize import least_squares  # noqa: PLC0415  takes half a second, and only fitting needs it

    points = [point for part in evidence for point in part.points]
    measured = np.array([point.measured_s for point in points])
    trust = 1 / np.hypot(1, np.array([point.spread for point in points]) / NOISE)
    least = np.array([0.0 if _sustained(point, start.captured_tokens) else -np.inf for point in points])

    def predicted(coefficients: Coefficients) -> Floats:
        return np.concatenate([part.seconds(geometry, device, coefficients) for part in evidence])

    names = [name for name in wanted if _matters(name, start, predicted)]
    low, high = np.array([_bounds(name, device) for name in names]).T
    first = np.log([getattr(start, name) or NOTHING * 1e3 for name in names])
    expected = np.array([name.endswith("_efficiency") for name in names])

    def coefficients(x: Floats) -> Coefficients:
        return replace(start, **dict(zip(names, np.exp(x).tolist(), strict=True)))

    def errors(x: Floats) -> Floats:
        relative: Floats = trust * np.maximum(predicted(coefficients(x)) / measured - 1, least)
        return np.concatenate([relative, PRIOR * (x - first)[expected]])

    def slopes(x: Floats) -> Floats:
        here = errors(x)
        return np.stack([(errors(x + nudge) - here) / NUDGE for nudge in NUDGE * np.eye(len(x))], axis=1)

    def descend(x: Floats) -> OptimizeResult:
        options = {"loss": "soft_l1", "f_scale": NOISE, "jac": slopes, "max_nfev": TRIES}
        return least_squares(errors, np.clip(x, low + 1e-9, high - 1e-9), bounds=(low, high), **options)

    nearest = deepest(descend, first, math.log(5 * NOTHING))
    free = max(1, len(nearest.fun) - len(names))
    noise = max(noise, 2 * nearest.cost / free)
    best, errors_of = coefficients(nearest.x), standard_errors(nearest.jac, noise * free)
    nothing = {name: 0.0 for name in names if getattr(best, name) < 5 * NOTHING}
    best, uncertain = replace(best, **nothing), dict(zip(names, errors_of, strict=True))
    for name in names:
        if math.isinf(uncertain[name]) and name not in nothing:
            usual = replace(best, **{name: getattr(Coefficients(), name)})
            if np.array_equal(predicted(usual), predicted(best)):  # such as a floor that all steps are above
                best = usual
                del uncertain[name]
    return best, uncertain, noise


def _matters(name: str, start: Coefficients, predicted: Callable[[Coefficients], Floats]) -> bool:
    """Whether a coefficient changes any prediction, a hundred times as large or small: it may hide behind a maximum."""
    value, now = getattr(start, name), predicted(start)
    tried = [value / 100] if name.endswith("_efficiency") else [value / 100, value * 100 + 1e-3]
    return any(np.any(np.abs(predicted(replace(start, **{name: other})) / now - 1) > 1e-4) for other in tried)


def _bounds(name: str, device: Device) -> tuple[float, float]:
    """Bounds of a coefficient's logarithm."""
    if name.endswith("_efficiency"):
        return math.log(LOWEST), math.log(HIGHEST["custom" if device.name == "custom" else "shipped"])
    return math.log(NOTHING), 0.0  # neither a share nor a number of seconds is more than 1
