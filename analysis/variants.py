"""Reading back the variants of a workload: run directories side by side in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from analysis.documents import demand_version, read_json
from analysis.errors import AGAIN
from analysis.figures import Allocator, group
from analysis.published import Row, rows
from analysis.reading import VARIANTS, RunDirectory, open_directory
from analysis.shapes import FOLDER, TEXT, WHOLE
from analysis.written import MANIFEST

LIST = {"schema": WHOLE, "name": TEXT, "remarks": [TEXT], "variants": [{"label": TEXT, "dir": FOLDER}]}
"""The shape of the list of variants (`analysis.shapes`)."""


class Variants(NamedTuple):
    """What a run of a workload with variants left behind; a workload without is one variant without a name."""

    name: str
    remarks: list[str]
    runs: dict[str, RunDirectory]
    """By label; those that an interrupted run has not come to are missing."""

    @classmethod
    def alone(cls, directory: RunDirectory) -> Variants:
        """What a run of a workload without variants left behind."""
        return cls(directory.name, list(directory.manifest.get("remarks") or ()), {"": directory})

    @property
    def allocators(self) -> list[tuple[str, list[Allocator]]]:
        """Variant and its allocators."""
        return [(label, group(directory.summary())) for label, directory in self.runs.items()]

    @property
    def published(self) -> list[Row]:
        """Every published figure beside the simulated one."""
        return [
            row
            for label, directory in self.runs.items()
            for row in rows(group(directory.summary()), directory.manifest.get("expect") or {}, label)
        ]


def open_variants(path: str | Path) -> Variants:
    """Open what `run` has left: a run directory, or a folder of variants.

    Raises:
        RunDirectoryError: it is neither.

    """
    path = Path(path)
    index = path / VARIANTS
    if not index.exists():
        return Variants.alone(open_directory(path))
    content = read_json(index, LIST, AGAIN)
    demand_version(index, content, AGAIN)
    begun = [each for each in content["variants"] if (path / each["dir"] / MANIFEST).exists()]
    runs = {each["label"]: open_directory(path / each["dir"]) for each in begun}
    return Variants(content["name"], content["remarks"], runs)
