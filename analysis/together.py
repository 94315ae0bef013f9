"""Several run directories as one, so that a page shows their runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.reading import RunDirectory, RunDirectoryError


@dataclass(frozen=True)
class Together(RunDirectory):
    """Several run directories of one workload shown as one, such as runs on a GPU beside simulated ones."""

    parts: tuple[RunDirectory, ...]

    def summary(self) -> list[dict[str, Any]]:
        """Entries of all parts, each allocator labelled with where it comes from."""
        return [
            {**entry, "allocator": f"{entry['allocator']} ({part.path.name})"}
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
        {**run.facts, "label": f"{run.label} ({directory.path.name})", "dir": str(run.path.resolve())}
        for directory in directories
        for run in directory.runs
    ]
    first = directories[0]
    return Together(first.path, {**first.manifest, "runs": runs}, tuple(directories))
