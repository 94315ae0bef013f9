"""Writing run directories: telemetry columns to parquet, facts and results to JSON.

Columns arrive as NumPy arrays whenever the engine has filled some, and are written as row groups, so
that a long run is never in memory as a whole.  Files are written under a temporary name and renamed
when they are complete, so a file with its final name is complete, on which resuming relies.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.rundir import TABLES, layout
from analysis.whole import naming, whole
from analysis.written import PAGE, ROWS, SUMMARY
from sim.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

NUMBERS = {
    pa.int8(): np.int8,
    pa.int16(): np.int16,
    pa.int32(): np.int32,
    pa.int64(): np.int64,
    pa.float64(): np.float64,
}
RESULTS = (SUMMARY, ROWS, PAGE)
"""What is made from all runs of a directory, and means nothing beside others."""
CHANGING = ("step", "live", "reserved", "free", "largest_hole", "block", "request_id")
"""Integers that change in most rows, but little: their differences are small, and quick to write and to read.

The others are usually constant for a while, which compression handles better than differences."""
AT_ONCE = 1 << 16
"""Rows handed to an encoder in one go: with Parquet's thousand its buffer grows, and is copied, again and again."""


class ParquetSink:
    """Takes the tables of one run and writes them into its folder."""

    def __init__(self, folder: Path) -> None:
        """Write into `folder`, which is made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._failed: OSError | None = None
        """Why a table could not be written; then no other is, as an engine that stops for it hands on what it has."""

    def write(self, table: str, columns: Mapping[str, object]) -> None:
        """Append rows to a table; a column is an array, (codes, words), or (offsets, values) of lists."""
        if self._failed is not None:
            raise self._failed
        schema = layout(table, columns)
        arrays = [_array(field.type, columns[field.name]) for field in schema]
        if table not in self._writers:
            path = self._folder / f"{table}.parquet.part"
            words = [field.name for field in schema if pa.types.is_dictionary(field.type)]
            encodings = {name: "DELTA_BINARY_PACKED" for name in CHANGING if name in schema.names}
            self._writers[table] = pq.ParquetWriter(
                path,
                schema,
                compression="lz4",
                write_statistics=False,
                use_dictionary=words,
                column_encoding=encodings,
                write_batch_size=AT_ONCE,
            )
        try:
            self._writers[table].write_table(pa.Table.from_arrays(arrays, schema=schema))
        except OSError as error:
            self._failed = naming(error, self._folder / f"{table}.parquet")
            raise self._failed from None

    def __enter__(self) -> Self:
        """Start writing."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the files their names; after an error leave no half-written ones."""
        full: OSError | None = None
        for table, writer in self._writers.items():
            try:
                writer.close()  # which writes what is left, and the footer
            except OSError as broken:
                full = full or naming(broken, self._folder / f"{table}.parquet")
        for table in sorted(self._writers, key=list(TABLES).index, reverse=True):  # last the one that says it finished
            part = self._folder / f"{table}.parquet.part"
            if kind is None and full is None:
                part.rename(part.with_suffix(""))
            else:
                part.unlink(missing_ok=True)
        if kind is None and full is not None:
            raise full


def _array(kind: pa.DataType, column: Any) -> pa.Array:
    """Wrap a column.  `pa.array` would do it, but imports pandas, which takes longer than many a run."""
    if pa.types.is_dictionary(kind):
        codes, words = column
        return pa.DictionaryArray.from_arrays(_wrap(kind.index_type, codes), _strings([str(word) for word in words]))
    if pa.types.is_list(kind):
        offsets, values = column
        return pa.ListArray.from_arrays(_wrap(pa.int32(), offsets), _wrap(kind.value_type, values))
    return _wrap(kind, column)


def _wrap(kind: pa.DataType, values: npt.NDArray[Any]) -> pa.Array:
    """Wrap numbers, without a copy if they are of that type."""
    values = np.ascontiguousarray(values, NUMBERS[kind])
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _strings(words: Sequence[str]) -> pa.Array:
    """Lay out strings: offsets, and all letters."""
    letters = [word.encode() for word in words]
    offsets = np.cumsum([0, *map(len, letters)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(words), pa.py_buffer(offsets), pa.py_buffer(b"".join(letters)))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a folder meanwhile; the system lets go of it whatever ends this one.

    Raises:
        UserError: another process is at it.

    """
    if sys.platform == "win32":  # which has no locks on folders
        yield
        return
    import fcntl  # noqa: PLC0415  (there is none on Windows)

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another run is writing into it; give another --out") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # file systems that know no locks
                raise
        yield
    finally:
        os.close(handle)


def write_json(path: Path, content: object) -> None:
    """Write a JSON document in one stroke."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
