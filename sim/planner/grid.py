"""Every combination of the values that are varied, as workloads ready to be simulated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from sim.errors import DoesNotFitError, UserError
from sim.files import with_model_found
from sim.planner.job import Job, digest
from sim.planner.vary import MOST, Axis, axes, shown
from sim.setup import prepare
from workloads.errors import WorkloadError, key_of, lines_of
from workloads.labels import labels as label_all
from workloads.labels import named, part_names, steps
from workloads.loader import open_document, parse
from workloads.read_once import Traces
from workloads.schema import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from workloads.document import Document
    from workloads.schema import Workload


@dataclass(frozen=True)
class Point:
    """One combination of values."""

    settings: Mapping[str, Any]
    """Value by key, in the order of the axes."""
    over: Mapping[Axis, Any]
    """The same by axis, for those who vary it further."""
    workload: Workload


class Base:
    """A workload file that is to be varied."""

    def __init__(self, file: str, settings: Sequence[str] = ()) -> None:
        """Read `file`, a workload file or preset, with `--set` settings.

        Raises:
            WorkloadError: there is no such file, or something in it is wrong.

        """
        self._document, folder = open_document(file, settings)
        self._folder = folder.resolve()
        self.workload = with_model_found(parse(self._document, self._folder), self._folder)
        self._document.data.pop("variants", None)  # what is varied need not suit them
        self.labels = tuple(label_all(self.workload.allocators))
        """Of the allocators: what they are called whatever is varied about them."""
        self.traces = Traces()
        """Where the traces are read that its jobs replay."""
        self._digests: dict[str, str] = {}

    def axes(self, vary: Sequence[str]) -> tuple[Axis, ...]:
        """Read `--vary` settings, and check each value by itself.

        Raises:
            UserError, WorkloadError: one line for each fault; or nothing is varied and the file cannot run as it is.

        """
        found = axes(vary, named(self.workload.allocators), part_names(self.workload.requests))
        if not found:  # what is varied may be what is at fault: a model that needs several GPUs
            prepare(self.workload)
        if (size := prod(len(axis.values) for axis in found)) > MOST:
            raise UserError(f"--vary: {size:,} combinations; at most {MOST:,}")
        for axis in found:
            for value in axis.values:
                self.varied({axis: value})
        return found

    def varied(self, values: Mapping[Axis, Any]) -> Workload:
        """Return the workload with these values.

        Raises:
            WorkloadError: the file cannot have them.

        """
        return with_model_found(parse(self._changed(values), self._folder), self._folder)

    def _changed(self, values: Mapping[Axis, Any]) -> Document:
        document: Document = self._document.copy()
        for axis, value in values.items():
            axis.put(document, value)
        return document

    def _at(self, point: Point, fault: str) -> str:
        """Say where that stands which a fault names first, in the file or among what is varied."""
        document, where = self._changed(point.over), steps(key_of(fault))
        if where[0] in document.data:
            return f"{document.where(where).text}: "
        return f"{shown(point.settings)}: " if point.settings else ""

    def points(self, over: Sequence[Axis]) -> Iterator[Point]:
        """Yield every combination; without axes that is the file itself."""
        for values in product(*(axis.values for axis in over)):
            chosen = dict(zip(over, values, strict=True))
            yield Point({axis.key: value for axis, value in chosen.items()}, chosen, self.varied(chosen))

    def demand(self, points: Iterable[Point]) -> None:
        """Find what is wrong with some points before any of them runs.

        That a point does not fit in memory is a finding, which its jobs report; that none does is a mistake.

        Raises:
            UserError: no point fits; says why the first does not.
            WorkloadError: a point is at fault: it cannot be resolved, its trace or a data file is bad, or no request
                arrives.

        """
        fit, first, sources = False, None, set()
        for point in points:
            source = point.workload.requests.model_dump_json()
            try:
                setup = prepare(point.workload, traces=self.traces)
                if source not in sources:
                    setup.requests()
            except DoesNotFitError as error:
                first = first or error
            except (UserError, WorkloadError) as error:
                fault, *others = lines_of(error)
                raise WorkloadError(f"{self._at(point, fault)}{fault}", *others) from error
            else:
                fit = True
                sources.add(source)
        if not fit:
            raise UserError(f"nothing of it can run; the first: {first}")

    def job(self, workload: Workload, place: int, repeat: int) -> Job:
        """Make the job of one allocator of a workload, once."""
        alone = workload.model_copy(
            update={
                "allocators": (workload.allocators[place],),
                "telemetry": Telemetry(blocks="off"),
                "repeat": 1,
                "expect": {},
            }
        )
        named = json.dumps([alone.model.name, alone.requests.model_dump(mode="json"), alone.costs.calibration])
        if named not in self._digests:
            self._digests[named] = digest(alone)
        return Job(alone, self.labels[place], repeat, self._digests[named], traces=self.traces)

    def jobs(self, workload: Workload, repeats: int) -> list[Job]:
        """Make the jobs of all allocators and replications."""
        return [self.job(workload, place, repeat) for place in range(len(self.labels)) for repeat in range(repeats)]
