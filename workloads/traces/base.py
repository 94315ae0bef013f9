"""A trace format: how to tell it, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from workloads.traces.columns import Kind, read_csv
from workloads.traces.rows import Rows

if TYPE_CHECKING:
    from workloads.traces.files import TraceFile


class Format(Protocol):
    """One trace format."""

    @property
    def name(self) -> str:
        """What workload files call it."""

    @property
    def about(self) -> str:
        """One line: what it is, whose, and its units."""

    def matches(self, file: TraceFile) -> bool:
        """Say whether the file's content is of this format."""

    def read(self, file: TraceFile) -> Rows:
        """Read the whole file.

        Raises:
            WorkloadError: the file as a whole cannot be read; bad rows are in `Rows.faults`.

        """


@dataclass(frozen=True)
class CsvFormat:
    """A format that is three columns of a CSV."""

    name: str
    about: str
    arrival: str
    prompt: str
    output: str
    clock: Kind = "number"
    """`number` for seconds, `time` for dates."""
    seconds: float = 1.0
    """Seconds in one unit of the arrival column."""

    @property
    def columns(self) -> Mapping[str, Kind]:
        """The columns that are read."""
        return {self.arrival: self.clock, self.prompt: "number", self.output: "number"}

    def matches(self, file: TraceFile) -> bool:
        """Say whether the header has the three columns."""
        return set(self.columns) <= set(file.header)

    def read(self, file: TraceFile) -> Rows:
        """Read the three columns."""
        columns = read_csv(file, self.columns)
        arrival = columns[self.arrival]
        return Rows(
            arrival if self.seconds == 1 else arrival * self.seconds,
            columns[self.prompt],
            columns[self.output],
            columns.lines,
            columns.faults,
        )
