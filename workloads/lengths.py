"""How long prompts and outputs are, in tokens, drawn as pairs.

Prompt and output lengths of one request belong together (a long question tends to get a
long answer), so measured kinds draw whole rows.  Every draw is at least one token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from workloads.distributions import Distribution, GammaShape, LognormalShape, Quantity, normal_cdf
from workloads.requests import LONGEST, Floats, Ints
from workloads.spec import SHIPPED, ByKind, Count, DataPath, Positive, Spec
from workloads.values import shown

Sample: TypeAlias = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=10_000, strict=False)]
"""Equally likely lengths, tokens."""


def tokens(values: Floats) -> Ints:
    """Round to whole tokens, at least 1 and at most `LONGEST`, which exceeds every model's context."""
    return np.clip(np.rint(values), 1, LONGEST).astype(np.int64)


class Pair(Spec):
    """Prompt and output, each from a distribution of its own."""

    correlation: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """Correlation of prompt and output lengths (of a Gaussian copula), -1 to 1; 0 is independent."""

    if TYPE_CHECKING:  # each kind has fields of its own shapes
        prompt: Distribution
        output: Distribution

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Draw prompt and output tokens, int64[count] each; the first ones are the same however many are drawn."""
        first, second = rng.spawn(2)
        if not self.correlation:
            return tokens(self.prompt.draw(first, count)), tokens(self.output.draw(second, count))
        common, own = first.standard_normal(count), second.standard_normal(count)
        partner = self.correlation * common + math.sqrt(1 - self.correlation**2) * own
        return tokens(self.prompt.from_normal(common)), tokens(self.output.from_normal(partner))


class Shaped(Pair):
    """Prompt and output from distributions of the same shape."""

    @field_validator("prompt", "output", mode="before", check_fields=False)
    @classmethod
    def _no_number(cls, given: Any, info: ValidationInfo) -> Any:
        if not isinstance(given, int | float):
            return given
        (kind,) = get_args(cls.model_fields["kind"].annotation)
        sides = dict.fromkeys(("prompt", "output"), f"{{kind: {kind}, ...}}") | {info.field_name: shown(given)}
        instead = ", ".join(f"{side}: {value}" for side, value in sides.items())
        raise ValueError(
            f"must be a mapping, got {shown(given)}; for a fixed length write {{kind: marginals, {instead}}}"
        )


class WholeRange(Distribution):
    """Uniform over whole numbers, both ends included."""

    min: Count
    """Shortest length, tokens."""
    max: Count
    """Longest length, tokens."""

    def sample(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw whole numbers."""
        return rng.integers(self.min, self.max, count, endpoint=True).astype(np.float64)

    def transform(self, normal: Floats) -> Floats:
        """Invert the CDF."""
        return np.floor(self.min + (self.max - self.min + 1) * normal_cdf(normal))


class Fixed(Spec):
    """All requests have the same lengths."""

    kind: Literal["fixed"]
    prompt: Count
    """Tokens of every prompt."""
    output: Count
    """Tokens of every output."""

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Return `count` equal pairs."""
        return np.full(count, self.prompt), np.full(count, self.output)


class Uniform(Shaped):
    """Prompt and output uniform over whole numbers."""

    kind: Literal["uniform"]
    prompt: WholeRange
    """Distribution of prompt lengths, tokens."""
    output: WholeRange
    """Distribution of output lengths, tokens."""


class Lognormal(Shaped):
    """Prompt and output lognormal."""

    kind: Literal["lognormal"]
    prompt: LognormalShape
    """Distribution of prompt lengths, tokens."""
    output: LognormalShape
    """Distribution of output lengths, tokens."""


class Gamma(Shaped):
    """Prompt and output Gamma."""

    kind: Literal["gamma"]
    prompt: GammaShape
    """Distribution of prompt lengths, tokens."""
    output: GammaShape
    """Distribution of output lengths, tokens."""


class Marginals(Pair):
    """Prompt and output each from any distribution."""

    kind: Literal["marginals"]
    prompt: Quantity
    """Distribution of prompt lengths, tokens; a bare number is the same for all."""
    output: Quantity
    """Distribution of output lengths, tokens; a bare number is the same for all."""


class Joint(Spec):
    """A measured joint distribution, as `trace fit` writes it: prompts, and outputs given the prompt."""

    kind: Literal["joint"]
    prompt: Sample
    """Prompt lengths that are equally likely, tokens, ascending."""
    output: Annotated[tuple[Sample, ...], Field(min_length=1, max_length=10_000, strict=False)]
    """Output lengths that are equally likely, tokens: a list for each of so many equal parts of the prompts, shortest
    prompts first.
    """

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Draw prompts, then outputs from the part that each prompt falls into."""
        first, second = rng.spawn(2)
        place = first.random(count)
        prompt = np.array(self.prompt)[(place * len(self.prompt)).astype(np.int64)]
        part = (place * len(self.output)).astype(np.int64)
        sizes = np.array([len(values) for values in self.output])
        starts = np.cumsum(sizes) - sizes
        flat = np.array([value for values in self.output for value in values])
        return tokens(prompt), tokens(flat[starts[part] + (second.random(count) * sizes[part]).astype(np.int64)])


class ShareGPT(Spec):
    """First turns of ShareGPT conversations that pass the filter of vLLM's benchmark (14,906 pairs, shipped)."""

    kind: Literal["sharegpt"]
    tokenizer: Literal["gpt2", "llama3"] = "gpt2"
    """Which model family's tokenizer the lengths were counted with."""

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Draw `count` pairs with replacement."""
        path = SHIPPED / "sharegpt_first_turn_vllm_filter.csv.gz"
        columns = (1, 2) if self.tokenizer == "gpt2" else (3, 4)
        prompts, outputs = np.loadtxt(path, np.int64, delimiter=",", skiprows=1, usecols=columns, unpack=True)
        rows = rng.integers(0, len(prompts), count)
        return prompts[rows], outputs[rows]


class Csv(Spec):
    """Pairs from your own CSV file (possibly gzipped), drawn with replacement."""

    kind: Literal["csv"]
    path: DataPath
    """Path of the file, whose first line names the columns."""
    prompt: str = "prompt_tokens"
    """Name of the column with prompt tokens."""
    output: str = "output_tokens"
    """Name of the column with output tokens."""

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Draw `count` pairs with replacement."""
        from workloads.traces.pairs import read_pairs  # noqa: PLC0415 - only this kind reads a file of the user's

        prompts, outputs = read_pairs(self.path, self.prompt, self.output)
        rows = rng.integers(0, len(prompts), count)
        return prompts[rows], outputs[rows]


Lengths: TypeAlias = Annotated[
    ShareGPT | Fixed | Uniform | Lognormal | Gamma | Marginals | Joint | Csv,
    ByKind(),
]
