"""The files that a run writes, and whether they are still what it wrote.

A manifest lists the SHA-256 of each, so that a figure is told from another one that is as plausible.  Manifests of
earlier versions, and of runs that were interrupted, list none: what is not listed is read as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

SUMMARY = "summary.json"
SUSTAINED = "sustained.json"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file.  Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def results(runs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what the files of some runs are called, inside their directory.

    Args:
        runs: their entries in the manifest.

    """
    from analysis.rundir import TABLES  # noqa: PLC0415  (start-up time of commands that read nothing)

    yield SUMMARY
    for run in runs:
        yield from (f"{run['dir']}/{table}.parquet" for table in TABLES)
        yield f"{run['dir']}/{SUSTAINED}"


def listed(folder: Path, runs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the SHA-256 of the files of some runs, those that are there, as a manifest lists them."""
    return {name: digest(folder / name) for name in results(runs) if (folder / name).exists()}


def altered(folder: Path, runs: Iterable[Mapping[str, Any]], written: Mapping[str, str]) -> Iterator[str]:
    """Yield what those files are called that are not what was written, or are gone.

    Args:
        folder: the directory.
        runs: their entries in the manifest.
        written: their digests in the manifest.

    """
    for name in results(runs):
        path = folder / name
        if name in written and not (path.exists() and digest(path) == written[name]):
            yield name
