"""Distributions of one quantity: token counts, turns, think times.

Each is given by the figures that are usually reported (a mean and a 90th percentile, or a mean and a
coefficient of variation) and clipped to a range.  Correlated quantities of a request are drawn through a
Gaussian copula: `from_normal` turns a standard normal into a draw, so correlated normals become correlated
draws of any two distributions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from workloads.requests import Floats
from workloads.spec import ByKind, NotNegative, Positive, Spec

Z90 = 1.2815515655446004
"""The 90th percentile of the standard normal distribution."""


class Distribution(Spec):
    """A distribution clipped to [min, max]."""

    min: NotNegative = 0.0
    """Lower bound: smaller draws become this."""
    max: NotNegative | None = None
    """Upper bound: larger draws become this; none if not given."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max {self.max:g} is less than min {self.min:g}")
        return self

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw float64[count]; the first ones are the same however many are drawn."""
        return np.clip(self.sample(rng, count), self.min, self.max)

    def from_normal(self, normal: Floats) -> Floats:
        """Turn standard normals, float64[n], into draws, larger into larger (the inverse CDF of the normal's CDF)."""
        return np.clip(self.transform(normal), self.min, self.max)

    @abstractmethod
    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw before clipping."""

    @abstractmethod
    def transform(self, normal: Floats) -> Floats:
        """Do as `from_normal`, before clipping."""


def normal_cdf(normal: Floats) -> Floats:
    """Return the standard normal's cumulative distribution."""
    from scipy.special import ndtr  # noqa: PLC0415 - scipy costs 0.2 s that only correlated draws need

    probability: Floats = ndtr(normal)
    return probability


class FixedShape(Distribution):
    """Always the same."""

    value: NotNegative
    """The value."""

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Return equal values."""
        return np.full(count, float(self.value))

    def transform(self, normal: Floats) -> Floats:
        """Return equal values."""
        return np.full(len(normal), float(self.value))


class UniformShape(Distribution):
    """Uniform between min and max."""

    max: NotNegative
    """The largest value."""

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw uniformly."""
        return self.min + (self.max - self.min) * rng.random(count)

    def transform(self, normal: Floats) -> Floats:
        """Invert the CDF."""
        return self.min + (self.max - self.min) * normal_cdf(normal)


class ExponentialShape(Distribution):
    """Exponential: no memory."""

    mean: Positive
    """Mean before the bounds are applied."""

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw exponentials."""
        return rng.standard_exponential(count) * self.mean

    def transform(self, normal: Floats) -> Floats:
        """Invert the CDF."""
        return -self.mean * np.log(normal_cdf(-normal))


class LognormalShape(Distribution):
    """Lognormal, by its mean and either its 90th percentile or its sigma."""

    mean: Positive
    """Mean before the bounds are applied."""
    p90: Positive | None = None
    """90th percentile before the bounds are applied; give this or sigma."""
    sigma: Positive | None = None
    """Standard deviation of the natural logarithm; give this or p90."""

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if (self.p90 is None) == (self.sigma is None):
            raise ValueError("give either p90 or sigma beside mean")
        if self.p90 is not None:
            most = self.mean * math.exp(Z90**2 / 2)
            if not self.mean < self.p90 <= most:
                raise ValueError(
                    f"a lognormal of mean {self.mean:g} has its p90 above the mean and at most at "
                    f"{most:.1f} (2.27 x mean), not at {self.p90:g}"
                )
        return self

    def _parameters(self) -> tuple[float, float]:
        """Mean and standard deviation of the logarithm."""
        sigma = self.sigma
        if sigma is None:
            # ln(p90 / mean) = Z90 sigma - sigma^2 / 2; the smaller root is the ordinary, less skewed one.
            sigma = Z90 - math.sqrt(max(Z90**2 - 2 * math.log((self.p90 or 0) / self.mean), 0))
        return math.log(self.mean) - sigma**2 / 2, sigma

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw lognormals."""
        return self.transform(rng.standard_normal(count))

    def transform(self, normal: Floats) -> Floats:
        """Stretch, shift and exponentiate."""
        mu, sigma = self._parameters()
        with np.errstate(over="ignore"):
            return np.exp(mu + sigma * normal)


class GammaShape(Distribution):
    """Gamma, by its mean and coefficient of variation."""

    mean: Positive
    """Mean before the bounds are applied."""
    cv: Annotated[float, Field(ge=0.01, le=100)]
    """Coefficient of variation: standard deviation / mean; 1 is exponential."""

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw Gammas of shape 1/cv^2."""
        shape = self.cv**-2
        return rng.standard_gamma(shape, count) * (self.mean / shape)

    def transform(self, normal: Floats) -> Floats:
        """Invert the CDF."""
        from scipy.special import gammaincinv  # noqa: PLC0415 - scipy costs 0.2 s that only correlated draws need

        shape = self.cv**-2
        quantile: Floats = gammaincinv(shape, normal_cdf(normal)) * (self.mean / shape)
        return quantile


class QuantilesShape(Distribution):
    """A measured distribution as its quantiles at even steps of probability, straight lines between them."""

    values: Annotated[tuple[NotNegative, ...], Field(min_length=2, max_length=100_001, strict=False)]
    """The quantiles, ascending, from the minimum to the maximum."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        for before, after in zip(self.values, self.values[1:], strict=False):
            if after < before:
                raise ValueError(f"values must ascend, but {before:g} stands before {after:g}")
        return self

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw by inverting the CDF."""
        return self._at(rng.random(count))

    def transform(self, normal: Floats) -> Floats:
        """Invert the CDF."""
        return self._at(normal_cdf(normal))

    def _at(self, probability: Floats) -> Floats:
        return np.interp(probability, np.linspace(0, 1, len(self.values)), np.array(self.values, np.float64))


class ValuesShape(Distribution):
    """Values that are equally likely: a measured distribution as the means of its equal parts, its mean kept."""

    values: Annotated[tuple[NotNegative, ...], Field(min_length=1, max_length=100_000, strict=False)]
    """The values, in any order."""

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw with replacement."""
        return np.array(self.values, np.float64)[rng.integers(0, len(self.values), count)]

    def transform(self, normal: Floats) -> Floats:
        """Invert the CDF."""
        ranks = np.minimum(normal_cdf(normal) * len(self.values), len(self.values) - 1).astype(np.int64)
        return np.sort(np.array(self.values, np.float64))[ranks]


class Fixed(FixedShape):
    """Always the same; a bare number means this."""

    kind: Literal["fixed"]


class Uniform(UniformShape):
    """Uniform between min and max."""

    kind: Literal["uniform"]


class Exponential(ExponentialShape):
    """Exponential: no memory."""

    kind: Literal["exponential"]


class Lognormal(LognormalShape):
    """Lognormal, by its mean and either its 90th percentile or its sigma."""

    kind: Literal["lognormal"]


class Gamma(GammaShape):
    """Gamma, by its mean and coefficient of variation."""

    kind: Literal["gamma"]


class Quantiles(QuantilesShape):
    """A measured distribution as its quantiles at even steps of probability."""

    kind: Literal["quantiles"]


class Values(ValuesShape):
    """Values that are equally likely: a measured distribution as the means of its equal parts."""

    kind: Literal["values"]


Given: TypeAlias = Annotated[
    Fixed | Uniform | Exponential | Lognormal | Gamma | Quantiles | Values,
    ByKind(),
]


def _spell_out(given: Any) -> Any:
    bare = isinstance(given, int | float) and not isinstance(given, bool)
    return {"kind": "fixed", "value": given} if bare else given


Quantity: TypeAlias = Annotated[Given, BeforeValidator(_spell_out, json_schema_input_type=float | Given)]
"""A distribution, or a bare number for one that is always the same."""
