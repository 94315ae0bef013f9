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

from analysis.errors import AGAIN, REMOVE, RunDirectoryError, unfinished
from workloads.errors import first_line
from workloads.values import shown

if TYPE_CHECKING:
    import pyarrow as pa
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
        found = _arrays(_table(self._file, self._path, ["stall_s" if name == "stall_count" else name]))
        read = {name: _folded(column) for name, column in found.items()}
        if sum(map(_size, (*self._kept.values(), *read.values()))) <= KEPT:
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


def _folded(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a column of equal numbers as a view of a single one: most columns of many runs are nothing but zeros."""
    if column.dtype == object or len(column) < 2 or column[0] != column[-1] or (column != column[0]).any():
        return column
    return np.broadcast_to(column[0], column.shape)


def _size(column: npt.NDArray[Any]) -> int:
    """Return the bytes of memory that a column takes."""
    return column.nbytes if any(column.strides) else column.itemsize


def read_columns(path: Path, columns: Iterable[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read columns of a parquet file as NumPy arrays.

    Raises:
        RunDirectoryError: the file is missing, unreadable, or lacks a column asked for.

    """
    return _arrays(read_table(path, columns))


def read_table(path: Path, columns: Iterable[str] | None = None) -> pa.Table:
    """Read columns of a table, all or those named, with the types that `analysis.rundir` gives them.

    Raises:
        RunDirectoryError: the file is missing, unreadable, lacks a column asked for, or has other values in one.

    """
    with _open(path) as file:
        return _table(file, path, columns)


def count_rows(path: Path) -> int:
    """Return how many rows a table has.  Raises as `read_columns`."""
    with _open(path) as file:
        rows: int = file.metadata.num_rows
    return rows


def is_whole(path: Path) -> bool:
    """Whether a table is there from its beginning to its footer, which is written last, with all its columns."""
    from analysis.rundir import TABLES  # noqa: PLC0415  (start-up time of commands that read nothing)

    try:
        with _open(path) as file:
            return set(TABLES[path.stem].names) <= set(file.schema_arrow.names)
    except RunDirectoryError:
        return False


def _open(path: Path) -> pq.ParquetFile:
    """Open a parquet file.  Raises RunDirectoryError if it is missing or none."""
    import pyarrow as pa  # noqa: PLC0415  (start-up time of commands that read nothing)
    import pyarrow.parquet as pq  # noqa: PLC0415  (start-up time of commands that read nothing)

    try:
        return pq.ParquetFile(path, memory_map=True, pre_buffer=False)  # what is mapped need not be fetched ahead
    except FileNotFoundError:
        raise unfinished(path) from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None


def _table(file: pq.ParquetFile, path: Path, columns: Iterable[str] | None) -> pa.Table:
    """Do `read_table` on an open file.  What something else has written may have the same numbers in other types."""
    import pyarrow as pa  # noqa: PLC0415  (start-up time of commands that read nothing)

    from analysis.rundir import MORE, layout  # noqa: PLC0415  (start-up time of commands that read nothing)

    more = path.stem in MORE  # to list what a file has takes longer than to read a column of it
    schema = layout(path.stem, file.schema_arrow.names if more and columns is None else columns or ())
    names = schema.names if columns is None else list(columns)
    wanted = pa.schema([schema.field(name) for name in names])
    try:
        table = file.read(names, use_threads=False)  # those of them that there are; to list these takes longer
        if missing := [name for name in names if name not in table.column_names]:
            raise RunDirectoryError(f"{path}: no column {missing[0]!r}; {AGAIN}")
        table = table.unify_dictionaries()
        if table.schema.types != wanted.types:
            table = table.select(names).cast(wanted)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error, REMOVE) from None
    for name in names:
        if wrong := _wrong(name, table[name]):
            raise RunDirectoryError(f"{path}: column {name!r} {wrong}: it was changed; {REMOVE}")
    return table


def _wrong(name: str, column: pa.ChunkedArray) -> str:
    """Say what a column holds that no run writes; nothing if it does not."""
    import pyarrow as pa  # noqa: PLC0415  (start-up time of commands that read nothing)

    from analysis.rundir import LARGEST, WORDS  # noqa: PLC0415  (start-up time of commands that read nothing)

    if column.null_count:
        return "lacks values"
    if name in WORDS:
        words = {word for chunk in column.chunks for word in chunk.dictionary.to_pylist()}
        unknown = sorted(map(str, words - set(WORDS[name])))
        return f"says {shown(unknown[0])}" if unknown else ""
    if pa.types.is_int64(column.type):
        ends = [int(end) for chunk in map(_numbers, column.chunks) if len(chunk) for end in (chunk.min(), chunk.max())]
        return f"has {max(ends, key=abs):,}" if any(abs(end) > LARGEST for end in ends) else ""
    return ""


def _arrays(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """View the columns of a table as NumPy arrays."""
    import pyarrow as pa  # noqa: PLC0415  (start-up time of commands that read nothing)

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


def _unreadable(path: Path, error: Exception, right: str = AGAIN) -> RunDirectoryError:
    why = first_line(error).rstrip(".")
    return RunDirectoryError(f"{path}: cannot be read: {why}; {right}")


def _numbers(column: Any) -> npt.NDArray[Any]:
    """View an Arrow array of numbers; `to_numpy` would import pandas, which takes longer than reading."""
    return np.from_dlpack(column)
