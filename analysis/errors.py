"""The error of a directory that cannot be read: a line that says where it is and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

AGAIN = "`run --resume` makes it again"
"""How to get a file of a run directory back, as the end of a sentence: one that no longer looks complete ..."""
REMOVE = f"remove it, and {AGAIN}"
"""... and one that does."""


class RunDirectoryError(Exception):
    """A path is not a run directory that this version can read; the message is one line for the user."""


def unfinished(path: Path) -> RunDirectoryError:
    """Return the error for a missing run, or a missing file of one: files get their names when the run is finished."""
    return RunDirectoryError(f"{path}: this run was not finished; `run --resume` finishes it")
