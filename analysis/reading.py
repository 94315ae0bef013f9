"""Reading run directories back: the manifest, the summary, and the tables of every run (`analysis.columns`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.coherence import demand_blocks, demand_ids, demand_known, demand_same, demand_written
from analysis.columns import LazyColumns, count_rows, read_columns
from analysis.documents import WRITTEN, demand_shape, demand_version, parse_json, read_json
from analysis.errors import AGAIN, RunDirectoryError
from analysis.shapes import ANY, COUNT, FOLDER, MAYBE, NUMBER, SIZE, TEXT, TIME, WHOLE
from analysis.summary import ENTRY, SUSTAINED_RATE, summarise
from analysis.written import MANIFEST, SUMMARY, SUSTAINED, results

VARIANTS = "variants.json"
"""Lists the run directories of a workload with variants."""
INDEX = "index.html"
"""The page of such a workload, which lists them; also that of several directories, in the folder they share."""
REQUESTS = "requests.parquet"
FACTS = {
    **dict.fromkeys(("label", "kind", "scheduler"), TEXT),
    "dir": FOLDER,
    "repeat?": COUNT,
    **dict.fromkeys(("capacity", "num_blocks"), COUNT),
    **dict.fromkeys(("block_size", "block_bytes"), SIZE),
    "price_per_hour?": MAYBE,
    "parts?": [TEXT],
}
"""The shape of a run's entry in the manifest (`analysis.shapes`)."""
LIMITS = {...: MAYBE}
"""The shape of an SLO: limits by metric."""
MANIFEST_SHAPE = {
    "name?": TEXT,
    "seed?": WHOLE,
    "repeat?": SIZE,
    "started?": TIME,
    "workload?": ({"allocators?": ([ANY], None)}, None),
    "model?": ({"name?": TEXT, "kv_bytes_per_token?": NUMBER}, None),
    "device?": ({"name?": TEXT}, None),
    "runs": [FACTS],
    "written?": WRITTEN,
    "slo?": (LIMITS, None),
    "expect?": (
        {...: {...: (NUMBER, {**dict.fromkeys(("value?", "low?", "high?"), MAYBE), "over?": (TEXT, None)})}},
        None,
    ),
    **dict.fromkeys(("remarks?", "notes?"), ([TEXT], None)),
}
"""The shape of a run directory's manifest, whatever version of kvsim wrote it."""
ANEW = "`run` makes it anew in another --out"


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

    @cached_property
    def extent(self) -> tuple[int, float]:
        """Its requests, and how long it took, seconds, as its tables say."""
        return count_rows(self.path / REQUESTS), float(self.lazy_steps["duration_s"].sum())

    def requests(self, columns: Iterable[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Columns of requests.parquet, all or those named."""
        path = self.path / REQUESTS
        found = read_columns(path, columns)
        if "request_id" in found:
            demand_ids(path, found["request_id"])
        return found

    def steps(self, columns: Iterable[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Columns of steps.parquet, all or those named."""
        return read_columns(self.path / "steps.parquet", columns)

    def summarise(self, slo: Mapping[str, float | None] | None = None) -> dict[str, Any]:
        """Compute the entry of summary.json, column by column, so that a long run needs little memory."""
        entry = summarise(LazyColumns(self.path / REQUESTS), self.lazy_steps, self.facts, slo)
        searched = self.path / SUSTAINED
        return {**entry, "sustained": read_json(searched, SUSTAINED_RATE, AGAIN)} if searched.exists() else entry

    @cached_property
    def lazy_steps(self) -> LazyColumns:
        """Columns of steps.parquet, each read when it is asked for."""
        return LazyColumns(self.path / "steps.parquet")

    def blocks(self) -> dict[str, npt.NDArray[Any]] | None:
        """Columns of blocks.parquet; None if no block map was recorded."""
        path = self.path / "blocks.parquet"
        if not path.exists():
            return None
        columns = read_columns(path)
        demand_blocks(path, columns, int(self.facts["num_blocks"]))
        demand_known(path, columns["request_id"], self._ids)
        return columns

    def events(self) -> dict[str, npt.NDArray[Any]] | None:
        """Columns of events.parquet in order of time; None if none were recorded."""
        path = self.path / "events.parquet"
        if not path.exists():
            return None
        columns = read_columns(path)
        demand_known(path, columns["request_id"], self._ids)
        order = np.argsort(columns["time_s"], kind="stable")
        return {name: column[order] for name, column in columns.items()}

    @cached_property
    def _ids(self) -> npt.NDArray[Any]:
        return self.requests(("request_id",))["request_id"]


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
        return [Run(facts, self.path / str(facts["dir"])) for facts in self.manifest["runs"]]

    def summary(self) -> list[dict[str, Any]]:
        """Entries of summary.json; computed from the columns where the file is missing."""
        path = self.path / SUMMARY
        if not path.exists():
            return [run.summarise(self.slo) for run in self.runs]
        entries: list[dict[str, Any]] = read_json(path, {"runs": [ENTRY]}, AGAIN)["runs"]
        if [_whose(entry) for entry in entries] != [(run.label, run.repeat) for run in self.runs]:
            raise RunDirectoryError(f"{path}: is not of the runs that manifest.json lists; {AGAIN}")
        for run, entry in zip(self.runs, entries, strict=True):
            if run.finished:
                demand_same(path, entry, run.path, *run.extent)
        return entries


def _whose(entry: Mapping[str, Any]) -> tuple[str, int]:
    """Return allocator and replication of an entry of summary.json."""
    return entry["allocator"], entry.get("repeat", 0)


def _inside(path: Path) -> str:
    """List the run directories in a directory."""
    return ", ".join(str(found.parent) for found in sorted(path.glob(f"*/{MANIFEST}")))


def open_directory(path: str | Path) -> RunDirectory:
    """Open a run directory.

    Raises:
        RunDirectoryError: there is none, it was written in a format that this version does not know, or one of its
            results is not what the run wrote.

    """
    path = Path(path)
    manifest = path / MANIFEST
    if not path.is_dir():
        what = "a file" if path.exists() else "no such directory"
        raise RunDirectoryError(f"{path}: {what}; give one that `run --out` has written")
    if (path / VARIANTS).exists():
        raise RunDirectoryError(f"{path}: has a run directory for each variant; give one of them: {_inside(path)}")
    if not manifest.exists():
        raise RunDirectoryError(f"{path}: no manifest.json in it, so it is not a run directory")
    content = parse_json(manifest, ANEW)
    demand_version(manifest, content, ANEW)
    if "runs" not in content:
        what = f"holds {question} results" if (question := content.get("question")) else "not a run directory"
        give = f"one of those in it: {inside}" if (inside := _inside(path)) else "one that `run --out` has written"
        raise RunDirectoryError(f"{path}: {what}; give {give}")
    demand_shape(manifest, content, MANIFEST_SHAPE, ANEW)
    demand_written(path, results(content["runs"]), content.get("written"), AGAIN)
    return RunDirectory(path, content)
