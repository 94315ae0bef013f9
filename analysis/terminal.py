"""How tables look on a terminal: one style for all of them, here and on the command line."""

from __future__ import annotations

from rich import box
from rich.table import Table


def plain(title: str = "", caption: str = "") -> Table:
    """Make an empty table in the style of all the others."""
    return Table(
        title=title or None,
        caption=caption or None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def stiff(table: Table) -> Table:
    """Keep a table's columns as wide as what stands in them, so that no figure is ever cut."""
    for column in table.columns:
        cells = [str(column.header), *map(str, column.cells)]
        column.min_width = max(len(line) for cell in cells for line in cell.split("\n"))
    return table
