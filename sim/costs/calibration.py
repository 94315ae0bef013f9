"""Calibrations: step times measured on a device, and the cost model's coefficients fitted to them.

A calibration is a TOML file.  It says on what it was measured, gives the fitted coefficients,
each with its meaning, and keeps every measured step with its load, so that anyone can see how
well the cost model follows and can fit again.  Those that come with the simulator lie in
`sim/data/calibrations` and are known by name.  Files are found and read here, and written by
`sim.costs.calibration_text`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sim.costs.captured import CapturedStep
from sim.costs.coefficients import Coefficients
from sim.costs.load import Load, Route
from sim.costs.model import USUAL_BLOCK
from sim.costs.power import Series
from sim.devices import resolve_device
from sim.errors import UserError, suggest
from workloads.paths import is_file
from workloads.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sim.devices import Device
    from sim.models.geometry import Geometry

SCHEMA = 1
CALIBRATIONS = Path(__file__).parents[1] / "data" / "calibrations"
SECONDS = 20.0
"""Default time for all measurements; steps are repeated less often where it would not suffice."""
WANTED = f"wanted a TOML file with schema = {SCHEMA} and a table [coefficients]"


class Point(NamedTuple):
    """One kind of step, with its measured time."""

    name: str
    """Such as `decode 64 x 1024`."""
    load: Load
    measured_s: float
    """Time of the step including host work: the median of its repeats, or of three groups' means."""
    spread: float = 0.0
    """Half their interquartile range, as a share of the median."""
    route: Route = "blocks"
    block_size: int = USUAL_BLOCK
    """Token slots of a block, if K/V lies in blocks."""


class Origin(NamedTuple):
    """Where a calibration was measured."""

    described: dict[str, Any]
    """The device whose peaks its efficiencies are shares of, as a workload describes it."""
    measured_on: str
    """What the device called itself."""
    model: str

    def foretells(self, device: str, shipped: str | None) -> bool:
        """Whether it applies to a device that calls itself `device` and is the shipped device `shipped`."""
        return self.measured_on == device or (shipped is not None and self.described == {"name": shipped})


@dataclass(frozen=True)
class Calibration:
    """The content of one file."""

    model: str
    """As a workload names it."""
    dtype: str
    device: str
    """The shipped device whose peaks the efficiencies are shares of; `custom` for one described by `peaks`."""
    peaks: Mapping[str, float]
    """What describes a custom device in a workload; empty for a shipped one."""
    measured_on: str
    """What the device calls itself."""
    backend: str
    """The attention backend."""
    versions: Mapping[str, str]
    date: str
    coefficients: Coefficients
    fitted: tuple[str, ...]
    """Coefficients that these measurements determine; the others are defaults, or 0 where said."""
    points: tuple[Point, ...] = field(default=(), repr=False)
    fitted_s: tuple[float, ...] = field(default=(), repr=False)
    """The cost model's time with these coefficients, for each point."""
    parameters: int = 0
    """Number of weights of the model, which identifies it."""
    captured: tuple[CapturedStep, ...] = field(default=(), repr=False)
    """Steps of captured shapes."""
    series: tuple[Series, ...] = field(default=(), repr=False)
    """Steps in a row, for which the coefficients of the power limit are fitted; none in older files."""
    uncertain: tuple[float, ...] = ()
    """Relative standard error of each fitted coefficient (`sim.costs.fit`); empty in older files."""

    @property
    def name(self) -> str:
        """Default name of the file: the device and the model."""
        where = self.measured_on if self.device == "custom" else self.device
        return re.sub(
            r"[^a-z0-9.]+", "-", f"{where}-{Path(self.model).stem if '/' in self.model else self.model}".lower()
        )

    def errors(self) -> dict[str, float]:
        """Median, 90th percentile and maximum of the absolute residuals."""
        sizes = np.abs(self.residuals)
        return {
            "median": float(np.median(sizes)),
            "p90": float(np.percentile(sizes, 90)),
            "largest": float(sizes.max()),
        }

    def how_fitted(self, name: str) -> str:
        """Say in words whether a coefficient is fitted, and how well the measurements determine it."""
        if name not in self.fitted:
            return "not fitted"
        error = dict(zip(self.fitted, self.uncertain, strict=False)).get(name)
        return "fitted" if error is None else f"fitted, {sureness(error)}"

    @property
    def residuals(self) -> list[float]:
        """(fitted - measured) / measured, for each point."""
        return [fit / point.measured_s - 1 for fit, point in zip(self.fitted_s, self.points, strict=True)]


def sureness(error: float) -> str:
    """Say a relative standard error in words."""
    return f"± {error:.1%}" if error < 1 else "hardly determined"


def shipped_calibrations() -> tuple[str, ...]:
    """Names of the calibrations that come with the simulator."""
    return tuple(sorted(path.stem for path in CALIBRATIONS.glob("*.toml")))


def find_calibration(name: str) -> Path:
    """Return the file of a shipped calibration, or of a path.  Raises UserError."""
    if name in shipped_calibrations():
        return CALIBRATIONS / f"{name}.toml"
    if is_file(name):
        return Path(name)
    known = shipped_calibrations()
    hint = f"{suggest(name, known)}; shipped are {', '.join(known) or 'none'}"
    raise UserError(f"costs.calibration: {shown(name)} is neither shipped nor a file{hint}")


def shipped_for(model: str, device: str, dtype: str) -> str | None:
    """Return the name of the shipped calibration of a model in a number format on a device, if there is one."""
    for name in shipped_calibrations():
        content = _read(CALIBRATIONS / f"{name}.toml")
        if (content.get("model"), content.get("device"), content.get("dtype")) == (model, device, dtype):
            return name
    return None


def load_coefficients(path: Path) -> Coefficients:
    """Read the coefficients of a calibration.  Those that it leaves out keep their defaults.  Raises UserError."""
    return Coefficients().changed(_read(path)["coefficients"], str(path))


def load_origin(path: Path) -> Origin:
    """Read where a calibration was measured.  Raises UserError."""
    content = _read(path)
    return Origin(
        described(content.get("device"), content.get("peaks")),
        str(content.get("measured_on", "")),
        str(content.get("model", "")),
    )


def described(device: str | None, peaks: Mapping[str, float] | None) -> dict[str, Any]:
    """Describe the device of a calibration as a workload does: by its measured peaks, else by its shipped name."""
    return dict(peaks) if peaks else {"name": device}


def load_captured(path: Path, geometry: Geometry, device: Device) -> tuple[CapturedStep, ...]:
    """Read how long captured steps take; nothing of another model or device.  Raises UserError."""
    content = _read(path)
    if "captured" not in content:
        return ()
    parameters, steps = _captured(path, content["captured"])
    measured = content.get("model"), content.get("dtype"), content.get("dtype"), parameters, 1
    served = geometry.name, geometry.model.dtype, geometry.kv_dtype, geometry.parameters, geometry.tensor_parallel
    if measured != served:
        return ()
    where = resolve_device(described(content.get("device"), content.get("peaks")))
    return steps if (where.bandwidth, where.flops) == (device.bandwidth, device.flops) else ()


def _captured(path: Path, table: Mapping[str, Any]) -> tuple[int, tuple[CapturedStep, ...]]:
    """Read the weights of the model and the steps of captured shapes.  Raises UserError."""
    try:
        parameters, steps = table["parameters"], tuple(map(_step, table["steps"]))
    except KeyError as error:
        raise UserError(f"{path}: captured: {error.args[0]} is missing") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: captured: {error}") from None
    if type(parameters) is not int:
        raise UserError(f"{path}: captured: parameters: {shown(parameters)} is not a whole number")
    return parameters, steps


def _step(row: list[Any]) -> CapturedStep:
    """Make sure that a row of the file is a step.  Raises ValueError or TypeError."""
    *counts, seconds = row[:5]
    more = row[5:]
    known = len(row) in range(5, len(CapturedStep._fields) + 1)
    whole = known and all(type(count) is int and count >= 0 for count in (*counts, *more))
    if not whole or type(seconds) not in {int, float} or not 0 < seconds < math.inf:
        raise ValueError(f"{shown(row)} is not {', '.join(CapturedStep._fields)}")
    decodes, tokens, chunks, context = counts
    if not decodes + tokens or bool(tokens) != bool(chunks):
        raise ValueError(f"{shown(row)} is no step: chunks have tokens, and something is computed")
    return CapturedStep(decodes, tokens, chunks, context, float(seconds), *more)


def fitted_in(path: Path) -> tuple[str, ...]:
    """Read which coefficients of a calibration its measurements determine.  Raises UserError."""
    return tuple(_read(path).get("fitted", ()))


def load_calibration(path: Path) -> Calibration:
    """Read a whole calibration, measurements and all.  Raises UserError in one line."""
    content = _read(path)
    parameters, captured = _captured(path, content["captured"]) if "captured" in content else (0, ())
    try:
        rows = content["measured"]["steps"]
        points = [
            Point(
                row["name"],
                Load(**row["load"]),
                row["measured_s"],
                row["spread"],
                row["route"],
                row.get("block_size", USUAL_BLOCK),
            )
            for row in rows
        ]
        return Calibration(
            **{name: content[name] for name in ("model", "dtype", "device", "measured_on", "backend", "date")},
            peaks=content.get("peaks", {}),
            versions=content["versions"],
            coefficients=Coefficients().changed(content["coefficients"], str(path)),
            fitted=tuple(content["fitted"]),
            points=tuple(points),
            fitted_s=tuple(row["fitted_s"] for row in rows),
            parameters=parameters,
            captured=captured,
            series=tuple(Series(**row) for row in content.get("series", {}).get("rows", ())),
            uncertain=tuple(content.get("uncertain", ())),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not a whole calibration: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415  (only where a calibration is named)

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not TOML: {error}") from None
    if content.get("schema") != SCHEMA or not isinstance(content.get("coefficients"), dict):
        raise UserError(f"{path}: not a calibration, {WANTED}")
    return content
