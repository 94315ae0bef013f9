"""Reading the workload that a command names, with what the command line changes about it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from sim.errors import UserError, VariantError
from workloads.errors import WorkloadError, lines_of
from workloads.loader import load, place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workloads.schema import Workload

Settings: TypeAlias = Annotated[tuple[str, ...], "--set"]


def read(
    file: str, settings: Settings = (), seed: int | None = None, repeat: int | None = None
) -> tuple[Workload, Path]:
    """Load a workload file or preset.  Returns it with the folder its relative names start from.

    Raises:
        WorkloadError: one line for every fault.

    """
    return load(file, changes(settings, seed, repeat)), Path(file).parent


def changes(settings: Settings = (), seed: int | None = None, repeat: int | None = None) -> list[str]:
    """Write everything that a command line changes about a file as settings of `workloads.loader.load`."""
    overrides = list(settings)
    overrides += [] if seed is None else [f"--seed {seed}"]
    overrides += [] if repeat is None else [f"--repeat {repeat}"]
    return overrides


@contextmanager
def placed(file: str, settings: Settings = ()) -> Iterator[None]:
    """Say of a fault that shows only beyond the schema where it stands: `model: ...` becomes `file:2:8: model: ...`."""
    try:
        yield
    except (UserError, WorkloadError) as error:
        variant = error.label if isinstance(error, VariantError) else None
        first, *others = error.lines if isinstance(error, VariantError) else lines_of(error)
        where = place(file, settings, first.split(maxsplit=1)[0].rstrip(":"), variant)
        if where is None:
            raise
        about = "" if variant is None else f"variants: {variant}: "
        raise WorkloadError(f"{where}: {about}{first}", *others) from error
