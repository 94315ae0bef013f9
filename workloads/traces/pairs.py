"""Pairs of prompt and output lengths from two columns of a CSV."""

from __future__ import annotations

import numpy as np

from workloads.errors import WorkloadError
from workloads.requests import LONGEST, Ints
from workloads.traces.columns import read_csv
from workloads.traces.files import TraceFile
from workloads.traces.rows import fault_lines


def read_pairs(path: str, prompt: str, output: str) -> tuple[Ints, Ints]:
    """Read two named columns of a (gzip'd) CSV.

    Raises:
        WorkloadError: a column is not there, or a row holds no whole number of tokens.

    """
    columns = read_csv(TraceFile(path), {prompt: "number", output: "number"})
    faults = list(columns.faults)
    for name in (prompt, output):
        rows = np.flatnonzero(~((columns[name] >= 1) & (columns[name] < LONGEST)))
        lines = columns.lines(rows) if len(rows) else []
        faults += [
            (line, f"{name}: must be at least 1 and no absurd number, got {columns[name][row]:g}")
            for line, row in zip(lines, rows, strict=True)
        ]
    if faults:
        raise WorkloadError(*fault_lines(path, faults, len(columns[prompt]) + len(columns.faults)))
    if len(columns[prompt]) == 0:
        raise WorkloadError(f"{path}: no row in it")
    return np.rint(columns[prompt]).astype(np.int64), np.rint(columns[output]).astype(np.int64)
