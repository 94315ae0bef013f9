"""How tables look on a terminal: one style for all of them, here and on the command line."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from workloads.errors import in_a_line

WIDTH = 100
"""Columns that the widest tables fit into."""


def plain(title: str = "", caption: str = "") -> Table:
    """Make an empty table in the style of all the others."""
    return Table(
        title=line(title, "table.title") if title else None,
        caption=Text(caption, style="table.caption") if caption else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def line(text: str, style: str = "") -> Text:
    """Make a line, or a cell of a table, of what may quote a name: breaks and what no terminal shows by their escapes.

    Args:
        text: what it says, as it is: no markup.
        style: of rich.

    """
    return Text(in_a_line(text), style=style)


def put(console: Console, table: Table, least: int = WIDTH) -> None:
    """Print a table in at least `least` columns, or as many as it needs.

    On a narrower terminal its lines run over, but no figure is cut or broken, and nothing that is not to be wrapped.
    """
    for column in table.columns:
        if column.no_wrap or column.justify == "right":
            column.no_wrap, column.min_width = True, _longest(column)
    width = console.width
    needed = Measurement.get(console, console.options.update_width(10_000), table).minimum
    console.width = max(width, least, needed)
    console.print(table)
    console.width = width


def _longest(column: Column) -> int:
    """Return the length of the longest line of a column."""
    return max(len(line) for cell in (column.header, *column.cells) for line in str(cell).split("\n"))
