"""Reading the columns of a run's tables.

Columns are NumPy arrays named as in `analysis.rundir`.  Words are arrays of strings; the lists of
the column `stall_s` are concatenated, and `stall_count` has their lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from analysis.errors import RunDirectoryError, unfinished

if TYPE_CHECKING:
    import pyarrow.parquet as pq

KEPT = 64 << 20
"""Most bytes of columns of one file to keep in memory; columns of longer runs are read again whenever needed."""


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


def read_columns(path: Path, columns: Iterable[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read columns of a parquet file as NumPy arrays.

    Raises:
        RunDirectoryError: the file is missing, unreadable, or lacks a column asked for.

    """
    with _open(path) as file:
        return _read(file, path, columns)


def is_whole(path: Path) -> bool:
    """Whether a parquet file is there from its beginning to its footer, which is written last."""
    try:
        with _open(path):
            return True
    except RunDirectoryError:
        return False


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
    why = str(error).splitlines()[0].rstrip(".")
    return RunDirectoryError(f"{path}: cannot be read: {why}; `run --resume` makes it again")


def _numbers(column: Any) -> npt.NDArray[Any]:
    """View an Arrow array of numbers; `to_numpy` would import pandas, which takes longer than reading."""
    return column.to_numpy(zero_copy_only=False) if column.null_count else np.from_dlpack(column)
