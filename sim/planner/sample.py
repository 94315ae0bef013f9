"""Estimates how long a simulation will take by running its first requests."""

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
from workloads.source import Generated, parts_of

if TYPE_CHECKING:
    from sim.planner.job import Job
    from workloads.requests import Ints, Requests

SAMPLE = 1000
"""Requests that are tried, about: of fewer, most run while the engine is filling and share steps with few others."""


def seconds_per_request(job: Job) -> float:
    """Time the first requests of a job; 0 if it cannot run, which the sweep itself will report."""
    try:
        setup = prepare(job.workload, traces=job.traces)
    except UserError:
        return 0.0
    sources = parts_of(job.workload.requests)
    closed = any(isinstance(source, Generated) and source.arrivals.kind == "closed" for source in sources)
    few = beginning(setup.requests(job.repeat), SAMPLE, closed=closed)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="kvsim-") as folder:
        run_case(setup, setup.cases[0], few, Path(folder))
    return (time.perf_counter() - started) / len(few)


def beginning(requests: Requests, count: int, *, closed: bool = False) -> Requests:
    """Return about as many of the first requests as asked for; none of them follows one that is left out.

    Sessions are taken as a whole, because prompts of later turns are longer, and most of the first requests to arrive
    are first turns.  In a closed loop, a request that follows another one is the next of the same user; as fewer users
    would mean smaller batches, requests are then taken in the order of arrival.
    """
    if closed or not (requests.after >= 0).any():
        chosen = np.arange(min(count, len(requests)))
    else:
        session = _sessions(requests)
        last = session[np.argsort(session, kind="stable")[min(count, len(requests)) - 1]]
        chosen = np.flatnonzero(session <= last)
    place = np.full(len(requests) + 1, -1)  # the last stands for -1, nobody
    place[chosen] = np.arange(len(chosen))
    prefixes, linked = requests.prefixes, len(requests.after) > 0
    return replace(
        requests,
        arrival_s=requests.arrival_s[chosen],
        prompt_tokens=requests.prompt_tokens[chosen],
        output_tokens=requests.output_tokens[chosen],
        samples=requests.samples[chosen] if len(requests.samples) else requests.samples,
        prefixes=None if prefixes is None else prefixes.take(chosen),
        after=place[requests.after[chosen]] if linked else requests.after,
        delay_s=requests.delay_s[chosen] if linked else requests.delay_s,
        part=requests.part[chosen] if requests.parts else requests.part,
    )


def _sessions(requests: Requests) -> Ints:
    """Return of each request the first one of its session: int64[n]."""
    session = np.arange(len(requests))
    for request, before in enumerate(requests.after.tolist()):
        if before >= 0:
            session[request] = session[before]
    return session
