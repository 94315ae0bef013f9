"""Estimates what a simulation would cost by running the beginning of it."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import UserError
from sim.runner import run_case
from sim.setup import prepare

if TYPE_CHECKING:
    from sim.planner.job import Job
    from workloads.requests import Requests

SAMPLE = 1000
"""Requests that are tried: of fewer, most run while the engine is filling and share their steps with few others."""


def seconds_per_request(job: Job) -> float:
    """Time the first requests of a job; 0 if it cannot run, which the sweep itself will report."""
    try:
        setup = prepare(job.workload)
    except UserError:
        return 0.0
    few = first(setup.requests(job.repeat), SAMPLE)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="kvsim-") as folder:
        run_case(setup, setup.cases[0], few, Path(folder))
    return (time.perf_counter() - started) / len(few)


def first(requests: Requests, count: int) -> Requests:
    """Return the first requests, which follow none of the others."""
    count = min(count, len(requests))
    prefixes = requests.prefixes
    return replace(
        requests,
        arrival_s=requests.arrival_s[:count],
        prompt_tokens=requests.prompt_tokens[:count],
        output_tokens=requests.output_tokens[:count],
        samples=requests.samples[:count],
        prefixes=None if prefixes is None else prefixes.take(np.arange(count)),
        after=requests.after[:count],
        delay_s=requests.delay_s[:count],
    )
