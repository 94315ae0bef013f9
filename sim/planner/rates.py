"""The rate of a workload: where it is in the file, and the lattice of rates that a search visits.

Rates are the rate of the file times powers of two with dyadic exponents, so that searches for different
allocators and replications visit the same rates: they share runs, and their curves have common points.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from sim.errors import UserError
from workloads.arrivals import Process
from workloads.generate import requests as make_requests
from workloads.schema import Generated

if TYPE_CHECKING:
    from workloads.document import Where
    from workloads.schema import Workload


@dataclass(frozen=True)
class Rate:
    """How fast a workload comes."""

    place: Where
    value: float
    """As the file has it."""
    scale: float
    """What one unit of it is in `unit`."""
    unit: str
    """requests/s, or what a session or tree starts a second."""

    def at(self, exponent: Fraction) -> float:
        """Return the value of the file at 2^exponent times its own rate."""
        return float(f"{self.value * 2.0 ** float(exponent):.12g}")

    def shown(self, exponent: Fraction) -> float:
        """Return the rate in its unit."""
        return self.at(exponent) * self.scale


def rate_of(workload: Workload) -> Rate:
    """Find the rate of a workload.

    Raises:
        UserError: it has none that could be raised or lowered.

    """
    source = workload.requests
    arrivals = source.arrivals
    if isinstance(source, Generated) or arrivals is not None:
        unit = "sessions/s" if isinstance(source, Generated) and source.session is not None else "requests/s"
        for key in ("rate", "rate_scale"):
            if isinstance(arrivals, Process) and (value := getattr(arrivals, key, None)) is not None:
                return Rate(("requests", "arrivals", key), float(value), arrivals.mean_rate() / value, unit)
        kind = arrivals.kind if arrivals is not None else "none"
        raise UserError(
            f"requests.arrivals: a capacity is a rate, and {kind} arrivals have none to change; "
            "use poisson, gamma, fixed, diurnal or profile, or a trace with its own times"
        )
    recorded = make_requests(workload)
    span = float(recorded.arrival_s[-1] - recorded.arrival_s[0])
    if span <= 0:
        raise UserError("requests.trace: all its requests arrive at once, so it has no rate; give requests.arrivals")
    per_second = (len(recorded) - 1) / span / source.rate_scale
    return Rate(("requests", "rate_scale"), float(source.rate_scale), per_second, "requests/s")
