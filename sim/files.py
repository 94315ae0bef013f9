"""The data files that a workload names: results depend on what is in them, not on what they are called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.written import digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workloads.schema import Workload


def digests(workload: Workload) -> dict[str, str]:
    """Return the SHA-256 of each file that a workload names (traces, lengths, calibrations, configurations), by name.

    Raises:
        OSError: one cannot be read.

    """
    return {str(path): digest(path) for path in sorted(set(_named(workload.resolved())))}


def _named(content: Any) -> Iterator[Path]:
    """Yield the files that a resolved workload names."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        for part in content:
            yield from _named(part)
    elif isinstance(content, str) and ("/" in content or "." in content) and Path(content).is_file():
        yield Path(content)
