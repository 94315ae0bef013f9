"""Recordings: what a real engine answered, operation by operation, one JSON object a line.

The first line is the configuration; the lines after it depend on the engine (see
`sim.replay`).  A file may be gzip'd.  Whatever is wrong with one is told in one line.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from allocators.errors import AllocatorError
from sim.errors import UserError
from workloads.values import shown

Line = Mapping[str, Any]


class Difference(NamedTuple):
    """An answer of ours that is not the engine's."""

    file: str
    line: int
    op: str
    field: str
    recorded: object
    ours: object

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.file}:{self.line}: {self.op}: {self.field} is {self.ours}, recorded {self.recorded}"


@dataclass
class Report:
    """What came of one recording."""

    ops: int = 0
    differences: list[Difference] = field(default_factory=list)
    explained: list[str] = field(default_factory=list)
    """Answers that differ for a reason that is known and right, one line each."""


class Recording:
    """One file: its configuration and its lines."""

    def __init__(self, path: Path) -> None:
        """Read and decode a file.

        Raises:
            UserError: it cannot be read, or a line is not a JSON object.

        """
        self.path = path
        try:
            data = path.read_bytes()
            text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
        except (OSError, EOFError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise UserError(f"{path}: cannot be read: {why}") from error
        self._lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        self.line = 1
        """Number of the line that is being replayed."""
        if not self._lines:
            raise UserError(f"{path}: empty, expected a configuration line")
        self.config: Line = self._decode(*self._lines[0]).get("config", {})
        if not isinstance(self.config, dict) or not self.config:
            raise UserError(f'{path}:1: expected {{"config": {{...}}}} with the engine\'s settings')

    def __iter__(self) -> Iterator[Line]:
        """Go through the lines after the first, keeping `line` up to date."""
        for number, text in self._lines[1:]:
            self.line = number
            yield self._decode(number, text)

    def error(self, message: str) -> UserError:
        """Make an error that names the file and the current line."""
        return UserError(f"{self.path}:{self.line}: {message}")

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn the errors that a line of the wrong shape leads to into one line about it."""
        try:
            yield
        except (LookupError, TypeError, AttributeError, ValueError, AllocatorError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise self.error(f"not of this kind of recording: {what}") from error

    def setting(self, name: str, default: int | None = None) -> int:
        """Return a positive number of the configuration."""
        value = self.config.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{self.path}:1: config.{name} must be a whole number, at least 1, got {shown(value)}")
        return value

    def _decode(self, number: int, text: str) -> Line:
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{self.path}:{number}:{error.colno}: not JSON: {error.msg}") from error
        if not isinstance(line, dict):
            raise UserError(f"{self.path}:{number}: expected a JSON object, got {text[:40]}")
        return line


class Replay:
    """Goes through one recording, asks our own code the same and compares.  One subclass an engine."""

    def __init__(self, recording: Recording) -> None:
        """Make ready for `recording`."""
        self.recording = recording
        self.report = Report()

    def run(self) -> Report:
        """Replay every operation; after a difference, as far as the recording still makes sense to our code.

        Raises:
            UserError: a line lacks what it must have, or has what no recording has.

        """
        try:
            for line in self.recording:
                with self.recording.faults():
                    self.step(line)
        except UserError:
            if not self.report.differences:
                raise
        return self.report

    def step(self, line: Line) -> None:
        """Replay one line."""
        verb = getattr(self, f"do_{line['op']}", None)
        if verb is None:
            known = ", ".join(name[3:] for name in dir(self) if name.startswith("do_"))
            raise self.recording.error(f"unknown operation {shown(line['op'])}; known: {known}")
        self.report.ops += 1
        answer = verb(line)
        for name, recorded in line["r"].items():
            if answer[name] != recorded:
                self.differ(line["op"], name, recorded, answer[name])

    def differ(self, op: str, name: str, recorded: object, ours: object) -> None:
        """Note a difference."""
        where = self.recording
        self.report.differences.append(Difference(str(where.path), where.line, op, name, recorded, ours))
