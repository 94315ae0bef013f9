"""The `requests` block of a workload file: requests drawn from distributions, replayed from a trace, or a mix of both.

A mix has parts, each with arrivals, lengths and sessions of its own: chat beside agents beside batch jobs.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Self, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from workloads.arrivals import Arrivals
from workloads.distributions import FixedShape, Quantity
from workloads.lengths import Lengths
from workloads.replies import Replies
from workloads.requests import MOST
from workloads.sessions import Turns
from workloads.sharing import Part
from workloads.slo import Slo
from workloads.spec import ByKind, Positive, Spec
from workloads.trace import Trace
from workloads.trees import Tree

NOMINAL_TOKEN_S = 0.02
"""Seconds an output token takes unless the file says: an 8B model on an H100 at a moderate batch."""
MOST_PARTS = 100
"""Parts of a mix; tables and pages have rows for each."""


class Generated(Spec):
    """Requests drawn from distributions."""

    count: Annotated[int, Field(ge=1, le=MOST)] | None = None
    """Number of requests; give this or duration_s."""
    duration_s: Positive | None = None
    """Seconds during which requests (sessions, trees) start; give this or count."""
    arrivals: Arrivals
    """When requests arrive; with a session, when sessions start."""
    lengths: Lengths
    """Tokens of a request's own prompt and of its output; shared parts and the history of a session come on top of the
    prompt.
    """
    shared: Annotated[tuple[Part, ...], Field(strict=False)] = ()
    """Parts that prompts begin with and may have in common: system prompts, few-shot examples, retrieved documents."""
    session: Annotated[Turns | Tree | Replies, ByKind()] | None = None
    """How requests follow one another in a session; without it every request stands alone."""
    samples: Quantity = Field(default=1, validate_default=True)
    """Number of parallel samples of a request (vLLM's `n`), or its beam width; rounded, at least 1."""
    beam: bool = False
    """Whether the samples are beams of one beam search, which are forked and dropped at every step."""
    token_s: Positive = NOMINAL_TOKEN_S
    """Assumed seconds for an output token. It only sets the order of requests that wait for an answer; when they arrive
    depends on the engine.
    """

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.count is None) == (self.duration_s is None):
            raise ValueError("give either count or duration_s")
        if self.duration_s is not None and self.arrivals.kind in {"batch", "closed"}:
            raise ValueError(f"{self.arrivals.kind} arrivals have no end of their own: give count, not duration_s")
        if self.arrivals.kind == "closed" and self.session is not None and self.session.loop == "open":
            raise ValueError("users in a closed loop wait for every answer: session.loop must be closed")
        return self


def _plain(name: str) -> str:
    words = name.split(" ")
    if not (name[0].isalpha() and all(words) and "".join(words).translate(str.maketrans("", "", "-_")).isalnum()):
        raise ValueError("must begin with a letter and have only letters, digits, -, _ and single spaces")
    return name


class Named(Spec):
    """What parts of a mix have in common."""

    name: Annotated[str, Field(min_length=1, max_length=40), AfterValidator(_plain)]
    """Name of the part in tables and pages. Its random numbers depend on it, and on no other part: to add, remove or
    change one leaves the requests of the others as they are.
    """
    slo: Slo | None = None
    """Limits on latency of this part's requests, seconds, instead of the file's; {} sets none."""


class GeneratedPart(Generated, Named):
    """One part of a mix: requests drawn from distributions."""


class TracePart(Trace, Named):
    """One part of a mix: requests replayed from a recorded trace."""


def _part_kind(value: Any) -> str:
    trace = "trace" in value if isinstance(value, dict) else isinstance(value, Trace)
    return "a trace" if trace else "generated"  # no key of either, or a fault's path would be taken to lead through it


def _request_kind(value: Any) -> str:
    mix = "mix" in value if isinstance(value, dict) else isinstance(value, Mix)
    return "a mix" if mix else _part_kind(value)


MixPart: TypeAlias = Annotated[
    Annotated[GeneratedPart, Tag("generated")] | Annotated[TracePart, Tag("a trace")], Discriminator(_part_kind)
]


def _told_apart(parts: tuple[GeneratedPart | TracePart, ...]) -> tuple[GeneratedPart | TracePart, ...]:
    names = [part.name for part in parts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two parts are named {twice}")
    if not 1 <= len(parts) <= MOST_PARTS:
        raise ValueError(f"must have 1 to {MOST_PARTS} parts, each with a name, got {len(parts)}")
    return parts


class Mix(Spec):
    """Several kinds of requests at once, each with its own arrivals, lengths and sessions."""

    mix: Annotated[tuple[MixPart, ...], Field(strict=False), AfterValidator(_told_apart)]
    """The parts, each with a `name` and what else `requests` may say: generated or from a trace. They arrive
    independently of one another, and what prompts of different parts hold is never the same.
    """
    rate_scale: Positive = 1.0
    """How many times as fast all parts arrive: every gap between arrivals is divided by it, as with a trace. Batch and
    closed arrivals, which have no rate, stay as they are.
    """

    @model_validator(mode="after")
    def _one_search(self) -> Self:
        parts = [part for part in self.mix if isinstance(part, GeneratedPart) and not _single(part.samples)]
        beams, others = ([part.name for part in parts if part.beam is beam] for beam in (True, False))
        if beams and others:
            both = f"{beams[0]} and {others[0]}"
            raise ValueError(f"{both} have several samples each, beams and others, which an engine does not mix")
        return self


def _single(samples: Any) -> bool:
    """Whether a request surely asks for one sample: no beam forks then, and no sample."""
    return isinstance(samples, FixedShape) and round(max(samples.value, samples.min)) <= 1


RequestSource: TypeAlias = Annotated[
    Annotated[Generated, Tag("generated")] | Annotated[Trace, Tag("a trace")] | Annotated[Mix, Tag("a mix")],
    Discriminator(_request_kind),
]


def parts_of(source: Generated | Trace | Mix) -> tuple[Generated | Trace, ...]:
    """Return the parts of a mix; of what is none, that alone."""
    return source.mix if isinstance(source, Mix) else (source,)


def turns(source: Generated | Trace | Mix) -> int:
    """Return after how many replications those of recorded requests begin again: 1 if none is another's share."""
    return math.lcm(*(part.one_in for part in parts_of(source) if isinstance(part, Trace)))


def without_own_slo(source: Generated | Trace | Mix) -> Generated | Trace | Mix:
    """Return the requests with the limits of the file for all parts."""
    if not isinstance(source, Mix):
        return source
    return source.model_copy(update={"mix": tuple(part.model_copy(update={"slo": None}) for part in source.mix)})
