"""Paths as people write them in a workload file."""

from __future__ import annotations

import os
from pathlib import Path


def led(folder: Path | str, name: str) -> Path:
    """Lead a path to where it starts: `~` is the user's home, anything else that is relative begins in `folder`."""
    return Path(folder, os.path.expanduser(name))  # noqa: PTH111  (pathlib raises where there is no such user)


def is_file(path: Path | str) -> bool:
    """Whether there is such a file."""
    return os.path.isfile(path)  # noqa: PTH113  (pathlib raises where a name is too long, as a sentence may be)


def is_folder(path: Path | str) -> bool:
    """Whether there is such a folder."""
    return os.path.isdir(path)  # noqa: PTH112  (pathlib raises where a name is too long)


def is_there(path: Path | str) -> bool:
    """Whether there is such a file or folder."""
    return os.path.exists(path)  # noqa: PTH110  (pathlib raises where a name is too long)


def is_bare(name: str) -> bool:
    """Whether a name may be of something that is shipped: it is not written as a path or a file."""
    return "/" not in name and not name.endswith((".json", ".toml"))


def as_path(path: Path) -> str:
    """Write a path so that it is no bare name: pathlib drops the `./` that says so."""
    return f"./{path}" if is_bare(str(path)) else str(path)
