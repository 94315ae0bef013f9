"""A directory of finished jobs: one file each, named by what it computed, and complete if it exists.

    DIR/manifest.json      what the directory is: the question, the workload, what is varied
    DIR/cells/KEY.json     the record of one job

If any point of a grid or step of a search needs a job again, its record is read back, so resuming needs
nothing else.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from analysis.planner.reading import CELLS, SCHEMA_VERSION
from sim.errors import UserError
from sim.rundir import RESULTS, write_json
from sim.versions import own

if TYPE_CHECKING:
    from pathlib import Path

    from sim.planner.job import Job, Record
    from workloads.schema import Workload


class Store:
    """The directory of one sweep, capacity search or advice."""

    def __init__(self, folder: Path, question: str, workload: Workload, *, resume: bool = False) -> None:
        """Claim `folder` for a question about a workload.

        Args:
            folder: made if it is not there.
            question: sweep, capacity or advice.
            workload: the file before anything is varied.
            resume: keep what the folder holds, if it is of the same question and workload.

        Raises:
            UserError: the folder holds something else.

        """
        self.folder = folder
        self._cells = folder / CELLS
        self.manifest: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "question": question,
            "kvsim": own(),
            "name": workload.name,
            "workload": workload.resolved(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        before = self._before(question)
        if before is not None and resume:
            if before["workload"] != json.loads(json.dumps(self.manifest["workload"])):
                raise UserError(
                    f"{folder}: holds {question} results of another workload; give another --out, or leave out --resume"
                )
        elif before is not None:
            for cell in self._cells.glob("*.json"):
                cell.unlink()
        for name in RESULTS:  # of all cells together, so not of what is asked now
            (folder / name).unlink(missing_ok=True)
        self._cells.mkdir(parents=True, exist_ok=True)
        self.describe({})

    def _before(self, question: str) -> dict[str, Any] | None:
        """Return the manifest of what the folder holds already; None if it is empty."""
        path = self.folder / "manifest.json"
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder}: is a file; give a directory")
        if not path.exists():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise UserError(
                    f"{self.folder}: holds other files and no manifest.json; give an empty or a new directory"
                )
            return None
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(f"{path}: not readable as JSON; give another --out") from None
        found = before.get("question", "run") if isinstance(before, dict) else "run"
        if found != question:
            raise UserError(f"{self.folder}: holds {found} results, not {question} results; give another --out")
        known: dict[str, Any] = before
        return known

    def describe(self, facts: dict[str, Any]) -> None:
        """Write the manifest, with these facts added."""
        self.manifest |= facts
        write_json(self.folder / "manifest.json", self.manifest)

    def get(self, job: Job) -> Record | None:
        """Return the record of a job that is done; None if it is not."""
        path = self._cells / f"{job.key}.json"
        if not path.exists():
            return None
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        return record

    def put(self, job: Job, record: Record) -> None:
        """Keep the record of a job."""
        write_json(self._cells / f"{job.key}.json", record)
