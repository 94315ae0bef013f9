"""The files that a workload names: results depend on what is in them, not on what they are called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.written import digest
from sim.models.shipped import CONFIG, shipped_models
from workloads.paths import as_path, is_bare, is_file, led

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workloads.schema import Workload


def with_model_found(workload: Workload, folder: Path) -> Workload:
    """Return a workload whose model, if it goes by a bare name and is not shipped, has the path where it lies.

    Only that name can still mean two things when a workload is loaded (`workloads.spec.ModelName`).

    Args:
        workload: as loaded.
        folder: what relative names in it start from.

    """
    name = workload.model.name
    path = led(folder, name)
    if not is_bare(name) or name.lower() in shipped_models() or not (is_file(path) or is_file(path / CONFIG)):
        return workload
    return workload.model_copy(update={"model": workload.model.model_copy(update={"name": as_path(path)})})


def digests(workload: Workload) -> dict[str, str]:
    """Return the SHA-256 of each file that a workload names (traces, lengths, calibrations, configurations), by name.

    Raises:
        OSError: one cannot be read.

    """
    return {str(path): digest(path) for path in sorted(set(_named(workload.resolved())))}


def _named(content: Any) -> Iterator[Path]:
    """Yield the files that a resolved workload names; of a model's folder that is its config.json."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        for part in content:
            yield from _named(part)
    elif isinstance(content, str) and ("/" in content or "." in content):
        yield from (path for path in (Path(content), Path(content, CONFIG)) if is_file(path))
