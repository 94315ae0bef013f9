"""`report.html` of a sweep, a capacity search or an advice: one file, no network."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.numbers import short
from analysis.page.style import limits
from analysis.page.words import Finding
from analysis.planner.advising import table_rows, words
from analysis.planner.capacities import curve_figures
from analysis.planner.reading import Planned, open_planned
from analysis.planner.rows import plain
from analysis.planner.sweeps import FIGURES
from analysis.planner.tables import (
    COLUMNS,
    FLEET,
    GPUS,
    a_gpu,
    broken,
    gpus,
    interval,
    last_words,
    resolution,
    sustained,
)
from analysis.planner.words import capacity_findings, sweep_findings
from analysis.report import asset, embed, environment, plotly_js
from analysis.whole import whole


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
    with whole(target) as part:
        part.write_text(render(opened), encoding="utf-8")
    return target


def render(planned: Planned) -> str:
    """Make the page as text."""
    return {"sweep": _sweep, "capacity": _capacity, "advice": _advice}[planned.question](planned)


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
            plotly=plotly_js().decode(),
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
                "figures": {name: _parts(cell["figures"][name], unit) for name, _, unit, _ in figures},
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


def _capacity(planned: Planned) -> str:
    summary, keys = planned.summary, planned.keys
    answers = summary["answers"]
    labels = list(dict.fromkeys(one["allocator"] for one in answers))
    values = {axis["key"]: [plain(value) for value in axis["values"]] for axis in planned.manifest["vary"]}
    known = {name for curve in summary["curves"] for point in curve["points"] for name in _present(point)}
    figures = [one for one in curve_figures(summary["slo"]) if one[0] in known]
    aims = {one["name"]: one["limit"] for one in summary["slo"]}
    facts = {
        "keys": [{"key": key, "values": values[key]} for key in keys],
        "allocators": labels,
        "figures": [dict(zip(("name", "title", "unit", "scale"), one, strict=True)) for one in figures],
        "slo": aims,
        "unit": summary["unit"],
        "answers": [
            {
                "allocator": labels.index(one["allocator"]),
                "point": one["point"],
                "at": [values[key].index(plain(one["settings"][key])) for key in keys],
                "capacity": [one["capacity"][part] for part in ("mean", "low", "high")],
                "none": one["none"] == one["n"],
            }
            for one in answers
        ],
        "curves": [
            {
                "allocator": labels.index(curve["allocator"]),
                "point": curve["point"],
                "points": [
                    {
                        "rate": point["rate"],
                        "kept_up": point["kept_up"],
                        "figures": {name: _parts(point["figures"][name], unit) for name, _, unit, _ in figures},
                    }
                    for point in curve["points"]
                ],
            }
            for curve in summary["curves"]
        ],
    }
    repeats = max(one["n"] for one in answers)
    subtitle = [
        _aims(planned),
        f"{repeats} replications, the same random numbers at every rate" if repeats > 1 else "one replication",
        resolution(summary),
    ]
    ratios = {(one["point"], one["over"]): one for one in summary["ratios"]}
    demand = summary.get("demand")
    rows = []
    for one in answers:
        ratio = ratios.get((one["point"], one["allocator"]))
        times = f"{ratio['mean']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else "-"
        rows.append(
            {
                "allocator": one["allocator"],
                "settings": [one["settings"][key] for key in keys],
                "sustained": sustained(one),
                "a_gpu": a_gpu(one),
                "gpus": gpus(one, demand) if demand else "",
                "broken": broken(one),
                "ratio": times,
            }
        )
    best = summary["ratios"][0]["allocator"] if summary["ratios"] else ""
    return page(
        planned,
        "capacity.html.j2",
        ("capacity",),
        facts,
        capacity_findings(summary),
        subtitle,
        keys=last_words(keys),
        unit=summary["unit"],
        gpus=GPUS in keys,
        demand=short(demand) if demand else "",
        fleet=FLEET,
        repeated=repeats > 1,
        rows=rows,
        best=best,
    )


def _aims(planned: Planned) -> str:
    """What is asked for, and of goodput the limits that a good request meets."""
    asked = planned.summary["slo"]
    meant = any(one["name"] == "goodput" for one in asked)
    met = f" (share of requests with {limits(planned.slo)})" if meant and limits(planned.slo) else ""
    return " and ".join(one["text"] for one in asked) + met


def _parts(figure: Mapping[str, float | None], unit: str) -> list[float | None]:
    """Mean and ends of an interval; Student's is not kept from going beyond what a share can be, so it is cut there."""
    mean, low, high = (figure[part] for part in ("mean", "low", "high"))
    if unit != "%" or low is None or high is None:
        return [mean, low, high]
    return [mean, max(low, 0.0), min(high, 1.0)]


def _present(point: Mapping[str, Any]) -> list[str]:
    return [name for name, figure in point["figures"].items() if figure["mean"] is not None]


def _advice(planned: Planned) -> str:
    summary = planned.summary
    rows = table_rows(summary)
    shown = [*summary["changes"], *([summary["best"]] if len(summary["best"]["knobs"]) > 1 else [])]
    order = {row["change"].removeprefix("together: "): place for place, row in enumerate(rows)}
    facts = {
        "keys": [],
        "changes": [
            {"change": one["change"], "effect": one["effect"]}
            for one in sorted(shown, key=lambda one: order[one["change"]])
        ],
    }
    basis = "replications" if summary["basis"] == "replications" else "batches of requests"
    subtitle = [
        str(summary["allocator"]),
        *([_aims(planned)] if summary["slo"] else []),
        f"{summary['simulations']} simulations of at most {summary['budget']}",
        f"intervals over {basis}",
    ]
    return page(
        planned,
        "advice.html.j2",
        ("advice",),
        facts,
        words(summary),
        subtitle,
        rows=rows,
        left_out=summary["left_out"],
    )
