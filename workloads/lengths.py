"""How long prompts and outputs are, in tokens, drawn as pairs.

Prompt and output lengths of one request belong together (a long question tends to get a
long answer), so measured kinds draw whole rows.  Every draw is at least one token.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from workloads.errors import WorkloadError
from workloads.requests import Floats, Ints
from workloads.spec import SHIPPED, Count, DataPath, Positive, Spec

Z90 = 1.2815515655446004
"""The 90th percentile of the standard normal distribution."""


def tokens(values: Floats, least: int, most: int | None) -> Ints:
    """Round to whole tokens and clip to [least, most]."""
    return np.clip(np.rint(values), least, most).astype(np.int64)


class Clipped(Spec):
    """A length distribution whose draws are clipped."""

    min: Count = 1
    """Shorter draws are made this long."""
    max: Count | None = None
    """Longer draws are made this long."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max {self.max} is less than min {self.min}")
        return self


class LognormalTokens(Clipped):
    """Lognormal, by its mean and either its 90th percentile or its sigma."""

    mean: Positive
    """Mean before clipping, tokens."""
    p90: Positive | None = None
    """90th percentile before clipping, tokens."""
    sigma: Positive | None = None
    """Standard deviation of the logarithm."""

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

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        """Draw `count` lengths."""
        sigma = self.sigma
        if sigma is None:
            # ln(p90 / mean) = Z90 sigma - sigma^2 / 2; the smaller root is the ordinary, less skewed one.
            sigma = Z90 - math.sqrt(max(Z90**2 - 2 * math.log((self.p90 or 0) / self.mean), 0))
        mu = math.log(self.mean) - sigma**2 / 2
        return tokens(np.exp(mu + sigma * rng.standard_normal(count)), self.min, self.max)


class GammaTokens(Clipped):
    """Gamma, by its mean and coefficient of variation."""

    mean: Positive
    """Mean before clipping, tokens."""
    cv: Positive
    """Standard deviation over mean."""

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        """Draw `count` lengths."""
        shape = self.cv**-2
        return tokens(rng.standard_gamma(shape, count) * (self.mean / shape), self.min, self.max)


class Range(Spec):
    """Uniform over whole numbers, both ends included."""

    min: Count
    """Shortest, tokens."""
    max: Count
    """Longest, tokens."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max {self.max} is less than min {self.min}")
        return self

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        """Draw `count` lengths."""
        return rng.integers(self.min, self.max, count, endpoint=True)


class Fixed(Spec):
    """Every request alike."""

    kind: Literal["fixed"]
    prompt: Count
    """Prompt tokens."""
    output: Count
    """Output tokens."""

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Return `count` equal pairs."""
        return np.full(count, self.prompt), np.full(count, self.output)


class Uniform(Spec):
    """Prompt and output uniform and independent."""

    kind: Literal["uniform"]
    prompt: Range
    """Prompt tokens."""
    output: Range
    """Output tokens."""

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Draw `count` pairs."""
        return self.prompt.draw(rng, count), self.output.draw(rng, count)


class Lognormal(Spec):
    """Prompt and output lognormal and independent."""

    kind: Literal["lognormal"]
    prompt: LognormalTokens
    """Prompt tokens."""
    output: LognormalTokens
    """Output tokens."""

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Draw `count` pairs."""
        return self.prompt.draw(rng, count), self.output.draw(rng, count)


class Gamma(Spec):
    """Prompt and output Gamma and independent."""

    kind: Literal["gamma"]
    prompt: GammaTokens
    """Prompt tokens."""
    output: GammaTokens
    """Output tokens."""

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Draw `count` pairs."""
        return self.prompt.draw(rng, count), self.output.draw(rng, count)


def read_pairs(path: str, prompt: str, output: str) -> tuple[Ints, Ints]:
    """Read two named columns of a (gzip'd) CSV.

    Raises:
        WorkloadError: a column is not there, or a row holds no whole number of tokens.

    """
    # pyarrow stands behind these; workloads that read no file do not pay for it.
    from workloads.traces.columns import read_csv  # noqa: PLC0415
    from workloads.traces.files import TraceFile  # noqa: PLC0415
    from workloads.traces.rows import fault_lines  # noqa: PLC0415

    columns = read_csv(TraceFile(path), {prompt: "number", output: "number"})
    faults = list(columns.faults)
    for name in (prompt, output):
        rows = np.flatnonzero(~(columns[name] >= 1))
        lines = columns.lines(rows) if len(rows) else []
        faults += [
            (line, f"{name}: must be at least 1, got {columns[name][row]:g}")
            for line, row in zip(lines, rows, strict=True)
        ]
    if faults:
        raise WorkloadError(*fault_lines(path, faults, len(columns[prompt]) + len(columns.faults)))
    if len(columns[prompt]) == 0:
        raise WorkloadError(f"{path}: no row in it")
    return np.rint(columns[prompt]).astype(np.int64), np.rint(columns[output]).astype(np.int64)


class ShareGPT(Spec):
    """First turns of ShareGPT conversations that pass the filter of vLLM's benchmark (14,906 pairs, shipped)."""

    kind: Literal["sharegpt"]
    tokenizer: Literal["gpt2", "llama3"] = "gpt2"
    """Whose tokens are counted."""

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Draw `count` pairs with replacement."""
        suffix = "" if self.tokenizer == "gpt2" else f"_{self.tokenizer}"
        path = SHIPPED / "sharegpt_first_turn_vllm_filter.csv.gz"
        prompts, outputs = read_pairs(str(path), f"prompt_tokens{suffix}", f"output_tokens{suffix}")
        rows = rng.integers(0, len(prompts), count)
        return prompts[rows], outputs[rows]


class Csv(Spec):
    """Pairs from a (gzip'd) CSV of one's own, drawn with replacement."""

    kind: Literal["csv"]
    path: DataPath
    """The file; its first line names the columns."""
    prompt: str = "prompt_tokens"
    """Column of prompt tokens."""
    output: str = "output_tokens"
    """Column of output tokens."""

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Draw `count` pairs with replacement."""
        prompts, outputs = read_pairs(self.path, self.prompt, self.output)
        rows = rng.integers(0, len(prompts), count)
        return prompts[rows], outputs[rows]


Lengths: TypeAlias = Annotated[
    ShareGPT | Fixed | Uniform | Lognormal | Gamma | Csv,
    Field(discriminator="kind"),
]
