"""Measured steps beside the cost model's times for them, for one set of coefficients after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.costs.load import Load, Route
from sim.costs.model import CostModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from sim.costs.calibration import Point
    from sim.costs.captured import CapturedSteps
    from sim.costs.coefficients import Coefficients
    from sim.devices import Device
    from sim.models.geometry import Geometry

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]


class Alike(NamedTuple):
    """Steps that one cost model tells the times of."""

    route: Route
    """How attention finds K/V."""
    block_size: int
    places: Ints
    """int64[n]: of the steps among all."""
    loads: Sequence[Load]
    columns: Load
    """The same, each field int64[n]."""


class Evidence(NamedTuple):
    """Measured steps."""

    points: Sequence[Point]
    captured: CapturedSteps | None
    """How long those of them take that are captured; None to let the roofline say so."""
    kinds: Sequence[Alike]

    @classmethod
    def of(cls, points: Sequence[Point], captured: CapturedSteps | None) -> Evidence:
        """Sort points by the cost models that they need, once for however many coefficients are tried."""
        models = [(point.route, point.block_size) for point in points]
        kinds = []
        for route, size in sorted({*models}):
            places = np.array([place for place, model in enumerate(models) if model == (route, size)])
            loads = [points[place].load for place in places.tolist()]
            kinds.append(Alike(route, size, places, loads, Load(*np.array(loads, np.int64).T)))
        return cls(points, captured, kinds)

    def seconds(self, geometry: Geometry, device: Device, coefficients: Coefficients) -> Floats:
        """Say what the cost model makes of each point: float64[points]."""
        found = np.empty(len(self.points))
        for route, size, places, loads, columns in self.kinds:
            steps = self.captured if route == "blocks" else None
            model = CostModel(geometry, device, coefficients, route=route, block_size=size, captured=steps)
            times = model.leap_ns(columns) if steps is None else [model.step_ns(load) for load in loads]
            found[places] = np.array(times) / 1e9
        return found


def seconds(
    points: Sequence[Point],
    geometry: Geometry,
    device: Device,
    coefficients: Coefficients,
    captured: CapturedSteps | None = None,
) -> Floats:
    """Say what the cost model makes of each point: float64[points], seconds."""
    return Evidence.of(points, captured).seconds(geometry, device, coefficients)
