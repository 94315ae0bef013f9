"""`export`: a run in the formats that people's own tools open."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from analysis.export import export as export_run
from sim.cli.output import emit, terminal


def export(
    directory: Path,
    /,
    *,
    to: Literal["perfetto", "torch-snapshot", "prometheus", "csv"],
    out: Path | None = None,
    allocators: Annotated[tuple[str, ...], "--allocator"] = (),
    after: float = 0.0,
    until: float = math.inf,
    force: bool = False,
    json: bool = False,
) -> None:
    """Export a run: for Perfetto, PyTorch's memory viewer, vLLM's Grafana board, or as CSV.

    Args:
        directory: Run directory.
        to: Format. perfetto opens at ui.perfetto.dev, torch-snapshot at pytorch.org/memory_viz, prometheus in
            Grafana, csv anywhere.
        out: Folder to write; export in the run directory if not given.
        allocators: Only this allocator's run. May be repeated.
        after: Only what happens after this second of the run, in formats that list single events.
        until: Only what happens before this second of the run.
        force: Replace files that are there already in --out; without it they are left alone.
        json: Print one JSON document.

    """
    window, replace = (after, until), force or out is None  # what is in the run directory can be made again from it
    notes: list[str] = []
    labels = list(allocators) or None
    written = export_run(directory, to, out, labels=labels, window=window, replace=replace, note=notes.append)
    if json:
        emit({"written": [str(path) for path in written], "notes": notes})
        return
    console = terminal()
    for path in written:
        console.say(f"Written: {path}")
    for words in notes:
        console.say(words, style="dim")
