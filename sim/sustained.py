"""The rate of arrivals that an allocator sustains: where the mean normalized latency reaches a limit.

Below the rate that memory and compute allow, latency hardly depends on the rate; above it, the queue
grows for as long as requests arrive.  So figures 12 to 17 of the PagedAttention paper compare systems by
their rates at equal latency.  The rate is enclosed between two rates that are close together, and then
interpolated.  Every allocator sees the same requests at every rate, only faster or slower.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analysis.metrics import normalized_latency_s
from analysis.observed import Observed, plain
from sim.serve import Progress, serve
from workloads.arrivals import Paced
from workloads.read_once import Traces
from workloads.schema import Telemetry
from workloads.source import Mix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sim.case import Case
    from sim.setup import Setup
    from workloads.published import Sustained
    from workloads.schema import Workload
    from workloads.source import Generated
    from workloads.trace import Trace

STRIDE = 1.4
"""Factor between two rates as long as none has reached the limit."""
MOST = 24
"""Most rates to try."""
FEWEST = 10
"""Fewest requests that must arrive at a rate for its latency to be meaningful."""


class Tried(NamedTuple):
    """One rate and its results."""

    rate: float
    latency_s: float
    """Mean normalized latency."""
    served: float
    """Requests finished per second, in the second half of the time in which they arrived."""


class Search:
    """Finds the sustained rates of a workload's allocators."""

    def __init__(self, setup: Setup, wanted: Sustained, progress: Callable[[Progress], None] | None) -> None:
        """Prepare to search for the rates at which `wanted` is just met."""
        self._setup = setup._replace(traces=Traces())
        self._rate = wanted.from_rate or _paced(setup.workload)[1].rate
        self._limit = wanted.normalized_latency_s
        self._tolerance = wanted.tolerance
        self._duration_s = wanted.duration_s
        self._progress = progress
        self._from: dict[str, float] = {}
        """By label: the rate that an earlier replication has found."""

    def begin(self, label: str, found: Mapping[str, Any]) -> None:
        """Let later replications of an allocator start at the rate that an earlier one has found."""
        if found["rps"] is not None:
            self._from[label] = found["rps"]

    def of(self, case: Case, repeat: int) -> dict[str, Any]:
        """Search for the rate of one allocator.

        Returns:
            `rps`, the rate (null if no rate reaches the limit), and `tried`: rate, latency and requests served.

        """
        tried: list[Tried] = []
        low: Tried | None = None
        high: Tried | None = None
        rate, steps, found = self._from.get(case.label, self._rate), 0, None
        while len(tried) < MOST and found is None:
            now = self._try(case, rate, repeat)
            if now is None:
                break
            tried.append(now)
            if now.latency_s > self._limit:
                high, steps = now, 0
            else:
                low, steps = now, steps + 1
            if low is not None and high is not None and high.rate <= low.rate * (1 + self._tolerance):
                found = _crossing(low, high, self._limit)
            rate = self._next(low, high, steps)
        return {"rps": found, "normalized_latency_s": self._limit, "tried": [one._asdict() for one in sorted(tried)]}

    def _next(self, low: Tried | None, high: Tried | None, steps: int) -> float:
        """Choose the next rate between those that enclose the sustained one, as far as known.

        An overloaded engine serves about the rate that it sustains.  If that turns out to be too low, rates just above
        it follow, in steps that double, but never beyond the geometric mean of the two.
        """
        if high is None:
            return (low.rate if low else self._rate) * STRIDE
        close = 1 + 0.9 * self._tolerance
        if low is None:
            return max(min(high.served, high.rate / close), high.rate / 4)
        if low.rate * close < high.served < high.rate / close:
            return high.served
        half = math.sqrt(low.rate * high.rate)
        if high.served >= high.rate / close:
            return max(high.rate / close, half)
        return min(low.rate * math.pow(close, 2 ** max(steps - 1, 0)), half)

    def _try(self, case: Case, rate: float, repeat: int) -> Tried | None:
        """Run one rate; None if no request finishes, or too few would arrive."""
        workload = at_rate(self._setup.workload, rate, self._duration_s)
        if rate * (getattr(workload.requests, "duration_s", None) or math.inf) < FEWEST:
            return None
        setup = self._setup._replace(workload=workload)
        requests = setup.requests(repeat)
        label, total = f"{case.label} at {rate:.3g} req/s", len(requests)

        def report(done: int) -> None:
            if self._progress is not None:
                self._progress(Progress(label, repeat, done, total))

        sink = _RequestsOnly()
        serve(setup, case, requests, sink, progress=report)
        latency = normalized_latency_s(Observed(sink.columns, {}, case.pool.slots))
        if not np.isfinite(latency).any():
            return None
        finish, last = sink.columns["finish_s"], float(requests.arrival_s[-1])
        later = int(np.count_nonzero((finish > last / 2) & (finish <= last)))
        return Tried(rate, float(np.nanmean(latency)), later / (last / 2))


def at_rate(workload: Workload, rate: float, duration_s: float | None) -> Workload:
    """Return the workload at another rate, with every request finished and no block map; `duration_s` if given."""
    source, arrivals = _paced(workload)
    changes: dict[str, Any] = {"arrivals": arrivals.model_copy(update={"rate": rate})}
    if duration_s is not None:
        changes |= {"duration_s": duration_s, "count": None}
    return workload.model_copy(
        update={"requests": source.model_copy(update=changes), "horizon_s": None, "telemetry": Telemetry(blocks="off")}
    )


def _paced(workload: Workload) -> tuple[Generated | Trace, Paced]:
    source = workload.requests
    if isinstance(source, Mix) or not isinstance(source.arrivals, Paced):
        raise TypeError("a workload with `sustained` has arrivals with a rate")
    return source, source.arrivals


class _RequestsOnly:
    """A sink that keeps only the columns of requests."""

    def __init__(self) -> None:
        self.columns: dict[str, np.ndarray[Any, np.dtype[Any]]] = {}

    def write(self, table: str, columns: Mapping[str, object]) -> None:
        """Keep the requests, which are written at once."""
        if table == "requests":
            self.columns = plain(columns)


def _crossing(low: Tried, high: Tried, limit: float) -> float:
    """Interpolate the rate at which latency reaches the limit, linearly in logarithms."""
    share = math.log(limit / low.latency_s) / math.log(high.latency_s / low.latency_s)
    return low.rate * math.pow(high.rate / low.rate, share)
