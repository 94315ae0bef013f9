"""The rate of a workload: where it is in the file, and the lattice of rates that a search visits.

Rates are the rate of the file times powers of two with dyadic exponents, so that searches for different
allocators and replications visit the same rates: they share runs, and their curves have common points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import UserError
from workloads.arrivals import Batch, Closed, Process
from workloads.generate import requests as make_requests
from workloads.labels import part_names, unknown_part
from workloads.source import Generated, Mix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workloads.document import Where
    from workloads.read_once import Traces
    from workloads.requests import Floats
    from workloads.schema import Workload
    from workloads.trace import Trace


@dataclass(frozen=True)
class Rate:
    """How fast a workload comes."""

    place: Where
    value: float
    """As the file has it."""
    scale: float
    """What one unit of it is in `unit`."""
    unit: str
    """requests/s, or what a session or tree starts a second; arrivals/s where a mix has both."""

    def at(self, exponent: Fraction) -> float:
        """Return the value of the file at 2^exponent times its own rate."""
        return float(f"{self.value * 2.0 ** float(exponent):.12g}")

    def shown(self, exponent: Fraction) -> float:
        """Return the rate in its unit."""
        return self.at(exponent) * self.scale


def rate_of(workload: Workload, traces: Traces, part: str = "") -> Rate:
    """Find the rate of a workload; of a mix that of all parts together, which keep their proportions.

    Args:
        workload: it.
        traces: where its traces are read.
        part: name of the part of a mix whose rate alone is meant, while the others stay as they are.

    Raises:
        UserError: it has none that could be raised or lowered.
        WorkloadError: it has no such part.

    """
    source = workload.requests
    if part:
        parts = part_names(source)
        if not isinstance(source, Mix) or part not in parts:
            raise unknown_part(part, parts, f"--part {part}")
        place = parts.index(part)
        rate = _of_one(workload, traces, source.mix[place], ("requests", "mix", place), place)
        return replace(rate, scale=rate.scale * source.rate_scale, unit=f"{rate.unit} of {part}")
    if isinstance(source, Mix):
        per_second = _together(workload, traces, source)
        return Rate(("requests", "rate_scale"), float(source.rate_scale), per_second, _unit(source.mix))
    return _of_one(workload, traces, source, ("requests",))


def _of_one(
    workload: Workload, traces: Traces, source: Generated | Trace, where: Where, part: int | None = None
) -> Rate:
    """Find the rate of requests that are no mix, or of one part, as if the mix came no faster than its parts say."""
    arrivals, dotted = source.arrivals, ".".join(map(str, where))
    if isinstance(source, Generated) or arrivals is not None:
        for key in ("rate", "rate_scale"):
            if isinstance(arrivals, Process) and (value := getattr(arrivals, key, None)) is not None:
                return Rate((*where, "arrivals", key), float(value), arrivals.mean_rate() / value, _unit([source]))
        kind = arrivals.kind if arrivals is not None else "none"
        raise UserError(
            f"{dotted}.arrivals: a capacity is a rate, and {kind} arrivals have none to change; "
            "use poisson, gamma, fixed, diurnal or profile, or a trace with its own times"
        )
    made = make_requests(workload, traces=traces)
    arrival_s = made.arrival_s if part is None else made.arrival_s[made.part == part] * _scale(workload)
    per_second = _recorded(arrival_s, dotted) / source.rate_scale
    return Rate((*where, "rate_scale"), float(source.rate_scale), per_second, _unit([source]))


def _scale(workload: Workload) -> float:
    """How many times as fast a mix comes as its parts say."""
    return float(getattr(workload.requests, "rate_scale", 1.0))


def _together(workload: Workload, traces: Traces, mix: Mix) -> float:
    """Add up what the parts of a mix start a second, at a `rate_scale` of 1."""
    total = 0.0
    for place, part in enumerate(mix.mix):
        where = f"requests.mix.{place}"
        if isinstance(part.arrivals, Process):
            total += part.arrivals.mean_rate()
        elif part.arrivals is None:
            made = make_requests(workload, traces=traces)
            total += _recorded(made.arrival_s[made.part == place], where) / mix.rate_scale
        else:
            raise UserError(
                f"{where}.arrivals: a capacity is the rate of all parts together, and {part.arrivals.kind} arrivals "
                "have none to change; use a process such as poisson, or a trace with its own times"
            )
    return total


def _unit(sources: Sequence[Generated | Trace]) -> str:
    """Say what comes a second."""
    sessions = {isinstance(source, Generated) and source.session is not None for source in sources}
    return "arrivals/s" if len(sessions) > 1 else "sessions/s" if True in sessions else "requests/s"


def _recorded(arrival_s: Floats, where: str) -> float:
    """Return how many a second arrive that a trace has times of."""
    span = float(arrival_s[-1] - arrival_s[0])
    if span <= 0:
        raise UserError(f"{where}.trace: all its requests arrive at once, so it has no rate; give {where}.arrivals")
    return (len(arrival_s) - 1) / span


def together(workload: Workload, traces: Traces, repeat: int = 0) -> float | None:
    """Return for how long the part of a mix that ends first keeps coming, as a share of how long the last one does.

    Requests that wait for others are left aside, and so are parts without a rate.  None of less than two parts.
    """
    source = workload.requests
    if not isinstance(source, Mix):
        return None
    made = make_requests(workload, repeat, traces=traces)
    begins = made.after < 0 if len(made.after) else np.ones(len(made), np.bool_)
    until = []
    for place, part in enumerate(source.mix):
        if not isinstance(part.arrivals, Batch | Closed):
            last = float(made.arrival_s[begins & (made.part == place)].max(initial=0.0))
            until.append(part.duration_s or last if isinstance(part, Generated) else last)
    return min(until) / max(until) if len(until) > 1 and max(until) else None
