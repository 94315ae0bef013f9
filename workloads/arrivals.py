"""When requests arrive: each kind is a point process on the time axis.

A process draws gaps of mean one from its stream and then stretches them, so that the same
seed at another rate is the same pattern, faster or slower: a sweep over rates compares
like with like.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field

from workloads.requests import Floats
from workloads.spec import NotNegative, Positive, Spec


class Process(Spec):
    """Arrival times as a renewal process: independent gaps of one distribution."""

    rate: Positive
    """Requests a second, on average."""

    @abstractmethod
    def gaps(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw `count` gaps of mean one."""

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw the first `count` arrival times, seconds, ascending; the first follows one gap after 0."""
        return np.cumsum(self.gaps(rng, count)) / self.rate

    def expected(self, duration_s: float) -> float:
        """Mean number of arrivals in the first `duration_s` seconds."""
        return self.rate * duration_s


class Poisson(Process):
    """Independent users: exponential gaps."""

    kind: Literal["poisson"]

    def gaps(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw exponential gaps."""
        return rng.standard_exponential(count)


class Gamma(Process):
    """Burstier (cv > 1) or more regular (cv < 1) than Poisson: Gamma gaps, as vLLM's `--burstiness` is 1/cv^2."""

    kind: Literal["gamma"]
    cv: Positive
    """Coefficient of variation of the gaps: standard deviation over mean; 1 is Poisson."""

    def gaps(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw Gamma gaps of shape 1/cv^2."""
        shape = self.cv**-2
        return rng.standard_gamma(shape, count) / shape


class Fixed(Process):
    """A metronome: equal gaps of 1/rate seconds, the first request at 0."""

    kind: Literal["fixed"]

    def gaps(self, rng: np.random.Generator, count: int) -> Floats:
        """Return equal gaps, none before the first."""
        return np.concatenate([np.zeros(min(count, 1)), np.ones(max(count - 1, 0))])


class Batch(Spec):
    """All at once: an offline batch."""

    kind: Literal["batch"]
    at_s: NotNegative = 0.0
    """When, in seconds."""

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Return `count` times the same instant."""
        return np.full(count, self.at_s)


Arrivals: TypeAlias = Annotated[Poisson | Gamma | Fixed | Batch, Field(discriminator="kind")]
