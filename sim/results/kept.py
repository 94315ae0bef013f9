"""Which finished runs of a directory are kept when a workload is run into it, and which give way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from analysis.columns import is_whole
from analysis.rundir import TABLES
from analysis.written import SUSTAINED, altered, results
from sim.results.claims import changed, earlier, refuse
from sim.results.rundir import RESULTS

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

DEPENDS = ("workload", "files", "runs", "model", "device")
"""Keys of a manifest on which results depend."""
ALWAYS = ("requests", "steps")
"""Tables without which a run is not complete."""


class Kept(NamedTuple):
    """Results that a directory has, of the workload that is run into it."""

    runs: frozenset[str]
    """Folders of the runs that are complete, and as they were written."""
    written: dict[str, str]
    """SHA-256 of what is kept, by name, as far as it is known."""


def take(out: Path, manifest: dict[str, Any], *, resume: bool, force: bool) -> Kept | None:
    """Check that `out` may be written; return which of its results may be kept.

    Others are removed, because they would look like finished runs of this workload when it is resumed: also what was
    altered, of which no manifest will say so once there is a new one.
    """
    before = earlier(out)
    if before is None:
        return None
    if not force:
        demand_same(out, before, manifest, resume=resume)
    if resume and _keeps(before, manifest):
        return _sort_out(out, manifest["runs"], before.get("written") or {})
    _clear(out, before)
    return None


def _sort_out(out: Path, runs: Sequence[Mapping[str, Any]], written: Mapping[str, str]) -> Kept:
    """Remove the runs that are not complete or not as they were written, and what is made of all; list the others."""
    gone = {*RESULTS, *altered(out, (name for name in results(runs) if name not in RESULTS), written)}
    folders = [str(run["dir"]) for run in runs]
    kept = frozenset(folder for folder in folders if _is_complete(out, folder, gone))
    for folder in folders:
        if folder not in kept:
            _remove_tables(out / folder)
    for name in gone:
        (out / name).unlink(missing_ok=True)
    return Kept(kept, {name: known for name, known in written.items() if name not in gone and (out / name).exists()})


def _is_complete(out: Path, folder: str, gone: Container[str]) -> bool:
    """Whether every table of a run is there as a whole; which blocks there were, and what happened, may be missing."""
    paths = [out / folder / f"{table}.parquet" for table in TABLES]
    changed = any(f"{folder}/{path.name}" in gone for path in paths)
    return not changed and all(is_whole(path) for path in paths if path.stem in ALWAYS or path.exists())


def _remove_tables(folder: Path) -> None:
    """Remove the tables of a run, first the one without which it is not finished, and what was begun of them."""
    for table in TABLES:
        for path in (folder / f"{table}.parquet", folder / f"{table}.parquet.part"):
            path.unlink(missing_ok=True)


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
            _remove_tables(folder)
            (folder / SUSTAINED).unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
