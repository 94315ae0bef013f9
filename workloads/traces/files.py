"""Opening a trace: gzip'd or not, told by its first bytes, never by its name."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = 1 << 16
"""Bytes of text that a format is told by."""


MOST_FAULTS = 100_000
"""Bad rows after which a file is given up: it is no such trace."""


def first_cells(head: str) -> list[str]:
    """Return the cells of the first line that is not blank, just as they are between the commas or quotation marks."""
    text = head.lstrip()
    try:
        return next(csv.reader(StringIO(text), strict=True), [""])
    except csv.Error:  # as of a quotation mark without another
        return text.split("\n", 1)[0].split(",")


class TraceFile:
    """The bytes of one trace file, decompressed when asked for."""

    def __init__(self, path: str | Path) -> None:
        """Name a file; nothing is read yet."""
        self.path = Path(path)
        self.name = str(path)

    @cached_property
    def data(self) -> bytes:
        """The whole file, decompressed.

        Raises:
            WorkloadError: it cannot be read, or its gzip stream is damaged or ends early.

        """
        try:
            raw = self.path.read_bytes()
            return gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
        except EOFError:
            raise WorkloadError(f"{self.name}: the gzip file is truncated") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise WorkloadError(f"{self.name}: the gzip file is damaged: {error}") from None
        except OSError as error:
            raise WorkloadError(f"{self.name}: cannot be read: {error.strerror or error}") from None

    @cached_property
    def head(self) -> str:
        """The first lines as text, a byte-order mark left out; bytes that are not UTF-8 show as U+FFFD."""
        return self.data[:HEAD].decode("utf-8-sig", errors="replace")

    @cached_property
    def header(self) -> list[str]:
        """The cells of the first line, read as CSV."""
        return [cell.strip().strip('"') for cell in first_cells(self.head)]

    @cached_property
    def records(self) -> list[Any]:
        """The first few lines, parsed as JSON; empty if the first is none."""
        found: list[Any] = []
        for line in self.head.split("\n")[:-1][:64] or [self.head]:
            if line.strip():
                try:
                    found.append(json.loads(line))
                except (ValueError, RecursionError):
                    break
        return found

    @property
    def first(self) -> dict[str, Any]:
        """The first record; empty if it is no JSON object."""
        record = next(iter(self.records), None)
        return record if isinstance(record, dict) else {}

    def give_up(self, faults: Sequence[tuple[int, str]]) -> None:
        """Stop reading a file that is bad through and through.

        Raises:
            WorkloadError: there are too many faults.

        """
        if len(faults) >= MOST_FAULTS:
            line, what = faults[0]
            raise WorkloadError(f"{self.name}: more than {MOST_FAULTS:,} bad rows, the first in line {line}: {what}")
