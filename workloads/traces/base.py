"""A trace format: how to tell it, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from workloads.traces.columns import Kind, read_csv
from workloads.traces.naming import Chosen
from workloads.traces.rows import Rows

if TYPE_CHECKING:
    from workloads.traces.files import TraceFile


class Options(NamedTuple):
    """What a workload may say about how a trace is read; each reader heeds what concerns it."""

    block_size: int | None = None
    """Tokens that one hash names, where the file does not say."""
    only_model: str | None = None
    """Only requests of this model."""
    tokenizer: str | None = None
    """A Hugging Face tokenizer.json, to count the tokens of text."""
    turns: Literal["first", "all"] = "first"
    """Of conversations: the first exchange, or every answer with all that was said before it."""
    columns: Chosen = Chosen()
    """What columns of a plain table are called."""


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

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read the whole file.

        Raises:
            WorkloadError: the file as a whole cannot be read; bad rows are in `Rows.faults`.

        """


class CsvFormat(NamedTuple):
    """A format that is two or three columns of a CSV."""

    name: str
    about: str
    arrival: str
    """Column of arrival times; empty if the format has none."""
    prompt: str
    output: str
    clock: Kind = "number"
    """`number` for seconds, `time` for dates."""

    @property
    def columns(self) -> Mapping[str, Kind]:
        """The columns that are read."""
        lengths: dict[str, Kind] = {self.prompt: "number", self.output: "number"}
        return {self.arrival: self.clock, **lengths} if self.arrival else lengths

    def matches(self, file: TraceFile) -> bool:
        """Say whether the header has the columns."""
        return set(self.columns) <= set(file.header)

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read the columns."""
        columns = read_csv(file, self.columns)
        prompt = columns[self.prompt]
        return Rows(
            columns[self.arrival] if self.arrival else np.zeros(len(prompt)),
            prompt,
            columns[self.output],
            columns.lines,
            columns.faults,
            notes=[] if self.arrival else ["no arrival times: all requests arrive at once unless arrivals are given"],
        )
