"""The directories of sweeps, capacity searches and advice.

* DIR/manifest.json: the question, the workload before anything is varied, what is varied, SHA-256 of the answer
* DIR/cells/KEY.json: one finished simulation each; what resuming relies on
* DIR/results.parquet: settings, metrics and shares of the ledger, one row per point, allocator and replication
* DIR/summary.json: means over replications with their intervals; what failed; the answer
* DIR/report.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.coherence import demand_written
from analysis.documents import demand_shape, demand_version, parse_json, read_json
from analysis.errors import RunDirectoryError
from analysis.planner.documents import MANIFEST_SHAPE, OUTLINES, shape_of
from analysis.slo import Limits, limits_of
from analysis.written import MANIFEST, ROWS, SUMMARY

CELLS = "cells"
ANSWERS = (SUMMARY, ROWS)
"""What is made of all cells together."""
COMMANDS = {"sweep": "sweep", "capacity": "capacity", "advice": "advise"}
"""By question: the command that asks it."""


@dataclass(frozen=True)
class Planned:
    """What one of these commands left behind."""

    path: Path
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def question(self) -> str:
        """Sweep, capacity or advice."""
        return str(self.manifest["question"])

    @property
    def keys(self) -> list[str]:
        """What is varied, as the user wrote it."""
        return [str(axis["key"]) for axis in self.manifest.get("vary", ())]

    @property
    def slo(self) -> Limits:
        """Limits of a request in seconds, as the workload gives them."""
        return limits_of(self.manifest["workload"])


def question(path: str | Path) -> str | None:
    """Tell which question a directory answers; None if it is no directory of this kind."""
    try:
        content = parse_json(Path(path) / MANIFEST, "")
    except RunDirectoryError:
        return None
    found = content.get("question") if isinstance(content, dict) else None
    return found if found in tuple(COMMANDS) else None


def open_planned(path: str | Path) -> Planned:
    """Open the directory of a sweep, capacity search or advice that is complete.

    Raises:
        RunDirectoryError: it is none, or was interrupted before its summary.

    """
    path = Path(path)
    asked = question(path)
    if asked is None:
        raise RunDirectoryError(f"{path}: not the directory of a sweep, capacity or advise command")
    name, summary = path / MANIFEST, path / SUMMARY
    manifest = read_json(name, MANIFEST_SHAPE, f"`{COMMANDS[asked]}` makes it anew in another --out")
    again = f"`{COMMANDS[asked]} --resume` makes it again"
    demand_version(name, manifest, again)
    if not summary.exists():
        raise RunDirectoryError(f"{path}: no summary.json: it was interrupted; --resume does the rest")
    content = parse_json(summary, again)
    demand_shape(summary, content, OUTLINES[asked], again)
    demand_shape(summary, content, shape_of(asked, manifest, content), again)
    demand_written(path, ANSWERS, manifest.get("written"), again)
    return Planned(path, manifest, content)
