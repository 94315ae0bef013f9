"""`list`: every name that a workload file may use, and what is assumed of it.

The JSON document of a topic is its rows (`sim.cli.topics`); the table is the same rows, laid out so
that 80 columns suffice.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from analysis.numbers import short
from sim.cli.output import add, emit, lay_out, listing, terminal
from sim.cli.topics import OVERVIEW, TOPICS, Name, Row

if TYPE_CHECKING:
    from rich.table import Table

BILLION = 10**9
UNITS = {"gib": "GiB", "tbps": "TB/s", "tflops": "TFLOP/s", "gbps": "GB/s"}


def list_(topic: Name | None = None, /, *, json: bool = False) -> None:
    """List what a workload file may name, and what is assumed of it.

    Args:
        topic: What to list; the topics themselves if not given.
        json: Print one JSON document instead of the table.

    """
    listed = OVERVIEW if topic is None else TOPICS[topic]
    rows = listed.rows()
    if json:
        emit({topic or "topics": rows})
        return
    for title, group in groupby(rows, key=lambda row: str(row.get(listed.by, ""))):
        lay_out(terminal(), _table([line for row in group for line in listed.lines(row)], title, listed.by))


def _table(rows: list[Row], title: str, by: str) -> Table:
    """Lay rows out under a title, which is what all of them have in `by`."""
    names = [name for name in rows[0] if name != by]
    numbers = [name for name in names if all(isinstance(row[name], int | float | None) for row in rows)]
    made = listing({name: _heading(name) for name in names}, numbers, title)
    for row in rows:
        add(made, *(_cell(row[name]) for name in names))
    return made


def _heading(name: str) -> str:
    """Write a key as a column's heading: narrow, with its unit as people write it."""
    words = name.split("_")
    return "\n".join([*words[:-1], UNITS.get(words[-1], words[-1])])


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{short(value / BILLION)} B" if value >= BILLION // 10 else f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)
