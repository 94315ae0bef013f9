"""A directory of finished jobs: one file each, named by what it computed, and complete if it exists.

    DIR/manifest.json      what the directory is: the question, the workload, what is varied
    DIR/cells/KEY.json     the record of one job
    DIR/results.parquet    one row for each run that the answer is made of
    DIR/summary.json       the answer

If any point of a grid or step of a search needs a job again, its record is read back, so resuming needs
nothing else.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.documents import SCHEMA_VERSION, read_json
from analysis.errors import RunDirectoryError
from analysis.planner.documents import RECORD
from analysis.planner.reading import ANSWERS, CELLS
from analysis.planner.rows import said
from analysis.rundir import WALL_CLOCK
from analysis.whole import whole
from analysis.written import MANIFEST, ROWS, SUMMARY, listed
from sim.files import digests
from sim.results.claims import changed, earlier, refuse
from sim.results.rundir import RESULTS, alone, write_json
from sim.versions import own

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sim.planner.job import Job, Record
    from workloads.schema import Workload

DEPENDS = ("workload", "files")
"""Keys of a manifest on which simulations depend, whatever is asked of them."""
DIGEST = "sha256"
"""Key of a record's file."""


class Store:
    """The directory of one sweep, capacity search or advice, to which no other process writes while it is open."""

    def __init__(
        self,
        folder: Path,
        question: str,
        workload: Workload,
        asked: Mapping[str, Any],
        *,
        resume: bool = False,
        force: bool = False,
    ) -> None:
        """Claim `folder` for a question about a workload.

        Args:
            folder: made if it is not there.
            question: sweep, capacity or advice.
            workload: the file before anything is varied.
            asked: the rest of the question, as the manifest has it.
            resume: keep the simulations that the folder holds of the same workload, whatever else was asked of it.
            force: simulations of another workload give way.

        Raises:
            UserError: the folder holds something else, or another process is at it.

        """
        self._folder, self._cells = folder, folder / CELLS
        self._manifest = manifest = {
            "schema": SCHEMA_VERSION,
            "question": question,
            "kvsim": own(),
            "name": workload.name,
            "workload": workload.resolved(),
            "files": digests(workload),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **asked,
        }
        earlier(folder, question)
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            held.enter_context(alone(folder))
            before = earlier(folder, question)  # as whoever was at it before has left it
            if before is not None:
                cells = list(self._cells.glob("*.json"))
                anew = changed(before, manifest, DEPENDS, aside=["repeat"])
                change = anew if resume else changed(before, manifest, (*DEPENDS, *asked))
                if change and cells and not force:
                    raise refuse(folder, change, resumable=not anew)
                if change or not resume:
                    for cell in cells:
                        cell.unlink()
            for name in RESULTS:  # of all cells together, so not of what is asked now
                (folder / name).unlink(missing_ok=True)
            write_json(folder / MANIFEST, manifest)
            self._cells.mkdir(parents=True, exist_ok=True)
            self._held = held.pop_all()

    def __enter__(self) -> Self:
        """Keep other processes from writing into the folder."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others write into it."""
        self._held.close()

    def get(self, job: Job) -> Record | None:
        """Return the record of a job that is done; None if it is not, or its file is no longer what was written."""
        try:
            record: Record = read_json(self._cells / f"{job.key}.json", RECORD, "it is done again")
        except RunDirectoryError:
            return None
        known = record.pop(DIGEST, None)  # records of earlier versions have none
        return record if known in (None, _digest(record)) else None

    def put(self, job: Job, record: Record) -> None:
        """Keep the record of a job, with its SHA-256: unlike a manifest's, it is there as soon as the record is."""
        write_json(self._cells / f"{job.key}.json", {**record, DIGEST: _digest(record)})

    def answer(self, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
        """Write what was found: a tidy table of all runs, the summary, and last the digests of both."""
        with whole(self._folder / ROWS) as part:
            pq.write_table(table(rows), part, compression="zstd")
        write_json(self._folder / SUMMARY, summary)
        write_json(self._folder / MANIFEST, {**self._manifest, "written": listed(self._folder, ANSWERS)})


def _digest(record: Record) -> str:
    """Return the SHA-256 of what a record says of the workload, however it is laid out."""
    said = {name: value for name, value in record.items() if name not in WALL_CLOCK}
    text = json.dumps(json.loads(json.dumps(said)), sort_keys=True)  # keys are text in a file, whatever they were
    return sha256(text.encode()).hexdigest()


def table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Make the tidy table; a setting that is a number here and a word there is text."""
    columns = {}
    for name in rows[0]:
        values = [one[name] for one in rows]
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        elif len(kinds) > 1:
            values = [None if value is None else said(value) for value in values]
        columns[name] = pa.array(values, None if kinds else pa.float64())
    return pa.table(columns)
