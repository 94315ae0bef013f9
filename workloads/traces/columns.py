"""Named columns out of a CSV: fast when the file is clean, exact about every row when it is not.

pyarrow reads a clean file at hundreds of megabytes a second, but says little about a bad
one.  So when it refuses, the rows are read again one at a time, and every one that cannot
be parsed is named by its line.  Columns are found by name; others are never looked at.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from allocators.options import meant
from workloads.errors import WorkloadError
from workloads.requests import Floats, Ints
from workloads.traces.files import HEAD, first_cells
from workloads.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workloads.traces.files import TraceFile
    from workloads.traces.rows import Fault

Kind: TypeAlias = Literal["number", "tokens", "time", "text"]
"""`number` float64, NaN where empty; `tokens` the same, also of `"1,837"`; `time` float64 seconds after the first
row's; `text` object array of str.
"""


@dataclass(frozen=True)
class Columns:
    """Columns by name, all of one length."""

    file: TraceFile
    values: Mapping[str, npt.NDArray[Any]]
    numbers: Ints | None = None
    """Line numbers where rows were read one by one."""
    faults: Sequence[Fault] = field(default_factory=list)
    """Rows left out because they could not be parsed."""

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return a column."""
        return self.values[name]

    def lines(self, rows: Ints) -> list[int]:
        """Return the line numbers (1-based) of rows; reads the file again if nobody has counted yet."""
        if self.numbers is not None:
            return [int(number) for number in self.numbers[rows]]
        last = int(rows.max(initial=-1))
        numbers = []
        for row, (number, _) in enumerate(_records(self.file.data)):
            numbers.append(number)
            if row == last:
                break
        return [numbers[row] for row in rows.tolist()]


def read_csv(file: TraceFile, wanted: Mapping[str, Kind]) -> Columns:
    """Read the wanted columns of a CSV with a header.

    Raises:
        WorkloadError: the file cannot be read or lacks a column.  Bad rows are no error here: see `Columns.faults`.

    """
    free = [cell for cell in file.header if cell not in wanted]
    for name in wanted:
        if name not in file.header:
            raise WorkloadError(
                f"{file.name}:1: no column {name}{meant(name, free)}; columns: {', '.join(file.header[:20])}"
            )
        if file.header.count(name) > 1:
            raise WorkloadError(f"{file.name}:1: {file.header.count(name)} columns are called {name}")
    return _at_once(file, wanted) or _one_by_one(file, wanted)


def _at_once(file: TraceFile, wanted: Mapping[str, Kind]) -> Columns | None:
    """Let pyarrow read the file; None if it finds anything amiss, or would not find a quotation mark too many."""
    if _unpaired(file.data):
        return None
    import pyarrow as pa  # noqa: PLC0415 - pyarrow costs 0.1 s that only reading needs
    from pyarrow import csv as arrow  # noqa: PLC0415 - pyarrow costs 0.1 s that only reading needs

    clock = pa.timestamp("ns", "UTC" if _zoned(file, wanted) else None)
    types = {"number": pa.float64(), "tokens": pa.float64(), "time": clock, "text": pa.string()}
    by_name = dict(zip(file.header, first_cells(file.head), strict=True))
    try:
        table = arrow.read_csv(
            pa.BufferReader(file.data),
            read_options=arrow.ReadOptions(use_threads=False),
            convert_options=arrow.ConvertOptions(
                column_types={by_name[name]: types[kind] for name, kind in wanted.items()},
                include_columns=[by_name[name] for name in wanted],
                strings_can_be_null=False,
            ),
        )
        values = {}
        for name, kind in wanted.items():
            column = table[by_name[name]].combine_chunks()
            if kind == "time" and column.null_count:
                return None
            if kind == "time":
                values[name] = seconds(_view(column.view(pa.int64())))
            elif kind != "text" and not column.null_count:
                values[name] = _view(column)
            else:
                values[name] = column.to_numpy(zero_copy_only=False)
    except (pa.ArrowException, KeyError, ValueError):
        return None
    return Columns(file, values)


def _view(column: Any) -> npt.NDArray[Any]:
    """View an Arrow array of numbers; `to_numpy` would import pandas, which takes longer than reading."""
    return np.from_dlpack(column)


def _zoned(file: TraceFile, wanted: Mapping[str, Kind]) -> bool:
    """Say whether the first row's time has an offset from UTC."""
    timed = [name for name, kind in wanted.items() if kind == "time"]
    return bool(timed and re.search(rf":\d\d(\.\d+)?{_ZONE}$", first_value(file, timed[0])))


def first_value(file: TraceFile, column: str) -> str:
    """Return what the first row has in a column of the header; nothing if the row has another number of cells."""
    cells = next(_records(file.data[:HEAD]), (0, ""))[1]
    whole = not isinstance(cells, str) and len(cells) == len(file.header)
    return cells[file.header.index(column)].strip() if whole else ""


def seconds(nanoseconds: Ints) -> Floats:
    """Count seconds from the first instant; differences are taken in whole nanoseconds, hence exact."""
    if len(nanoseconds) == 0:
        return np.zeros(0)
    since: Floats = (nanoseconds - nanoseconds[0]) / 1e9
    return since


def _records(data: bytes) -> Iterator[tuple[int, list[str] | str]]:
    """Yield (line number, cells) of every row after the header that is not blank; or what is wrong, in place of cells.

    Where a quotation mark lacks another, all rows up to the next one, or up to the end, would be one cell.  Then
    quotation marks are held to the rules, so that it is told from which line on.
    """
    text = TextIOWrapper(BytesIO(data), "utf-8-sig", errors="replace", newline="")
    reader = csv.reader(text, strict=_unpaired(data))
    header, before = True, 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield before + 1, f"not CSV, as where a quotation mark is not closed: {error}"
            cells, header = [], False
        if cells and not header:
            yield reader.line_num, cells
        header, before = header and not cells, reader.line_num


def _unpaired(data: bytes) -> bool:
    return data.count(b'"') % 2 == 1


def _one_by_one(file: TraceFile, wanted: Mapping[str, Kind]) -> Columns:
    """Read row by row; collect what cannot be parsed."""
    where = {name: file.header.index(name) for name in wanted}
    # Arrays of machine numbers: ten million rows as Python floats would not fit.
    codes = {"number": "d", "tokens": "d", "time": "q"}
    values: dict[str, Any] = {name: array(codes[kind]) if kind in codes else [] for name, kind in wanted.items()}
    numbers = array("q")
    faults: list[Fault] = []
    for line, cells in _records(file.data):
        file.give_up(faults)
        if isinstance(cells, str) or len(cells) != len(file.header):
            what = cells if isinstance(cells, str) else f"{len(cells)} cells where the header has {len(file.header)}"
            faults.append((line, what))
            continue
        row: list[Any] = []
        try:
            for name, kind in wanted.items():
                row.append(_PARSERS[kind](cells[where[name]].strip()))
        except ValueError as error:
            faults.append((line, f"{list(wanted)[len(row)]}: {error}"))
            continue
        numbers.append(line)
        for column, value in zip(values.values(), row, strict=True):
            column.append(value)
    columns = {
        name: np.array(values[name], object)
        if kind == "text"
        else seconds(np.array(values[name], np.int64))
        if kind == "time"
        else np.array(values[name], np.float64)
        for name, kind in wanted.items()
    }
    return Columns(file, columns, np.array(numbers, np.int64), faults)


def _number(cell: str) -> float:
    if not cell:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"not a number: {shown(cell)}") from None


def _tokens(cell: str) -> float:
    return _number(cell.replace(",", "") if _GROUPED.fullmatch(cell) else cell)


_GROUPED = re.compile(r"[1-9]\d{0,2}(,\d{3})+", re.ASCII)
"""A whole number in groups of three digits; no length has a decimal comma."""
_ZONE = r"(Z|[+-]\d\d(?::?\d\d)?)"
_CLOCK = rf"[ T](\d\d:\d\d)(?::(\d\d)(?:\.(\d{{1,9}}))?)?{_ZONE}?"
_INSTANT = re.compile(rf"(\d{{4}}-\d\d-\d\d)(?:{_CLOCK})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(cell: object) -> int:
    """Parse a date, with a time that has up to 9 digits of fraction (fromisoformat drops the 7th), to nanoseconds."""
    match = _INSTANT.fullmatch(cell) if isinstance(cell, str) else None
    if not match:
        raise ValueError(f"not a date and time such as 2026-11-30T23:59:59Z: {shown(cell)}")
    date, clock, second, fraction, zone = match.groups()
    try:
        instant = datetime.fromisoformat(f"{date}T{clock or '00:00'}:{second or '00'}{zone or '+00:00'}")
    except ValueError as error:
        raise ValueError(f"not a date and time: {shown(cell)} ({error})") from None
    nanoseconds = (instant - _EPOCH) // timedelta(seconds=1) * 10**9 + int((fraction or "").ljust(9, "0"))
    if abs(nanoseconds) >= 1 << 62:
        raise ValueError(f"not a date of our times: {shown(cell)}")
    return nanoseconds


_PARSERS: Mapping[Kind, Callable[[str], Any]] = {"number": _number, "tokens": _tokens, "time": instant, "text": str}
