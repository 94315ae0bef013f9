"""Pages of directories, whatever wrote them (runs, validations, sweeps, capacity searches), and an index over many."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from analysis.figures import group
from analysis.observed import LEDGER_WORDS, SHARES
from analysis.page.overview import table
from analysis.planner.page import content_of
from analysis.planner.page import write_page as write_planned
from analysis.planner.reading import open_planned, question
from analysis.reading import INDEX, VARIANTS, RunDirectory, open_directory
from analysis.report import asset, environment, subtitle, write_joint_report, write_report
from analysis.validation import is_validation, open_validation, write_validation
from analysis.variants import open_variants
from analysis.whole import write_text
from analysis.written import PAGE

TOLD = 2
"""Findings of a sweep, a capacity search or an advice that the index tells, of those that come first."""
PARTS = ("measured", "simulated")
"""Run directories in that of a validation."""


def write_page(directory: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a directory and return its path.

    Args:
        directory: what `run`, `validate`, `sweep`, `capacity` or `advise` has left. Variants of a workload each get
            their page, and share an index.
        out: the file; in the directory if None.

    Raises:
        RunDirectoryError: `directory` is none of these, or one of its files cannot be read.

    """
    if is_validation(directory):
        parts = [Path(directory, part) for part in PARTS]
        if out is None and all(part.is_dir() for part in parts):
            write_joint_report(parts, Path(directory, "together.html"))
        return write_validation(directory, out)
    if (Path(directory) / VARIANTS).exists():
        runs = list(open_variants(directory).runs.values())
        for run in runs:
            write_report(run)
        return write_index(runs, out or _page(Path(directory)))
    return write_planned(directory, out) if question(directory) else write_report(directory, out)


def write_index(directories: Sequence[RunDirectory | str | Path], out: str | Path) -> Path:
    """Write a page that lists directories, links to their pages and shows each run in one line an allocator.

    Args:
        directories: as for `write_page`; of runs also opened ones, which are not opened again.
        out: the file; links are relative to it.

    Raises:
        RunDirectoryError: one of them is none of these.

    """
    target = Path(out)
    entries = []
    for one in directories:
        path = one.path if isinstance(one, RunDirectory) else Path(one)
        page = _page(path)
        link = quote(os.path.relpath(page.resolve(), target.resolve().parent)) if page.exists() else None
        told = _run(one) if isinstance(one, RunDirectory) else _entry(path)
        entries.append({"where": str(path), "link": link, **told})
    template = environment().get_template("index.html.j2")
    style, script = asset("report.css"), asset("theme.js")
    text: str = template.render(entries=entries, shares=SHARES, words=LEDGER_WORDS, style=style, script=script)
    write_text(target, text)
    return target


def _page(path: Path) -> Path:
    """Where the page of a directory is."""
    if is_validation(path):
        return path / "validation.html"
    return path / (INDEX if (path / VARIANTS).exists() else PAGE)


def _entry(path: Path) -> dict[str, Any]:
    if (path / VARIANTS).exists():
        found = open_variants(path)
        return {"name": found.name, "subtitle": [f"variants: {', '.join(found.runs)}"], "started": "", "table": []}
    if is_validation(path):
        content = open_validation(path)
        passed, runs = sum(run["passed"] for run in content["runs"]), len(content["runs"])
        told = [f"{content['model']['name']} on {content['device']}", f"{passed} of {runs} runs agree"]
        return {"name": content["workload"], "subtitle": ["validation", *told], "started": content["date"], "table": []}
    if question(path):
        planned = open_planned(path)
        told = [planned.question, *(f"over {key}" for key in planned.keys)]
        started = planned.manifest.get("started", "")
        said = [finding.text for finding in content_of(planned).findings[:TOLD]]
        return {"name": planned.manifest["name"], "subtitle": told, "started": started, "table": [], "said": said}
    return _run(open_directory(path))


def _run(opened: RunDirectory) -> dict[str, Any]:
    return {
        "name": opened.name,
        "subtitle": subtitle(opened),
        "started": opened.manifest.get("started", ""),
        "table": table(group(opened.summary())),
    }
