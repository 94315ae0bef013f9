"""kvsim's own columns, as CSV, JSON lines or parquet: the plainest table of requests, and what `convert` writes.

The words of other tools are understood too: a column of arrival times, one of prompt
lengths and one of output lengths are enough.
"""

from __future__ import annotations

import re
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workloads.errors import WorkloadError, first_line
from workloads.traces.base import Options
from workloads.traces.columns import Kind, first_value, instant, read_csv, seconds
from workloads.traces.naming import ARRIVAL, OUTPUT, PROMPT, listed, pick, timeless, unit
from workloads.traces.records import FieldKind, read_records
from workloads.traces.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from workloads.requests import Floats, Ints
    from workloads.traces.files import TraceFile
    from workloads.traces.rows import Fault

MARKS = {";": "semicolons", "\t": "tabs"}
"""What sets columns apart in tables that resemble a CSV."""
SINCE_1970 = {"milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}
OF_A_RUN = ("request_id", "scheduled_s", "first_token_s")
"""Columns by which the requests.parquet of a run directory is known."""
DATE = re.compile(r"\s*\d+[-/.]\d+[-/.]\d")
"""How a date begins, whatever its order: three numbers."""
RECENT = 1e11
"""Seconds since 1970 that are beyond the year 5000: what is as large counts something smaller."""


def as_rows(
    header: Iterable[str],
    column: str | None,
    times: Floats,
    prompts: Floats,
    outputs: Floats,
    lines: Callable[[Ints], Sequence[int]],
    faults: Sequence[Fault],
) -> Rows:
    """Make rows of columns; times are in the unit of their column's name, or what their size tells.

    Args:
        header: names of all columns that the file has.
        column: what arrival times are called; None if there are none.
        times: float64[n]; not looked at if there are none.
        prompts: float64[n], tokens.
        outputs: float64[n], tokens.
        lines: as in `Rows`.
        faults: as in `Rows`.

    """
    if column is None:
        return Rows(np.zeros(len(prompts)), prompts, outputs, lines, faults, notes=[timeless([*header])])
    scale, notes = unit(column), []
    finite = times[np.isfinite(times)]
    if scale == 1.0 and len(finite) and finite.min() >= RECENT:
        word = next((word for word, size in SINCE_1970.items() if finite.min() * size < RECENT), "nanoseconds")
        scale = SINCE_1970[word]
        notes = [f"{column}: too large for seconds since 1970, read as {word}"]
    if scale != 1.0:
        times = (times - (finite[0] if len(finite) else 0.0)) * scale  # first the difference, which is exact
    return Rows(times, prompts, outputs, lines, faults, notes=notes)


class PlainCsv:
    """Your own CSV."""

    name = "csv"
    about = "your own CSV: arrival_s (s, or dates), prompt_tokens, output_tokens (other common names are understood)"

    def matches(self, file: TraceFile) -> bool:
        """Say whether the header has a prompt's and an output's length."""
        return bool(pick(file.header, PROMPT) and pick(file.header, OUTPUT))

    def resembles(self, file: TraceFile) -> bool:
        """Say whether the header has at least one of the columns, however its cells are set apart."""
        cells = [cell.strip('"') for mark in (",", *MARKS) for cell in ",".join(file.header).split(mark)]
        return any(pick(cells, names) for names in (ARRIVAL, PROMPT, OUTPUT))

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read the columns."""
        if any("\r" in cell for cell in file.header):
            raise WorkloadError(f"{file.name}:1: lines end in CR alone; save it with LF, or with CR and LF")
        if len(file.header) == 1 and (marks := [name for mark, name in MARKS.items() if mark in file.header[0]]):
            raise WorkloadError(f"{file.name}:1: columns set apart by {marks[0]}; a CSV has commas")
        arrival, prompt, output = options.columns.within(file.header, f"{file.name}:1")
        prompt, output = prompt or PROMPT[0], output or OUTPUT[0]
        wanted: dict[str, Kind] = {prompt: "tokens", output: "tokens"}
        if arrival is not None:
            wanted[arrival] = "time" if _dated(file, arrival) else "number"
        columns = read_csv(file, wanted)
        times = columns[arrival or prompt]
        return as_rows(file.header, arrival, times, columns[prompt], columns[output], columns.lines, columns.faults)


def _dated(file: TraceFile, column: str) -> bool:
    """Say whether the first row's time is a date, such as we read or another."""
    return DATE.match(first_value(file, column)) is not None


class JsonLines:
    """Your own JSON lines."""

    name = "jsonl"
    about = "your own JSON lines, with the fields of csv"

    def matches(self, file: TraceFile) -> bool:
        """Say whether the first record has a prompt's and an output's length, as numbers."""
        names = pick(file.first, PROMPT), pick(file.first, OUTPUT)
        return all(name is not None and isinstance(file.first[name], int | float) for name in names)

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read the fields; times may be numbers or dates."""
        first = file.first
        arrival, prompt, output = options.columns.within(first, file.name)
        prompt, output = prompt or PROMPT[0], output or OUTPUT[0]
        wanted: dict[str, FieldKind] = {prompt: "number", output: "number"}
        if arrival is not None:
            clock: Literal["time", "number"] = "time" if isinstance(first[arrival], str) else "number"
            wanted[arrival] = clock
        records = read_records(file, wanted)
        times = records[arrival or prompt]
        return as_rows(first, arrival, times, records[prompt], records[output], records.lines, records.faults)


class Parquet:
    """A parquet file with the same columns."""

    name = "parquet"
    about = "parquet with the columns of csv; a run directory's requests.parquet is one"

    def matches(self, file: TraceFile) -> bool:
        """Say whether it begins with parquet's magic bytes."""
        return file.data.startswith(b"PAR1")

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read the columns; times may be numbers, timestamps, or dates, as such or as text.

        It is read in this thread: one that Arrow waits for files with may still be there when the process ends, which
        then aborts.
        """
        import pyarrow as pa  # noqa: PLC0415 - pyarrow costs 0.1 s that only reading needs
        from pyarrow import parquet  # noqa: PLC0415 - pyarrow costs 0.1 s that only reading needs

        faults: list[Fault] = []
        try:
            whole = parquet.ParquetFile(BytesIO(file.data), pre_buffer=False)
            header = whole.schema_arrow.names
            arrival, prompt, output = options.columns.within(header, file.name)
            if missing := [names[0] for names, found in ((PROMPT, prompt), (OUTPUT, output)) if found is None]:
                raise WorkloadError(f"{file.name}: no column {' and '.join(missing)}; columns: {listed(header)}")
            table = whole.read([name for name in (arrival, prompt, output) if name], use_threads=False)
            times = np.zeros(len(table)) if arrival is None else _times(table[arrival], faults)
            prompts, outputs = (table[name].cast(pa.float64()).to_numpy() for name in (prompt, output))
            lost = _lost(whole)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise WorkloadError(f"{file.name}: cannot be read as parquet: {first_line(error).rstrip('.')}") from None
        named = [(line, f"{arrival}: {what}") for line, what in faults]
        keep = np.setdiff1d(np.arange(len(times)), [line - 1 for line, _ in faults])
        times, prompts, outputs = (column[keep] for column in (times, prompts, outputs))
        rows = as_rows(header, arrival, times, prompts, outputs, lambda some: (keep[some] + 1).tolist(), named)
        return replace(rows, notes=[*rows.notes, *lost])


def _lost(file: Any) -> list[str]:
    """Say what a run directory's requests.parquet tells of requests that is not replayed."""
    from pyarrow import compute  # noqa: PLC0415 - pyarrow costs 0.1 s that only reading needs

    told = {
        "samples": (1, "requests of several samples are replayed with one each"),
        "prefix_group": (-1, "requests whose prompts begin alike are replayed as if they did not"),
    }
    if not {*OF_A_RUN, *told} <= {*file.schema_arrow.names}:
        return []
    table = file.read([*told], use_threads=False)
    counts = {name: compute.sum(compute.greater(table[name], usual)).as_py() for name, (usual, _) in told.items()}
    return [f"{count:,} {words}" for count, (_, words) in zip(counts.values(), told.values(), strict=True) if count]


def _times(column: Any, faults: list[Fault]) -> Floats:
    """Return a column of Arrow, of numbers or of dates, as float64[n], NaN where there is none; add what is no date."""
    import pyarrow as pa  # noqa: PLC0415 - pyarrow costs 0.1 s that only reading needs

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    values = column.to_pylist() if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) else []
    if DATE.match(next((value for value in values if value), "")):
        nanoseconds: list[int | None] = []
        for line, value in enumerate(values, 1):
            try:
                nanoseconds.append(instant(value.strip()) if value else None)
            except ValueError as error:
                nanoseconds.append(None)
                faults.append((line, str(error)))
        column = pa.array(nanoseconds, pa.timestamp("ns"))
    if not pa.types.is_temporal(column.type):
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    times, known = np.full(len(column), np.nan), column.is_valid().to_numpy(zero_copy_only=False)
    exact = pa.duration("ns") if pa.types.is_duration(column.type) else pa.timestamp("ns")
    times[known] = seconds(column.cast(exact).cast(pa.int64()).drop_null().to_numpy())
    return times


CSV = PlainCsv()
JSONL = JsonLines()
PARQUET = Parquet()
