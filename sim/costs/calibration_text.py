"""Calibrations as files: TOML with a comment on every entry, so that anyone can read what was measured and fitted."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from analysis.whole import whole
from sim.costs.calibration import SCHEMA
from sim.costs.coefficients import Coefficients
from sim.costs.model import USUAL_BLOCK

if TYPE_CHECKING:
    from pathlib import Path

    from sim.costs.calibration import Calibration
    from sim.costs.captured import CapturedStep


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration as commented TOML, in one stroke."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_text(text_of(calibration), encoding="utf-8")


def text_of(calibration: Calibration) -> str:
    """Write a calibration as commented TOML."""
    lines = [
        f"# Step times of {calibration.model} on {calibration.measured_on}, and the cost model fitted to them.",
        "# Written by `sim calibrate`.  A workload uses it as costs: {calibration: NAME}, the file's name.",
        f"schema = {SCHEMA}",
    ]
    lines += [
        f"{name} = {_value(getattr(calibration, name))}"
        for name in ("model", "dtype", "device", "measured_on", "backend", "date", "versions", "fitted")
    ]
    if calibration.uncertain:
        lines.append(f"uncertain = {_value(calibration.uncertain)}")
    if calibration.peaks:
        lines += ["", "# The device as a workload describes it.", f"peaks = {_value(dict(calibration.peaks))}"]
    lines += ["", "[coefficients]"]
    for entry in fields(Coefficients):
        lines += [
            f"# {entry.metadata['is']} ({calibration.how_fitted(entry.name)})",
            f"{entry.name} = {_value(getattr(calibration.coefficients, entry.name))}",
        ]
    lines += [
        "",
        "[measured]",
        "# Every step: its load (see sim.costs.load.Load), and what the cost model says of it.",
        "steps = [",
    ]
    for point, fit in zip(calibration.points, calibration.fitted_s, strict=True):
        load = {name: value for name, value in point.load._asdict().items() if value}
        row = {
            "name": point.name,
            "measured_s": point.measured_s,
            "fitted_s": fit,
            "residual": round(fit / point.measured_s - 1, 4),
            "spread": round(point.spread, 4),
            "route": point.route,
            **({} if point.block_size == USUAL_BLOCK else {"block_size": point.block_size}),
            "load": load,
        }
        lines.append(f"  {_value(row)},")
    lines.append("]")
    if calibration.series:
        lines += [
            "",
            "[series]",
            "# Steps that ran one after the other, p with so many prompt tokens and d without, and how long each took.",
            "# Coefficients that begin with power_ are fitted to them.",
            "rows = [",
            *(f"  {_value(row._asdict())}," for row in calibration.series),
            "]",
        ]
    if calibration.captured:
        lines += [
            "",
            "[captured]",
            "# Padded steps as replayed from CUDA graphs: all lanes of decodes taken, chunks of equal length.",
            "# For this model on this device they take the place of what the coefficients say of products.",
            f"parameters = {calibration.parameters}",
            "# [decodes, tokens of chunks, chunks, K/V tokens that the decodes attend to (without decodes: that the",
            "# chunks attend to before their own), seconds, if known K/V tokens of the longest decode, and those of",
            "# the others on average if it is much longer]",
            "steps = [",
            *(f"  {_value(_row(step))}," for step in sorted(calibration.captured)),
            "]",
        ]
    return "\n".join([*lines, ""])


def _row(step: CapturedStep) -> tuple[float, ...]:
    """Leave out what is not known at the end."""
    row: tuple[float, ...] = step if step.others else step[: -1 if step.longest else -2]
    return row


def _value(value: object) -> str:
    """Write a value as TOML, on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}" if "." in f"{value:.6g}" or "e" in f"{value:.6g}" else f"{value:.1f}"
    return str(value)


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else f'"{name}"'
