"""kvsim's own columns, as CSV or parquet: the plainest table of requests, and what `convert` writes.

The words of other tools are understood too: a column of arrival times, one of prompt
lengths and one of output lengths are enough.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from workloads.errors import WorkloadError, first_line
from workloads.traces.base import Options
from workloads.traces.columns import Kind, read_csv, seconds
from workloads.traces.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workloads.traces.files import TraceFile

ARRIVAL = ("arrival_s", "arrival_time_s", "arrival_time", "arrival", "timestamp_s", "timestamp", "time_s", "time")
PROMPT = (
    "prompt_tokens", "input_tokens", "context_tokens", "prompt_length", "input_length", "prompt_len", "input_len",
    "prompt", "input",
)  # fmt: skip
OUTPUT = (
    "output_tokens", "completion_tokens", "generated_tokens", "output_length", "output_len", "completion", "output",
)  # fmt: skip
"""Names a column may have, in the order of preference; times are seconds."""


def pick(header: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first of the names that the header has, whatever its case."""
    found = {cell.lower(): cell for cell in reversed(header)}
    return next((found[name] for name in names if name in found), None)


class PlainCsv:
    """A CSV of one's own."""

    name = "csv"
    about = "CSV of one's own: arrival_s (s), prompt_tokens, output_tokens (other common names are understood)"

    def matches(self, file: TraceFile) -> bool:
        """Say whether the header has a prompt's and an output's length."""
        return bool(pick(file.header, PROMPT) and pick(file.header, OUTPUT))

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read the columns."""
        arrival, prompt, output = (pick(file.header, names) for names in (ARRIVAL, PROMPT, OUTPUT))
        wanted: dict[str, Kind] = {prompt or PROMPT[0]: "number", output or OUTPUT[0]: "number"}
        if arrival is not None:
            wanted[arrival] = "time" if _dated(file, arrival) else "number"
        columns = read_csv(file, wanted)
        count = len(columns[prompt or PROMPT[0]])
        notes = [] if arrival else ["no arrival times: all requests arrive at once unless arrivals are given"]
        return Rows(
            columns[arrival] if arrival else np.zeros(count),
            columns[prompt or PROMPT[0]],
            columns[output or OUTPUT[0]],
            columns.lines,
            columns.faults,
            notes=notes,
        )


def _dated(file: TraceFile, column: str) -> bool:
    """Say whether the first row's time is a date."""
    lines = file.head.lstrip().split("\n")
    cells = lines[1].split(",") if len(lines) > 1 else []
    where = file.header.index(column)
    return where < len(cells) and cells[where].strip().strip('"')[:5].rstrip("-").isdigit() and "-" in cells[where][4:6]


class Parquet:
    """A parquet file with the same columns."""

    name = "parquet"
    about = "parquet with the columns of csv; a run directory's requests.parquet is one"

    def matches(self, file: TraceFile) -> bool:
        """Say whether it begins with parquet's magic bytes."""
        return file.data.startswith(b"PAR1")

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read the columns; times may be numbers (seconds) or timestamps."""
        import pyarrow as pa  # noqa: PLC0415 - pyarrow costs 0.1 s that only reading needs
        from pyarrow import parquet  # noqa: PLC0415 - pyarrow costs 0.1 s that only reading needs

        try:
            header = parquet.read_schema(BytesIO(file.data)).names
            arrival, prompt, output = (pick(header, names) for names in (ARRIVAL, PROMPT, OUTPUT))
            if prompt is None or output is None:
                raise WorkloadError(
                    f"{file.name}: no column {PROMPT[0]} and {OUTPUT[0]}; columns: {', '.join(header[:20])}"
                )
            table = parquet.read_table(BytesIO(file.data), columns=[name for name in (arrival, prompt, output) if name])
            times = np.zeros(len(table))
            if arrival is not None:
                column = table[arrival]
                if pa.types.is_timestamp(column.type):
                    if column.null_count:
                        raise WorkloadError(f"{file.name}: {column.null_count:,} rows have no {arrival}")
                    times = seconds(column.cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy())
                else:
                    times = column.cast(pa.float64()).to_numpy()
            prompts, outputs = (table[name].cast(pa.float64()).to_numpy() for name in (prompt, output))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise WorkloadError(f"{file.name}: cannot be read as parquet: {first_line(error)}") from None
        notes = [] if arrival else ["no arrival times: all requests arrive at once unless arrivals are given"]
        return Rows(times, prompts, outputs, lambda rows: (rows + 1).tolist(), notes=notes)


CSV = PlainCsv()
PARQUET = Parquet()
