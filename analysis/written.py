"""The files that a command leaves as results, and whether they are still what it wrote.

A manifest lists the SHA-256 of each, so that a figure is told from another one that is as plausible.  Manifests of
earlier versions list none: what is not listed is read as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
SUMMARY = "summary.json"
SUSTAINED = "sustained.json"
"""The rates that the allocator of a run was found to sustain."""
ROWS = "results.parquet"
"""The table of all simulations of a sweep, a capacity search or an advice."""
PAGE = "report.html"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file.  Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def results(runs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what the files of some runs are called, inside their directory.

    Args:
        runs: their entries in the manifest.

    """
    yield SUMMARY
    for run in runs:
        yield from results_in(str(run["dir"]))


def results_in(folder: str) -> Iterator[str]:
    """Yield what the files of the run in a folder are called."""
    from analysis.rundir import TABLES  # noqa: PLC0415  (start-up time of commands that read nothing)

    yield from (f"{folder}/{table}.parquet" for table in TABLES)
    yield f"{folder}/{SUSTAINED}"


def listed(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of some results, those that are there, as a manifest lists them."""
    return {name: digest(folder / name) for name in names if (folder / name).exists()}


def altered(folder: Path, names: Iterable[str], written: Mapping[str, str]) -> Iterator[str]:
    """Yield the files that are not what was written, or are gone.

    Args:
        folder: the directory.
        names: of its results.
        written: their digests, as its manifest lists them.

    """
    for name in names:
        path = folder / name
        if name in written and not (path.exists() and digest(path) == written[name]):
            yield name
