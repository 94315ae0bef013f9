"""Which finished runs of a directory are kept when a workload is run into it, and which give way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis.columns import is_whole
from analysis.reading import SUSTAINED
from analysis.rundir import TABLES
from sim.claims import changed, earlier, refuse
from sim.rundir import RESULTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEPENDS = ("workload", "files", "runs", "model", "device")
"""Keys of a manifest on which results depend."""
ALWAYS = ("requests", "steps")
"""Tables without which a run is not complete."""


def take(out: Path, manifest: dict[str, Any], *, resume: bool, force: bool) -> bool:
    """Check that `out` may be written; return whether finished runs in it may be kept.

    Others are removed, because they would look like finished runs of this workload when it is resumed.
    """
    before = earlier(out)
    if before is None:
        return False
    if not force:
        demand_same(out, before, manifest, resume=resume)
    if resume and _keeps(before, manifest):
        return True
    _clear(out, before)
    return False


def demand_same(out: Path, before: Mapping[str, Any], manifest: Mapping[str, Any], *, resume: bool) -> None:
    """Raise UserError if `out` has finished runs of something else than a manifest, which are not kept."""
    finished = any((out / str(run["dir"]) / "requests.parquet").exists() for run in before.get("runs", ()))
    keeps = _keeps(before, manifest)
    if finished and (change := changed(before, manifest, DEPENDS)) and not (resume and keeps):
        raise refuse(out, change, resumable=keeps)


def _keeps(before: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    """Whether runs of one manifest are those of another: of the same workload, however often it is repeated."""
    listed = [{run.get("repeat", 0) for run in said.get("runs", ())} for said in (before, manifest)]
    both = set.intersection(*listed)
    there, here = (
        {**said, "runs": [run for run in said.get("runs", ()) if run.get("repeat", 0) in both]}
        for said in (before, manifest)
    )
    return not changed(there, here, (*DEPENDS, "kvsim"), aside=["repeat"])


def _clear(out: Path, before: Mapping[str, Any]) -> None:
    """Remove the results that a manifest lists, and folders that are empty then; everything else stays.

    Replications that it does not list any more are removed, too.
    """
    for name in RESULTS:
        (out / name).unlink(missing_ok=True)
    listed = {out / str(run["dir"]) for run in before.get("runs", ())}
    others = {other for folder in listed for other in folder.glob("repeat-*")}
    for folder in sorted(listed | others, reverse=True):  # a folder after those inside it
        if folder.is_dir():
            for name in (*(f"{table}.parquet" for table in TABLES), SUSTAINED):
                (folder / name).unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()


def complete(folder: Path) -> bool:
    """Whether every table of a run is there as a whole; which blocks there were, and what happened, may be left out."""
    tables = [folder / f"{table}.parquet" for table in TABLES]
    return all(is_whole(path) for path in tables if path.stem in ALWAYS or path.exists())
