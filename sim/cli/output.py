"""What commands print: tables for people, or with `--json` one document and nothing else."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.table import Table

from analysis.terminal import WIDTH, line, plain, put

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SCHEMA_VERSION = 1
"""Of the documents that commands print; those of results on disk have one of their own."""


class Terminal(Console):
    """A rich console that leaves a broken pipe to `sim.cli.app`, which knows the exit status."""

    def on_broken_pipe(self) -> NoReturn:
        """Pass it on."""
        raise BrokenPipeError

    def say(self, text: str, style: str = "") -> None:
        """Print a line as it is, whatever it quotes; where the terminal ends it runs on."""
        self.print(line(text, style), soft_wrap=True)


def terminal(*, stderr: bool = False) -> Terminal:
    """Make a console for standard output (results) or standard error (progress and notes).

    Args:
        stderr: standard error.

    """
    somewhere = any(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    return Terminal(
        stderr=stderr, width=None if somewhere or "COLUMNS" in os.environ else WIDTH, highlight=False, emoji=False
    )


def emit(document: Mapping[str, Any]) -> None:
    """Print one JSON document with the version of its form.  Raises ValueError for numbers that JSON has not (NaN)."""
    print_json({"schema": SCHEMA_VERSION, **document})


def print_json(document: Mapping[str, Any]) -> None:
    """Print a JSON document as it is."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def listing(columns: Mapping[str, str], numbers: Collection[str] = (), title: str = "") -> Table:
    """Make an empty table.

    Args:
        columns: heading of each column by name; the first and numbers never wrap.
        numbers: names of columns that are set flush right.
        title: stands above.

    """
    made = plain(title)
    made.show_header = any(columns.values())
    for place, (name, heading) in enumerate(columns.items()):
        is_number = name in numbers
        made.add_column(heading, justify="right" if is_number else "left", no_wrap=is_number or place == 0)
    return made


def lay_out(console: Console, table: Table) -> None:
    """Print a table as wide as the terminal; too narrow a one runs over, but no figure is cut short."""
    put(console, table, least=0)


def add(into: Table, *cells: object) -> None:
    """Add a row of plain text: whatever stands in it is shown, not interpreted."""
    into.add_row(*(line("" if cell is None else str(cell)) for cell in cells))
