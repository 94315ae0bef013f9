"""Runs in the formats that people's own tools open.

`export` writes one of `FORMATS`; each format is a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

from analysis.errors import RunDirectoryError, unfinished
from analysis.export.errors import ExportError
from analysis.reading import RunDirectory, open_directory

Window = tuple[float, float]
Note: TypeAlias = Callable[[str], object]
"""Is told what a file leaves out."""


class Format(Protocol):
    """What the module of a format has."""

    def files(self, directory: RunDirectory, labels: list[str], /) -> list[str]:
        """Names of the files that are written."""

    def write(
        self, directory: RunDirectory, folder: Path, labels: list[str], window: Window, note: Note, /
    ) -> list[Path]:
        """Write them, but for those that nothing would be in, and return them."""


def formats() -> dict[str, Format]:
    """Return the modules by the names of their formats."""
    from analysis.export import comma, openmetrics, perfetto, torch_snapshot  # noqa: PLC0415  (start-up time)

    return {
        "perfetto": perfetto,
        "torch-snapshot": torch_snapshot,
        "prometheus": openmetrics,
        "csv": comma,
    }


def export(
    directory: str | Path,
    to: str,
    out: str | Path | None = None,
    *,
    labels: list[str] | None = None,
    window: Window = (0.0, float("inf")),
    replace: bool = True,
    note: Note = str,
) -> list[Path]:
    """Write a run directory in another format and return the files.

    Args:
        directory: a run directory.
        to: perfetto, torch-snapshot, prometheus or csv.
        out: folder to write into; `export` in the directory if None.
        labels: allocators to export; all if None.
        window: (from, until) in seconds; the formats that list single events keep to it.
        replace: whether files of these names give way.
        note: called with each sentence on what a file leaves out of the window.

    Raises:
        RunDirectoryError: `directory` is not a run directory, or one of these runs was not finished.
        ExportError: an unknown format or label, a window that is empty or after the end, a missing package, or a file
            that is there already.

    """
    writers = formats()
    if to not in writers:
        raise ExportError(f"unknown export format {to}; known: {', '.join(writers)}")
    if not window[0] < window[1]:
        raise ExportError(f"the window {window[0]:g} to {window[1]:g} s is empty; its end must come after its start")
    opened = open_directory(directory)
    known = list(dict.fromkeys(run.label for run in opened.runs))
    for label in labels or []:
        if label not in known:
            raise ExportError(f"no allocator {label} in {opened.path}; there are: {', '.join(known)}")
    chosen = labels or known
    for run in opened.runs:
        if run.label in chosen and not run.finished:
            raise unfinished(run.path)
    end = max((run.end for run in opened.runs if run.label in chosen), default=0.0)
    if window[0] > end:
        raise ExportError(f"nothing happens after {window[0]:g} s: the run ends at {end:.6g} s")
    folder = Path(out) if out is not None else opened.path / "export"
    there = [folder / name for name in writers[to].files(opened, chosen) if (folder / name).exists()]
    if there and not replace:
        raise ExportError(f"{there[0]}: exists already; give another --out, or --force to replace it")
    folder.mkdir(parents=True, exist_ok=True)
    return writers[to].write(opened, folder, chosen, window, note)


__all__ = ["ExportError", "RunDirectoryError", "export", "formats"]
