"""Reading run directories back: the manifest, the summary, and the columns of every run.

Columns are NumPy arrays named as in `analysis.rundir`.  Words are arrays of strings; the lists of
the column `stall_s` are concatenated, and `stall_count` has their lengths.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from analysis.summary import summarise

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SCHEMA_VERSION = 1
SUSTAINED = "sustained.json"
VARIANTS = "variants.json"
"""Lists the run directories of a workload with variants."""
REQUESTS = "requests.parquet"
FACTS = ("label", "kind", "dir", "capacity", "block_size", "num_blocks", "block_bytes")
"""What every run's entry in the manifest has, besides what older versions did not write."""
ENTRY = ("allocator", "kind", "scheduler", "verdict", "requests", "metrics", "ledger")
"""What every run's entry in summary.json has, ditto."""
KEPT = 64 << 20
"""Most bytes of columns of one file to keep in memory; columns of longer runs are read again whenever needed."""


class RunDirectoryError(Exception):
    """A path is not a run directory that this version can read; the message is one line for the user."""


class LazyColumns(Mapping[str, npt.NDArray[Any]]):
    """Columns of a Parquet file that are read when they are needed, and kept if they are small."""

    def __init__(self, path: Path) -> None:
        """Read from `path`, which must exist when a column is asked for."""
        self._path = path
        self._kept: dict[str, npt.NDArray[Any]] = {}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Read one column.  Raises RunDirectoryError if the file lacks it."""
        if name in self._kept:
            return self._kept[name]
        read = _read(self._file, self._path, ["stall_s" if name == "stall_count" else name])
        if sum(column.nbytes for column in (*self._kept.values(), *read.values())) <= KEPT:
            self._kept |= read
        return read[name]

    def __iter__(self) -> Iterator[str]:
        """Names of the columns."""
        return iter(self._file.schema_arrow.names)

    def __len__(self) -> int:
        """How many columns there are."""
        return sum(1 for _ in self)

    @cached_property
    def _file(self) -> pq.ParquetFile:
        return _open(self._path)


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


def read_columns(path: Path, columns: Iterable[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read columns of a parquet file as NumPy arrays.

    Raises:
        RunDirectoryError: the file is missing, unreadable, or lacks a column asked for.

    """
    with _open(path) as file:
        return _read(file, path, columns)


def _open(path: Path) -> pq.ParquetFile:
    """Open a parquet file.  Raises RunDirectoryError if it is missing or none."""
    import pyarrow as pa  # noqa: PLC0415  (start-up time of commands that read nothing)
    import pyarrow.parquet as pq  # noqa: PLC0415  (ditto)

    try:
        return pq.ParquetFile(path, memory_map=True, pre_buffer=False)  # what is mapped need not be fetched ahead
    except FileNotFoundError:
        raise unfinished(path) from None
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from None


def unfinished(path: Path) -> RunDirectoryError:
    """Return the error for a missing run, or a missing file of one: files get their names when the run is finished."""
    return RunDirectoryError(f"{path}: this run was not finished; `run --resume` finishes it")


def _read(file: pq.ParquetFile, path: Path, columns: Iterable[str] | None) -> dict[str, npt.NDArray[Any]]:
    """Do `read_columns` on an open file."""
    import pyarrow as pa  # noqa: PLC0415  (start-up time of commands that read nothing)

    known = file.schema_arrow.names
    missing = [name for name in columns or () if name not in known]
    if missing:
        raise RunDirectoryError(f"{path}: no column {missing[0]!r}")
    try:
        table = file.read(None if columns is None else list(columns), use_threads=False).unify_dictionaries()
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from None
    result: dict[str, npt.NDArray[Any]] = {}
    for name in table.column_names:
        pieces = table[name]
        if pieces.num_chunks > 1:
            column = pieces.combine_chunks()  # which copies even a single one, and to join none imports pandas
        else:
            column = pieces.chunk(0) if pieces.num_chunks else pa.nulls(0, pieces.type)
        if pa.types.is_dictionary(column.type):
            words = np.asarray(column.dictionary.to_pylist(), dtype=object)
            result[name] = words[_numbers(column.indices)]
        elif pa.types.is_list(column.type):
            offsets = _numbers(column.offsets)
            result[name] = _numbers(column.values)[offsets[0] : offsets[-1]]  # `flatten` would import `pyarrow.compute`
            result[name.removesuffix("_s") + "_count"] = np.diff(offsets)
        else:
            result[name] = _numbers(column)
    return result


def _unreadable(path: Path, error: Exception) -> RunDirectoryError:
    return RunDirectoryError(f"{path}: cannot be read: {str(error).splitlines()[0]}")


def _numbers(column: Any) -> npt.NDArray[Any]:
    """View an Arrow array of numbers; `to_numpy` would import pandas, which takes longer than reading."""
    return column.to_numpy(zero_copy_only=False) if column.null_count else np.from_dlpack(column)


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
