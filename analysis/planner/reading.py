"""The directories of sweeps, capacity searches and advice.

* DIR/manifest.json: the question, the workload before anything is varied, what is varied
* DIR/cells/KEY.json: one finished simulation each; what resuming relies on
* DIR/results.parquet: settings, metrics and shares of the ledger, one row per point, allocator and replication
* DIR/summary.json: means over replications with their intervals; what failed; the answer
* DIR/report.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.errors import RunDirectoryError
from analysis.reading import read_json

SCHEMA_VERSION = 1
CELLS = "cells"
ANSWERS = {"sweep": "cells", "capacity": "answers", "advice": "changes"}
"""The questions, and the key of summary.json under which each is answered."""
QUESTIONS = tuple(ANSWERS)

Row = Mapping[str, Any]


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
    def slo(self) -> Mapping[str, float]:
        """Limits of a request in seconds, as the workload gives them."""
        return self.manifest["workload"].get("slo") or {}

    def rows(self) -> list[dict[str, Any]]:
        """Rows of results.parquet."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - start-up time of commands that read nothing

        rows: list[dict[str, Any]] = pq.read_table(self.path / "results.parquet").to_pylist()
        return rows


def question(path: str | Path) -> str | None:
    """Tell which question a directory answers; None if it is no directory of this kind."""
    manifest = Path(path) / "manifest.json"
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = content.get("question") if isinstance(content, dict) else None
    return found if found in QUESTIONS else None


def open_planned(path: str | Path) -> Planned:
    """Open the directory of a sweep, capacity search or advice that is complete.

    Raises:
        RunDirectoryError: it is none, or was interrupted before its summary.

    """
    path = Path(path)
    if question(path) is None:
        raise RunDirectoryError(f"{path}: not the directory of a sweep, capacity or advise command")
    manifest = read_json(path / "manifest.json", "workload")
    summary = path / "summary.json"
    if not summary.exists():
        raise RunDirectoryError(f"{path}: no summary.json: it was interrupted; --resume does the rest")
    return Planned(path, manifest, read_json(summary, ANSWERS[str(manifest["question"])], "failed"))
