"""When requests arrive: each kind is a point process in time.

A process draws gaps of mean one and then scales them, so the same seed at another rate gives the same
pattern, faster or slower, and runs at different rates are comparable.  If the rate changes with time,
arrivals are a renewal process in *operational time*, the expected number of arrivals so far, which the
inverse of the cumulative rate maps back to seconds (Cinlar's method).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal, Self, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from workloads.distributions import Quantity
from workloads.requests import Floats
from workloads.spec import ByKind, Count, NotNegative, Positive, Share, Spec

Cv: TypeAlias = Annotated[float, Field(ge=0.01, le=100)]


def unit_gaps(rng: np.random.Generator, count: int, cv: float) -> Floats:
    """Draw float64[count]: Gamma gaps of mean one and coefficient of variation `cv`; exponential where it is 1."""
    if cv == 1:
        return rng.standard_exponential(count)
    return rng.standard_gamma(cv**-2, count) * cv**2


class Process(Spec):
    """Arrivals that do not depend on what the engine does (an open loop)."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw float64[count]: the first arrival times, seconds, ascending; the first ones do not depend on `count`."""

    @abstractmethod
    def mean_rate(self) -> float:
        """Arrivals a second over a long time."""


class Poisson(Process):
    """Independent users: exponential gaps."""

    kind: Literal["poisson"]
    rate: Positive
    """Mean arrivals a second."""

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Add up exponential gaps."""
        return np.cumsum(unit_gaps(rng, count, 1)) / self.rate

    def mean_rate(self) -> float:
        """Return the rate."""
        return self.rate


class Gamma(Process):
    """Burstier (cv > 1) or more regular (cv < 1) than Poisson: Gamma gaps; vLLM's `--burstiness` is 1/cv^2."""

    kind: Literal["gamma"]
    rate: Positive
    """Mean arrivals a second."""
    cv: Cv
    """Coefficient of variation of the gaps: standard deviation over mean; 1 is Poisson."""

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Add up Gamma gaps of shape 1/cv^2."""
        return np.cumsum(unit_gaps(rng, count, self.cv)) / self.rate

    def mean_rate(self) -> float:
        """Return the rate."""
        return self.rate


class Renewal(Process):
    """Independent gaps of any distribution, such as a measured one."""

    kind: Literal["renewal"]
    gap_s: Quantity
    """Seconds between arrivals."""

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Add up gaps."""
        return np.cumsum(self.gap_s.draw(rng, count))

    def mean_rate(self) -> float:
        """Estimate it from 4,096 gaps."""
        return 1 / max(float(self.gap_s.draw(np.random.default_rng(0), 4096).mean()), 1e-9)


class Fixed(Process):
    """Equal gaps of 1/rate seconds, the first request at 0."""

    kind: Literal["fixed"]
    rate: Positive
    """Mean arrivals a second."""

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Count ticks."""
        return np.arange(count) / self.rate

    def mean_rate(self) -> float:
        """Return the rate."""
        return self.rate


class OnOff(Process):
    """Bursts: a rate while on, another while off, both states of exponential length (a two-state MMPP)."""

    kind: Literal["on-off"]
    on_rate: Positive
    """Mean arrivals a second while on."""
    off_rate: NotNegative = 0.0
    """Mean arrivals a second while off."""
    on_s: Positive
    """Mean length of an on period, seconds; the first period is on."""
    off_s: Positive
    """Mean length of an off period, seconds."""

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw the periods, then the arrivals in them."""
        gaps, states = rng.spawn(2)
        work = np.cumsum(unit_gaps(gaps, count, 1))
        seconds, done = [np.zeros(1)], [np.zeros(1)]
        while done[-1][-1] <= work[-1]:
            lengths = states.standard_exponential((256, 2)) * (self.on_s, self.off_s)
            seconds.append(seconds[-1][-1] + np.cumsum(lengths))
            done.append(done[-1][-1] + np.cumsum(lengths * (self.on_rate, self.off_rate)))
        return np.interp(work, np.concatenate(done), np.concatenate(seconds))

    def mean_rate(self) -> float:
        """Weigh both rates by the time spent."""
        return (self.on_rate * self.on_s + self.off_rate * self.off_s) / (self.on_s + self.off_s)


class Diurnal(Process):
    """Day and night: the rate is mean x (1 + swing x sin(2 pi (t / period + phase)))."""

    kind: Literal["diurnal"]
    rate: Positive
    """Arrivals a second, averaged over a period."""
    swing: Share = 0.5
    """Amplitude as a share of the mean rate, 0 to 1: 0 is steady, 1 falls to nothing at night."""
    period_s: Positive = 86_400.0
    """Length of a day, seconds."""
    phase: Share = 0.0
    """Where in the period the workload starts, 0 to 1: 0 at the mean and rising, 0.25 at the peak, 0.75 at the trough.
    """
    cv: Cv = 1.0
    """Coefficient of variation of the gaps between arrivals, apart from what the changing rate adds; 1 is Poisson."""

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw in operational time and invert the cumulative rate, which is periodic apart from its trend."""
        work = np.cumsum(unit_gaps(rng, count, self.cv)) / (self.rate * self.period_s)
        whole: Floats = np.floor(work)
        x = np.linspace(0, 1, 1 << 16)
        turn = 2 * np.pi
        done = x + self.swing / turn * (np.cos(turn * self.phase) - np.cos(turn * (x + self.phase)))
        arrival: Floats = (whole + np.interp(work - whole, done, x)) * self.period_s
        return arrival

    def mean_rate(self) -> float:
        """Return the rate."""
        return self.rate


class Profile(Process):
    """A rate for each bin of time; after the last bin, they start again from the first."""

    kind: Literal["profile"]
    bin_s: Positive
    """Length of a bin, seconds."""
    rates: Annotated[tuple[NotNegative, ...], Field(min_length=1, max_length=100_000, strict=False)]
    """Arrivals a second in each bin."""
    rate_scale: Positive = 1.0
    """How many times as fast it all happens: rates are multiplied, and bins as much shorter, as with a trace."""
    cv: Cv = 1.0
    """Coefficient of variation of the gaps between arrivals, apart from what the changing rate adds; 1 is Poisson."""
    gaps: Quantity | None = None
    """Distribution of the gaps, of mean 1, before the changing rate stretches them; instead of Gamma gaps of that cv.
    """

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any(self.rates):
            raise ValueError("at least one of the rates must be above 0")
        return self

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw in operational time and invert the cumulative rate."""
        done = np.concatenate([[0], np.cumsum(np.array(self.rates) * self.bin_s)])
        times = np.arange(len(done)) * (self.bin_s / self.rate_scale)
        work = np.cumsum(unit_gaps(rng, count, self.cv) if self.gaps is None else self.gaps.draw(rng, count))
        whole = np.floor(work / done[-1])
        arrival: Floats = whole * times[-1] + np.interp(work - whole * done[-1], done, times)
        return arrival

    def mean_rate(self) -> float:
        """Average over the bins."""
        return float(np.mean(self.rates)) * self.rate_scale


class Batch(Spec):
    """All at once: an offline batch."""

    kind: Literal["batch"]
    at_s: NotNegative = 0.0
    """The instant at which all arrive, seconds from the start."""


class Closed(Spec):
    """A closed loop: each user sends the next request when the last is answered and thought about."""

    kind: Literal["closed"]
    users: Count
    """Number of users, hence the most requests in the system at once."""
    think_s: Quantity = Field(default=0.0, validate_default=True)
    """Seconds between an answer and the same user's next request; with sessions, next session."""
    ramp_s: NotNegative = 0.0
    """Seconds over which the users' first requests are spread evenly."""


Arrivals: TypeAlias = Annotated[
    Poisson | Gamma | Renewal | Fixed | OnOff | Diurnal | Profile | Batch | Closed,
    ByKind(),
]

Paced: TypeAlias = Poisson | Gamma | Fixed | Diurnal
"""The kinds with a single rate: at another rate, the pattern is the same, faster or slower."""
