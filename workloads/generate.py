"""From a workload to its requests: drawn, or read from a trace."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from workloads.arrivals import Batch
from workloads.errors import WorkloadError
from workloads.requests import Requests
from workloads.schema import Generated, Workload
from workloads.streams import stream

if TYPE_CHECKING:
    from workloads.requests import Floats

MOST = 50_000_000
"""Requests; a duration that needs more is a mistake in the rate."""


def requests(workload: Workload, repeat: int = 0) -> Requests:
    """Make the requests of replication `repeat`; the same workload and repeat give the same requests.

    A replayed trace is the same in every replication.

    Raises:
        WorkloadError: a data file or trace is bad, or no request arrives.

    """
    source = workload.requests
    if isinstance(source, Generated):
        return _generated(source, workload.seed, repeat)
    from workloads.traces import read  # noqa: PLC0415 - generated workloads need no reader

    return read(source)


def _generated(source: Generated, seed: int, repeat: int) -> Requests:
    arrival = _arrivals(source, seed, repeat)
    count = len(arrival)
    if count == 0:
        raise WorkloadError(f"requests: none arrives within {source.duration_s:g} s at this rate")
    prompt, output = source.lengths.draw(stream(seed, "lengths", repeat), count)
    samples = np.full(count, source.samples) if source.samples > 1 else np.zeros(0, np.int64)
    return Requests(arrival, prompt, output, samples, source.beam)


def _arrivals(source: Generated, seed: int, repeat: int) -> Floats:
    """Draw arrival times by count, or as many as fit in the duration."""
    process = source.arrivals
    if source.count is not None or isinstance(process, Batch):
        return process.draw(stream(seed, "arrivals", repeat), source.count or 0)
    duration = source.duration_s or 0.0
    guess = process.expected(duration)
    while True:
        count = math.ceil(guess + 6 * math.sqrt(guess) + 16)
        if count > MOST:
            raise WorkloadError(f"requests: about {guess:,.0f} requests in {duration:g} s; at most {MOST:,} are drawn")
        # The same stream from its start: the first arrivals are the same however many are drawn.
        times = process.draw(stream(seed, "arrivals", repeat), count)
        if times[-1] >= duration:
            return times[times < duration]
        guess *= 2
