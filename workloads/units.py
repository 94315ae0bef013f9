"""Requests before they have arrival times: units, laid out one after the other.

A *unit* (a single request, a session, a tree) starts independently of others; within it, each request
repeats what came before.  Times within a unit count from its start.  They are nominal if a request waits
for the answer to another one, because only the engine knows how long that takes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError
from workloads.requests import MOST, Floats, Ints, Prefixes
from workloads.sharing import Part, draw_parts
from workloads.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Streams: TypeAlias = Callable[[str], np.random.Generator]


class PairSource(Protocol):
    """Where prompt and output lengths come from (`workloads.lengths`)."""

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Draw prompt and output tokens, int64[count] each."""


@dataclass(frozen=True)
class Units:
    """Requests laid out unit by unit."""

    unit: Ints
    """int64[n]: the unit of each request, ascending."""
    offset_s: Floats
    """float64[n]: nominal seconds from the unit's start to the request's arrival."""
    prompt: Ints
    """int64[n], tokens, shared parts and history included."""
    output: Ints
    """int64[n], tokens."""
    after: Ints
    """int64[n]: index of the request whose end releases this one, or -1."""
    delay_s: Floats
    """float64[n]: seconds between that end and the arrival."""
    prefixes: Prefixes | None
    outgrown: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """bool[n]: whether the longest sequence kept its conversation from going on; empty where nothing can."""

    def first(self, count: int) -> Units:
        """Return the first `count` requests; none of them waits for one that is cut off."""
        prefixes = None if self.prefixes is None else self.prefixes.take(np.arange(count))
        return Units(
            self.unit[:count],
            self.offset_s[:count],
            self.prompt[:count],
            self.output[:count],
            self.after[:count],
            self.delay_s[:count],
            prefixes,
            self.outgrown[:count],
        )


def demand_few(count: int, where: str) -> None:
    """Refuse to lay out more requests than `MOST`.  Raises WorkloadError that begins with `where`."""
    if count > MOST:
        raise WorkloadError(f"{where}: makes {count:,} requests or more; at most {MOST:,} are drawn")


class Scene(NamedTuple):
    """What laying out needs beside the session's own settings."""

    lengths: PairSource
    """Of a request's own words and its output."""
    parts: Sequence[Part]
    """What prompts begin with."""
    token_s: float
    """Nominal seconds an output token takes."""
    max_model_len: int | None
    """The longest sequence that is served, tokens."""
    streams: Streams
    """Named random streams; the same name starts the same stream again."""


class Single(Spec):
    """Every request by itself, in a prompt of shared parts and an own one."""

    def lay_out(self, scene: Scene, units: int) -> Units:
        """Lay out `units` requests."""
        prompt, output = scene.lengths.draw(scene.streams("lengths"), units)
        none, rest = np.full(units, -1), np.zeros(units)
        if not scene.parts:
            return Units(np.arange(units), rest, prompt, output, none, rest, None)
        ids, sizes, free = draw_parts(scene.parts, scene.streams("prefixes"), units, 0)
        own = np.arange(units)
        ids = np.column_stack([ids, free + 2 * own])
        sizes = np.column_stack([sizes, prompt])
        offsets = np.arange(units + 1) * ids.shape[1]
        prefixes = Prefixes(ids.ravel(), sizes.ravel(), offsets, free + 2 * own + 1)
        return Units(own, rest, sizes.sum(axis=1), output, none, rest, prefixes)

    def units_for(self, count: int) -> int:
        """Return how many units make `count` requests, at a guess."""
        return count
