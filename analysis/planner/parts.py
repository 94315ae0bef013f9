"""How each part of a mix fares in the cells of a sweep: which figures there are of it, and the rows that show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from analysis.figures import GOODPUT, Figure
from analysis.planner.rows import distinct, last_words, said
from analysis.planner.sweeps import FIGURES, OF_PART, WITHIN
from analysis.planner.tables import ANY, MOST, interval
from analysis.slo import PART
from analysis.terminal import line, plain

COLUMNS: tuple[tuple[str, str, float], ...] = (
    ("req/s", "throughput_rps", 1),
    ("ms/token\np50", "normalized_latency_s.p50", 1e3),
    ("TTFT s\np99", "ttft_s.p99", 1),
    ("TPOT ms\np99", "tpot_s.p99", 1e3),
    ("gap ms\np99", "itl_s.p99", 1e3),
    ("in SLO\n%", GOODPUT, 100),
)
"""What tables show of a part: heading, name, scale."""
TITLE = "Parts of the mix"


def names(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the parts that the cells of a sweep have figures of; none if requests are no mix."""
    found = (name for cell in cells for name in cell["figures"] if name.startswith(PART))
    return list(dict.fromkeys(name.split(".", 2)[1] for name in found))


def figures(parts: Iterable[str]) -> list[Figure]:
    """Return what a page can draw of parts."""
    some = [*(one for one in FIGURES if one.name in OF_PART), WITHIN]
    return [
        one._replace(name=f"{PART}{part}.{one.name}", title=f"{one.title}, of part {part}")
        for part in parts
        for one in some
    ]


def known(cell: Mapping[str, Any], name: str) -> bool:
    """Whether a cell has a figure: sweeps of earlier versions lack some, and runs in which it does not exist."""
    return bool(cell["figures"].get(name, {"mean": None})["mean"] is not None)


def rows(cells: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return headings, and a row for each part in each cell: part, settings, allocator and figures; parts together."""
    once, parts = distinct(cells), names(cells)
    columns = [one for one in COLUMNS if any(known(cell, f"{PART}{part}.{one[1]}") for part in parts for cell in once)]
    return [heading for heading, *_ in columns], [
        {
            "part": part,
            "settings": [said(cell["settings"].get(key, ANY)) for key in keys],
            "allocator": cell["allocator"],
            "figures": [interval(cell["figures"][f"{PART}{part}.{name}"], scale) for _, name, scale in columns],
        }
        for part in parts
        for cell in once
    ]


def table(summary: Mapping[str, Any], keys: Sequence[str]) -> Table | None:
    """Lay out how the parts of a mix fare; None if requests are no mix."""
    headings, found = rows(summary["cells"], keys)
    if not found:
        return None
    cut = f"{MOST} of {len(found)} rows; results.parquet has all" if len(found) > MOST else ""
    made = plain(TITLE, cut)
    for key in ["part", *last_words(keys), "allocator"]:
        made.add_column(key, no_wrap=True)
    for heading in headings:
        made.add_column(heading, justify="right", no_wrap=True)
    for row in found[:MOST]:
        words = (row["part"], *row["settings"], row["allocator"])
        made.add_row(*(line(word) for word in words), *row["figures"])
    return made
