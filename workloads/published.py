"""What a workload reproduces: published figures, and the runs they are read off.

A figure in a paper usually comes from more than one run: it varies something (`variants`), searches for the
rate that an engine sustains (`sustained`), or gives a figure of one system as a multiple of another's
(`over`).  A workload file declares these beside the published figures, with remarks on what differs and why.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self, TypeAlias

from pydantic import Field, model_validator

from workloads.spec import Positive, Spec


class Expected(Spec):
    """A published figure; a bare number is its value."""

    shorthand: ClassVar[str] = "value"

    value: float | None = None
    """The figure; or give low and high."""
    low: float | None = None
    """Lower end of a published range."""
    high: float | None = None
    """Upper end of a published range."""
    over: str | None = None
    """Label of another run of this file: the figure is a multiple of that run's."""
    source: str = ""
    """Where it stands."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        bounds = (self.low is not None) + (self.high is not None)
        if (self.value is None) == (bounds == 0):
            raise ValueError("give either value, or low or high or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low is {self.low:g} and above high, {self.high:g}")
        return self


Expectations: TypeAlias = dict[str, dict[str, Expected]]
"""Label of a run -> metric -> what was published of it."""


class Sustained(Spec):
    """Search for the rate of arrivals at which the mean normalized latency reaches a limit."""

    normalized_latency_s: Positive
    """The limit: mean over all requests of end-to-end latency / output tokens, seconds."""
    duration_s: Positive | None = None
    """Seconds during which requests arrive at each rate that is tried; all are then finished. requests.duration_s if
    not given.
    """
    from_rate: Positive | None = None
    """Rate at which the search begins, requests a second; the file's own rate if not given."""
    tolerance: Annotated[float, Field(gt=0, le=0.5)] = 0.03
    """How close the rates above and below must be, as a share of them; between them the answer is interpolated."""


class Variant(Spec):
    """The same workload with something changed."""

    label: Annotated[str, Field(min_length=1, max_length=80)]
    """Name of the variant in tables, and of its run directory."""
    set: dict[str, Any] = Field(default_factory=dict)
    """What is changed: dotted keys, as with --set, and their values; requests.samples: 4, say. null takes an entry out
    of its list.
    """
    expect: Expectations = Field(default_factory=dict)
    """Published figures of this variant, written as in the file's own `expect`."""
