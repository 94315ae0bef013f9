"""Whether the files of a run belong together: one that was changed, or that is of another run, is told by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.errors import AGAIN, REMOVE, RunDirectoryError
from analysis.written import altered

Column = npt.NDArray[Any]


def demand_ids(path: Path, ids: Column) -> None:
    """Raise RunDirectoryError unless the ids of requests ascend from 0 or above, one a row."""
    _demand(path, np.diff(ids, prepend=-1).min(initial=1) > 0, "request_id does not ascend")


def demand_known(path: Path, ids: Column, known: Column) -> None:
    """Raise RunDirectoryError if a table names requests that did not come; -1 is none."""
    inside = ids.min(initial=0) >= -1 and ids.max(initial=-1) <= known.max(initial=-1)
    _demand(path, inside, "names a request that is not in requests.parquet")


def demand_blocks(path: Path, blocks: Mapping[str, Column], num_blocks: int) -> None:
    """Raise RunDirectoryError unless every run of blocks is inside the pool, whose blocks count from 1."""
    first, count = blocks["block"], blocks["count"]
    ends = np.add(first, count, dtype=np.int64)  # of a file that was changed they may not fit in 32 bits
    inside = min(first.min(initial=1), count.min(initial=1)) > 0 and ends.max(initial=1) - 1 <= num_blocks
    _demand(path, inside, f"has blocks that a pool of {num_blocks:,} does not")


def demand_same(path: Path, entry: Mapping[str, Any], folder: Path, requests: int, duration_s: float) -> None:
    """Raise RunDirectoryError unless an entry of summary.json is of the tables in a folder.

    Args:
        path: of summary.json.
        entry: of the run.
        folder: where its tables are.
        requests: rows of requests.parquet.
        duration_s: sum of the steps.

    """
    said = entry["requests"]["total"], entry["duration_s"]
    same = said[0] == requests and math.isclose(said[1], duration_s, rel_tol=1e-9, abs_tol=1e-9)
    _demand(
        path,
        same,
        f"says {said[0]:,} requests in {said[1]:.6g} s, and the tables in {folder} {requests:,} in {duration_s:.6g} s",
        f"remove the one that is of another run, and {AGAIN}",
    )


def demand_written(folder: Path, names: Iterable[str], written: Mapping[str, str] | None, again: str) -> None:
    """Raise RunDirectoryError if a result is there, but not what was written.

    Args:
        folder: the directory.
        names: of its results.
        written: their digests, as its manifest lists them, if it does.
        again: how to get a new one, as the end of a sentence.

    """
    for name in altered(folder, names, written or {}):
        if (folder / name).exists():
            raise RunDirectoryError(
                f"{folder / name}: its SHA-256 is not the one in manifest.json: it was changed, or is of another run; "
                f"{again}"
            )


def _demand(path: Path, holds: object, wrong: str, right: str = REMOVE) -> None:
    if not holds:
        raise RunDirectoryError(f"{path}: {wrong}: it was changed, or is of another run; {right}")
