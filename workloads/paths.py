"""Paths as people write them in a workload file."""

from __future__ import annotations

import os
from pathlib import Path


def led(folder: Path | str, name: str) -> Path:
    """Lead a path to where it starts: `~` is the user's home, anything else that is relative begins in `folder`."""
    return Path(folder, os.path.expanduser(name))  # noqa: PTH111  (pathlib raises where there is no such user)
