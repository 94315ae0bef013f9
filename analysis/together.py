"""Several run directories as one, so that a page shows their runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.errors import RunDirectoryError
from analysis.pairing import draw_of
from analysis.reading import RunDirectory

BESIDE = " beside "
"""Between what two directories say of one thing."""


@dataclass(frozen=True)
class Together(RunDirectory):
    """Several run directories shown as one, such as runs on a GPU beside simulated ones."""

    parts: tuple[RunDirectory, ...]

    @property
    def name(self) -> str:
        """Names of the workloads."""
        return BESIDE.join(dict.fromkeys(part.name for part in self.parts))

    def summary(self) -> list[dict[str, Any]]:
        """Entries of all parts, each allocator labelled with where it comes from."""
        return [
            {**entry, "allocator": labelled(entry["allocator"], part), "directory": part.path.name}
            for part in self.parts
            for entry in part.summary()
        ]


def together(directories: Sequence[RunDirectory]) -> RunDirectory:
    """Put the runs of several directories side by side; one directory stays as it is.

    Raises:
        RunDirectoryError: two directories have the same name, so that labels would not tell them apart.

    """
    if len(directories) == 1:
        return directories[0]
    names = [directory.path.resolve().name for directory in directories]
    for name in names:
        if names.count(name) > 1:
            raise RunDirectoryError(f"two directories are called {name}; rename one, its name is the label")
    runs = [
        {**run.facts, "label": labelled(run.label, directory), "dir": str(run.path.resolve())}
        for directory in directories
        for run in directory.runs
    ]
    first = directories[0]
    return Together(first.path, {**first.manifest, "runs": runs}, tuple(directories))


def labelled(label: str, part: RunDirectory) -> str:
    """Label an allocator with the directory that it comes from."""
    return f"{label} ({part.path.name})"


def parts(directory: RunDirectory) -> tuple[RunDirectory, ...]:
    """Return the directories that are shown as one, or that one."""
    return directory.parts if isinstance(directory, Together) else (directory,)


def slos(directory: RunDirectory) -> dict[str, Mapping[str, float | None]]:
    """Limits in seconds by metric, by the label of each run: those of the directory it comes from."""
    if not isinstance(directory, Together):
        return {run.label: directory.slo for run in directory.runs}
    return {labelled(run.label, part): part.slo for part in directory.parts for run in part.runs}


def draws(directory: RunDirectory) -> dict[str, int]:
    """Number the label of each run by the requests it served: runs of one number served the same ones.

    Those of one directory did.
    """
    known: list[tuple[bytes, ...]] = []
    numbers: dict[str, int] = {}
    for part in parts(directory):
        served = draw_of(part.runs[0]) if part is not directory and part.runs else ()
        if served not in known:
            known.append(served)
        for run in part.runs:
            numbers[labelled(run.label, part) if part is not directory else run.label] = known.index(served)
    return numbers
