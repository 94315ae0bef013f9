"""The page of a sweep: a figure over one key, heat maps over two, and a table with one row per cell."""

from __future__ import annotations

from typing import Any

from analysis.planner import parts
from analysis.planner.content import Content, drawn, drawn_value, kinds_of, legend, values_of
from analysis.planner.reading import Planned
from analysis.planner.rows import distinct, last_words, said
from analysis.planner.sweeps import FIGURES
from analysis.planner.tables import ALIKE, ANY, COLUMNS, interval, replications
from analysis.planner.words import sweep_findings


def content(planned: Planned) -> Content:
    """Lay a sweep out."""
    cells, keys = planned.summary["cells"], planned.keys
    labels = list(dict.fromkeys(cell["allocator"] for cell in cells))
    points = len({cell["cell"] for cell in cells})
    repeats = max(cell["n"] for cell in cells)
    of_parts, parts_rows = parts.rows(cells, keys)
    columns = [one for one in COLUMNS if any(cell["figures"][one[1]]["mean"] is not None for cell in cells)]
    return Content(
        "sweep.html.j2",
        "sweep",
        _facts(planned, labels),
        sweep_findings(cells, planned.slo),
        [
            f"{points:,} point{'s' * (points != 1)}" + (f", {len(labels)} allocators" if len(labels) > 1 else ""),
            ALIKE
            if not planned.summary.get("drawn", True)
            else f"{replications([cell['n'] for cell in cells])} of each",
            f"seed {planned.manifest['workload']['seed']}, the same random numbers everywhere",
        ],
        {
            "keys": last_words(keys),
            "repeated": repeats > 1,
            "columns": [heading.replace("\n", " ") for heading, *_ in columns],
            "rows": [
                {
                    "allocator": cell["allocator"],
                    "settings": [said(cell["settings"].get(key, ANY)) for key in keys],
                    "figures": [interval(cell["figures"][name], scale) for _, name, scale in columns],
                    "verdict": cell["verdict"],
                    "front": cell["front"],
                }
                for cell in distinct(cells)
            ],
            "part_columns": [heading.replace("\n", " ") for heading in of_parts],
            "part_rows": parts_rows,
        },
    )


def _facts(planned: Planned, labels: list[str]) -> dict[str, Any]:
    cells, keys, values = planned.summary["cells"], planned.keys, values_of(planned)
    every = [*FIGURES, *parts.figures(parts.names(cells))]
    figures = [one for one in every if any(parts.known(cell, one.name) for cell in cells)]
    return {
        "keys": [{"key": key, "values": [drawn_value(value) for value in values[key]]} for key in keys],
        "allocators": labels,
        "kinds": kinds_of(cells, labels),
        "figures": legend(figures),
        "slo": planned.slo,
        "cells": [
            {
                "allocator": labels.index(cell["allocator"]),
                "at": [values[key].index(cell["settings"][key]) for key in keys],
                "verdict": cell["verdict"],
                "front": cell["front"],
                "bound": cell["kind"] == "ideal",
                "figures": drawn(cell["figures"], figures),
            }
            for cell in cells
        ],
    }
