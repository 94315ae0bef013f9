"""Reading run directories back: the manifest, the summary, and the tables of every run (`analysis.columns`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.columns import LazyColumns, read_columns
from analysis.errors import RunDirectoryError
from analysis.summary import summarise

SCHEMA_VERSION = 1
SUSTAINED = "sustained.json"
VARIANTS = "variants.json"
"""Lists the run directories of a workload with variants."""
REQUESTS = "requests.parquet"
FACTS = ("label", "kind", "dir", "capacity", "block_size", "num_blocks", "block_bytes")
"""What every run's entry in the manifest has, besides what older versions did not write."""
ENTRY = ("allocator", "kind", "scheduler", "verdict", "requests", "metrics", "ledger")
"""What every run's entry in summary.json has, ditto."""


@dataclass(frozen=True)
class Run:
    """One allocator under one workload, once."""

    facts: Mapping[str, Any]
    """Its entry in the manifest: label, kind, scheduler, repeat, dir, capacity, block_size, num_blocks, block_bytes."""
    path: Path
    """Where its parquet files are."""

    @property
    def label(self) -> str:
        """Name of the allocator in the workload file."""
        return str(self.facts["label"])

    @property
    def repeat(self) -> int:
        """Number of the replication, from 0."""
        return int(self.facts.get("repeat", 0))

    @property
    def capacity(self) -> int:
        """Token slots in the pool."""
        return int(self.facts["capacity"])

    @property
    def finished(self) -> bool:
        """Whether it ran to its end; only then its files get their final names."""
        return (self.path / REQUESTS).exists()

    @property
    def pool_bytes(self) -> int:
        """Memory of the pool's blocks."""
        return int(self.facts["block_bytes"]) * int(self.facts["num_blocks"])

    @property
    def end(self) -> float:
        """When its last step ends, seconds; 0 if it has none."""
        steps = self.steps(("start_s", "duration_s"))
        return float(steps["start_s"][-1] + steps["duration_s"][-1]) if len(steps["start_s"]) else 0.0

    def requests(self, columns: Iterable[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Columns of requests.parquet, all or those named."""
        return read_columns(self.path / REQUESTS, columns)

    def steps(self, columns: Iterable[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Columns of steps.parquet, all or those named."""
        return read_columns(self.path / "steps.parquet", columns)

    def summarise(self, slo: Mapping[str, float | None] | None = None) -> dict[str, Any]:
        """Compute the entry of summary.json, column by column, so that a long run needs little memory."""
        entry = summarise(LazyColumns(self.path / REQUESTS), self.lazy_steps, self.facts, slo)
        searched = self.path / SUSTAINED
        return {**entry, "sustained": _json(searched)} if searched.exists() else entry

    @cached_property
    def lazy_steps(self) -> LazyColumns:
        """Columns of steps.parquet, each read when it is asked for."""
        return LazyColumns(self.path / "steps.parquet")

    def blocks(self) -> dict[str, npt.NDArray[Any]] | None:
        """Columns of blocks.parquet; None if no block map was recorded."""
        path = self.path / "blocks.parquet"
        return read_columns(path) if path.exists() else None

    def events(self) -> dict[str, npt.NDArray[Any]] | None:
        """Columns of events.parquet in order of time; None if none were recorded."""
        path = self.path / "events.parquet"
        if not path.exists():
            return None
        columns = read_columns(path)
        order = np.argsort(columns["time_s"], kind="stable")
        return {name: column[order] for name, column in columns.items()}


@dataclass(frozen=True)
class RunDirectory:
    """What one `run` command left behind."""

    path: Path
    manifest: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the workload."""
        return str(self.manifest.get("name", self.path.name))

    @property
    def slo(self) -> Mapping[str, float | None]:
        """Limits in seconds by metric; empty if the workload sets none."""
        return self.manifest.get("slo") or {}

    @cached_property
    def runs(self) -> list[Run]:
        """Every run, in the order of the workload file, then by replication."""
        path = self.path / "manifest.json"
        return [Run(facts, self.path / str(facts["dir"])) for facts in _runs(path, self.manifest, FACTS)]

    def summary(self) -> list[dict[str, Any]]:
        """Entries of summary.json; computed from the columns where the file is missing."""
        path = self.path / "summary.json"
        if path.exists():
            return _runs(path, read_json(path, "runs"), ENTRY)
        return [run.summarise(self.slo) for run in self.runs]


def _inside(path: Path) -> str:
    """List the run directories in a directory."""
    return ", ".join(str(found.parent) for found in sorted(path.glob("*/manifest.json")))


def open_directory(path: str | Path) -> RunDirectory:
    """Open a run directory.

    Raises:
        RunDirectoryError: there is none, or it was written in a format that this version does not know.

    """
    path = Path(path)
    manifest = path / "manifest.json"
    if not path.is_dir():
        what = "a file" if path.exists() else "no such directory"
        raise RunDirectoryError(f"{path}: {what}; give one that `run --out` has written")
    if (path / VARIANTS).exists():
        raise RunDirectoryError(f"{path}: has a run directory for each variant; give one of them: {_inside(path)}")
    if not manifest.exists():
        raise RunDirectoryError(f"{path}: no manifest.json in it, so it is not a run directory")
    content = _json(manifest)
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA_VERSION:
        raise RunDirectoryError(f"{manifest}: schema {found!r}; this version reads schema {SCHEMA_VERSION}")
    if "runs" not in content:
        what = f"holds {question} results" if (question := content.get("question")) else "not a run directory"
        give = f"one of those in it: {inside}" if (inside := _inside(path)) else "one that `run --out` has written"
        raise RunDirectoryError(f"{path}: {what}; give {give}")
    return RunDirectory(path, content)


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON document that has certain keys.

    Raises:
        RunDirectoryError: it is missing, no JSON, or lacks one of them.

    """
    return _demand(path, _json(path), *keys)


def _runs(path: Path, content: Mapping[str, Any], keys: Iterable[str]) -> list[dict[str, Any]]:
    """Return the list `runs` of a document, whose entries have certain keys."""
    if not isinstance(found := content["runs"], list):
        raise RunDirectoryError(f"{path}: 'runs' is no list: it was changed")
    return [_demand(path, entry, *keys) for entry in found]


def _demand(path: Path, content: Any, *keys: str) -> dict[str, Any]:
    found: dict[str, Any] = content if isinstance(content, dict) else {}
    if missing := [key for key in keys if key not in found]:
        raise RunDirectoryError(f"{path}: lacks {missing[0]!r}: it was changed, or another version wrote it")
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: not readable as JSON: {error}") from None
