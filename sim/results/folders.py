"""The folders of a run directory: one for each allocator, and in it one for each further replication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.reading import INDEX, VARIANTS
from analysis.written import MANIFEST
from sim.errors import UserError
from sim.results.rundir import RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterable


def folder_name(label: str) -> str:
    """Turn a label into the name of a folder."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in label).lstrip(".") or "_"


def folder_of(label: str, repeat: int) -> str:
    """Return where the run of an allocator is, within the run directory."""
    name = folder_name(label)
    return name if repeat == 0 else f"{name}/repeat-{repeat}"


def demand_folders(labels: Iterable[str], where: str) -> None:
    """Raise UserError if two labels give one folder, or would where case does not count, as on macOS and Windows.

    Nor may a folder have the name of a file beside it.
    """
    names = [folder_name(label).casefold() for label in labels]
    if taken := sorted({MANIFEST, VARIANTS, INDEX, *RESULTS}.intersection(names)):
        raise UserError(f"{where}: {taken[0]} is the name of a file of the results; give another label")
    if len(set(names)) < len(names):
        raise UserError(f"{where}: two labels give the same folder name; let letters or digits differ, not just case")
