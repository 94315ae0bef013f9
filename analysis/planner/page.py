"""`report.html` of a sweep, a capacity search or an advice: one file, no network."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.page.words import Finding
from analysis.planner.reading import Planned, open_planned
from analysis.planner.rows import plain
from analysis.planner.sweeps import FIGURES
from analysis.planner.tables import COLUMNS, interval, last_words
from analysis.planner.words import sweep_findings
from analysis.report import asset, embed, environment, plotly_js


def write_page(directory: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a directory and return its path.

    Args:
        directory: of a sweep or a capacity search.
        out: the file; `report.html` in the directory if None.

    Raises:
        RunDirectoryError: `directory` is none, or is not complete.

    """
    opened = open_planned(directory)
    target = Path(out) if out is not None else opened.path / "report.html"
    target.write_text(render(opened), encoding="utf-8")
    return target


def render(planned: Planned) -> str:
    """Make the page as text."""
    return _sweep(planned)


def page(
    planned: Planned,
    template: str,
    scripts: Sequence[str],
    facts: Mapping[str, Any],
    findings: Sequence[Finding],
    subtitle: Sequence[str],
    **more: Any,
) -> str:
    """Fill a template that extends planner.html.j2."""
    text: str = (
        environment()
        .get_template(template)
        .render(
            name=str(planned.manifest["name"]),
            question=planned.question,
            subtitle=[*_machine(planned), *subtitle],
            findings=findings,
            failed=planned.summary["failed"],
            workload=yaml(planned.manifest["workload"]),
            facts=embed(facts),
            style=asset("report.css") + asset("planner.css"),
            scripts=[asset(f"{name}.js") for name in ("base", "planner", *scripts)],
            plotly=plotly_js(),
            **more,
        )
    )
    return text


def _machine(planned: Planned) -> list[str]:
    workload = planned.manifest["workload"]
    return [f"{workload['model']['name']} on {workload['device'].get('name') or 'a device of its own'}"]


def yaml(content: Mapping[str, Any]) -> str:
    """Write plain data as a workload file reads."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - pages only

    writer, text = YAML(), io.StringIO()
    writer.default_flow_style = None
    writer.width = 100
    writer.dump(dict(content), text)
    return text.getvalue()


def _sweep(planned: Planned) -> str:
    cells, keys = planned.summary["cells"], planned.keys
    values = {axis["key"]: [plain(value) for value in axis["values"]] for axis in planned.manifest["vary"]}
    labels = list(dict.fromkeys(cell["allocator"] for cell in cells))
    figures = [one for one in FIGURES if any(cell["figures"][one[0]]["mean"] is not None for cell in cells)]
    repeats = max(cell["n"] for cell in cells)
    facts = {
        "keys": [{"key": key, "values": values[key]} for key in keys],
        "allocators": labels,
        "figures": [dict(zip(("name", "title", "unit", "scale"), one, strict=True)) for one in figures],
        "slo": planned.slo,
        "cells": [
            {
                "allocator": labels.index(cell["allocator"]),
                "at": [values[key].index(cell["settings"][key]) for key in keys],
                "verdict": cell["verdict"],
                "front": cell["front"],
                "figures": {
                    name: [cell["figures"][name][part] for part in ("mean", "low", "high")] for name, *_ in figures
                },
            }
            for cell in cells
        ],
    }
    columns = [one for one in COLUMNS if any(cell["figures"][one[1]]["mean"] is not None for cell in cells)]
    points = len({cell["cell"] for cell in cells})
    subtitle = [
        f"{points:,} points, {len(labels)} allocators" if len(labels) > 1 else f"{points:,} points",
        f"{repeats} replications of each" if repeats > 1 else "one replication of each",
        f"seed {planned.manifest['workload']['seed']}, the same random numbers everywhere",
    ]
    rows = [
        {
            "allocator": cell["allocator"],
            "settings": [cell["settings"][key] for key in keys],
            "figures": [interval(cell["figures"][name], scale) for _, name, scale in columns],
            "verdict": cell["verdict"],
            "front": cell["front"],
        }
        for cell in cells
    ]
    return page(
        planned,
        "sweep.html.j2",
        ("sweep",),
        facts,
        sweep_findings(cells, planned.slo),
        subtitle,
        keys=last_words(keys),
        repeated=repeats > 1,
        columns=[heading.replace("\n", " ") for heading, *_ in columns],
        rows=rows,
    )
