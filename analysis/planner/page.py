"""`report.html` of a sweep, a capacity search or an advice: one file, no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis.page.style import machine
from analysis.planner import advice_page, capacity_page, sweep_page
from analysis.planner.content import Content
from analysis.planner.reading import Planned, open_planned
from analysis.planner.tables import GPUS
from analysis.report import asset, embed, environment, plotly_js
from analysis.whole import write_text
from analysis.written import PAGE
from workloads.document import as_file


def write_page(directory: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a directory and return its path.

    Args:
        directory: of a sweep, a capacity search or an advice.
        out: the file; `report.html` in the directory if None.

    Raises:
        RunDirectoryError: `directory` is none, or is not complete.

    """
    opened = open_planned(directory)
    target = Path(out) if out is not None else opened.path / PAGE
    write_text(target, render(opened))
    return target


def content_of(planned: Planned) -> Content:
    """Lay out what a directory answers."""
    rooms: dict[str, Callable[[Planned], Content]] = {
        "sweep": sweep_page.content,
        "capacity": capacity_page.content,
        "advice": advice_page.content,
    }
    return rooms[planned.question](planned)


def render(planned: Planned) -> str:
    """Make the page as text."""
    content = content_of(planned)
    workload = planned.manifest["workload"]
    text: str = (
        environment()
        .get_template(content.template)
        .render(
            name=str(planned.manifest["name"]),
            question=planned.question,
            subtitle=[*_served(planned), *content.subtitle],
            findings=content.findings,
            failed=planned.summary["failed"],
            workload=as_file(workload),
            facts=embed(content.facts),
            style=asset("report.css") + asset("planner.css"),
            scripts=[asset(f"{name}.js") for name in ("base", "sort", "planner", content.script)],
            plotly=plotly_js().decode(),
            **content.more,
        )
    )
    return text


def _served(planned: Planned) -> list[str]:
    """Say which model is served on which GPU, unless that is varied."""
    workload, varied = planned.manifest["workload"], {key.removesuffix(".name") for key in planned.keys}
    model, device = workload["model"]["name"], workload["device"].get("name")
    if "device" in varied:
        return [] if "model" in varied else [model]
    gpus = 1 if GPUS in varied else int(workload["model"]["tensor_parallel"])
    return [machine("" if "model" in varied else model, device, gpus).strip()]
