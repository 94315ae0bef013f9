"""BurstGPT: a CSV of ChatGPT and GPT-4 requests; a response of 0 tokens is a request that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.options import meant
from workloads.errors import WorkloadError
from workloads.traces.base import Options
from workloads.traces.columns import Kind, read_csv
from workloads.traces.rows import Rows

if TYPE_CHECKING:
    from workloads.traces.files import TraceFile


class BurstGpt:
    """Version 1.1, and 2.0 with session and elapsed time; columns are found by name."""

    name = "burstgpt"
    about = "BurstGPT 1.1 and 2.0: Timestamp (s), Model, Request tokens, Response tokens (0: failed)"

    def matches(self, file: TraceFile) -> bool:
        """Say whether the header has the columns."""
        return {"Timestamp", "Request tokens", "Response tokens"} <= set(file.header)

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read all requests, or those of one model."""
        wanted: dict[str, Kind] = {"Timestamp": "number", "Request tokens": "number", "Response tokens": "number"}
        models = "Model" in file.header
        if options.only_model and not models:
            raise WorkloadError(f"{file.name}:1: no column Model to find those of {options.only_model} by")
        columns = read_csv(file, {**wanted, "Model": "text"} if models else wanted)
        keep = np.arange(len(columns["Timestamp"]))
        notes = []
        if models and options.only_model:
            keep = np.flatnonzero(columns["Model"] == options.only_model)
            if not len(keep):
                known = sorted({str(model) for model in columns["Model"]})
                wanted_model = f"{options.only_model}{meant(options.only_model, known)}"
                raise WorkloadError(f"{file.name}: no row is of model {wanted_model}; there are: {', '.join(known)}")
            notes.append(f"{len(keep):,} of {len(columns['Model']):,} rows are of model {options.only_model}")
        return Rows(
            columns["Timestamp"][keep],
            columns["Request tokens"][keep],
            columns["Response tokens"][keep],
            lambda rows: columns.lines(keep[rows]),
            columns.faults,
            notes=notes,
        )


FORMAT = BurstGpt()
