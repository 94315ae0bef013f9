"""Reading the workload that a command names, with what the command line changes about it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sim.errors import UserError, VariantError
from workloads.errors import WorkloadError, key_of, lines_of
from workloads.loader import load, place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workloads.schema import Workload


@dataclass(frozen=True)
class Changes:
    """What the command line changes about a workload file: options of all commands that take one."""

    settings: Annotated[tuple[str, ...], "--set"] = ()
    """Change the file: a.b.c=value, the value in YAML; allocators.paged.block_size=8, say. null in the place of an
    entry takes it out of its list: requests.mix.chat=null. May be repeated.
    """
    seed: int | None = None
    """Seed instead of the file's."""

    def read(self, file: str, repeat: int | None = None) -> tuple[Workload, Path]:
        """Load a workload file or preset.  Returns it with the folder its relative names start from.

        Raises:
            WorkloadError: one line for every fault.

        """
        return load(file, self.overrides(repeat)), Path(file).parent

    def overrides(self, repeat: int | None) -> list[str]:
        """Write them, and a number of replications if one is given, as settings of `workloads.loader.load`."""
        given = {"seed": self.seed, "repeat": repeat}
        return [*self.settings, *(f"--{name} {value}" for name, value in given.items() if value is not None)]

    @contextmanager
    def placed(self, file: str) -> Iterator[None]:
        """Say of a fault that shows only beyond the schema where it stands.

        `model: ...` becomes `file:2:8: model: ...`, or names the setting.
        """
        try:
            yield
        except (UserError, WorkloadError) as error:
            variant = error.label if isinstance(error, VariantError) else None
            lines = error.lines if isinstance(error, VariantError) else lines_of(error)
            places = [place(file, self.settings, key_of(line), variant) for line in lines]
            if places[0] is None:
                raise
            about = "" if variant is None else f"variants: {variant}: "
            told = zip(places, lines, strict=True)
            raise WorkloadError(*(line if at is None else f"{at}: {about}{line}" for at, line in told)) from error
