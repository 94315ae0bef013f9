"""The requests of a workload, as columns.

Generators and trace readers make a `Requests`; engines and reports read one.  It has columns instead of
objects, so that a million requests are a few arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
MOST = 50_000_000
"""The most requests that are drawn; more would be a mistake in a count, a session or a rate."""
MOST_SAMPLES = (1 << 15) - 1
"""The most samples of a request: telemetry counts them in 16 bits."""
LONGEST = 1 << 31
"""Tokens of a prompt or an output; more in a trace is a mistake, and no context is so long."""
LATEST_S = 1e9
"""The last instant of a simulation, 32 years: engines count nanoseconds in 64 bits."""


@dataclass(frozen=True)
class Prefixes:
    """What prompts are made of: content pieces (id, length), so that equal ids mean equal tokens.

    Pieces of request `i` are `ids[offsets[i]:offsets[i + 1]]`; their lengths sum to its prompt.
    A generated output has an id too (`outputs`), so that a later turn's prompt can repeat it.
    """

    ids: Ints
    """int64[m]"""
    lengths: Ints
    """int64[m], tokens"""
    offsets: Ints
    """int64[n + 1]"""
    outputs: Ints
    """int64[n]: content id of each request's output."""

    @classmethod
    def of(cls, pieces: Sequence[Sequence[tuple[int, int]]], outputs: Ints) -> Self:
        """Make them from the pieces (id, tokens) of each prompt."""
        flat = np.array([piece for prompt in pieces for piece in prompt], np.int64).reshape(-1, 2)
        return cls(flat[:, 0], flat[:, 1], np.cumsum([0, *map(len, pieces)], dtype=np.int64), outputs)

    def pieces(self, request: int) -> list[tuple[int, int]]:
        """Pieces (id, tokens) of one request's prompt, in order."""
        where = slice(self.offsets[request], self.offsets[request + 1])
        return list(zip(self.ids[where].tolist(), self.lengths[where].tolist(), strict=True))

    def take(self, requests: Ints) -> Prefixes:
        """Return those of some requests, in the order given."""
        counts = np.diff(self.offsets)[requests]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        where = np.repeat(self.offsets[requests] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Prefixes(self.ids[where], self.lengths[where], offsets, self.outputs[requests])


@dataclass(frozen=True)
class Requests:
    """n requests in order of arrival."""

    arrival_s: Floats
    """float64[n], seconds from the start of the workload, ascending."""
    prompt_tokens: Ints
    """int64[n], at least 1."""
    output_tokens: Ints
    """int64[n], at least 1; known to the engine, hidden from schedulers and allocators."""
    samples: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64[n]: parallel samples (or beams) a request asks for; empty when all are 1."""
    beam: bool = False
    """Whether samples are beams: they fork and drop at every step."""
    prefixes: Prefixes | None = None
    """Contents of the prompts; None when no two prompts share a token."""
    after: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64[n]: the earlier request whose end releases this one (the turn before it), or -1; empty when all are -1.

    A released request arrives `delay_s` after that end, however the end came about; its `arrival_s` is then
    only nominal: what it would be at the pace that the workload assumes of an engine.
    """
    delay_s: Floats = field(default_factory=lambda: np.zeros(0))
    """float64[n], seconds from that end to the arrival (think time, tool time); empty when `after` is."""
    part: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    """int8[n]: which of `parts` each belongs to; empty unless they are a mix."""
    parts: Sequence[str] = ()
    """Names of the parts of a mix, in the order of the file."""
    notes: Sequence[str] = ()
    """What a reader left out or changed, in words, for the user to see."""

    def __post_init__(self) -> None:
        """Refuse columns that disagree; readers report bad rows long before this."""
        n = len(self.arrival_s)
        if len(self.prompt_tokens) != n or len(self.output_tokens) != n or len(self.samples) not in (0, n):
            raise ValueError(f"columns of different lengths: {n} arrivals, {len(self.prompt_tokens)} prompts")
        if len(self.after) not in (0, n) or len(self.delay_s) != len(self.after):
            raise ValueError(f"columns of different lengths: {n} arrivals, {len(self.after)} links")
        if len(self.part) != (n if self.parts else 0) or (self.part >= len(self.parts)).any():
            raise ValueError(f"a mix of {len(self.parts)} parts says of each request which it belongs to")
        if (self.after >= np.arange(len(self.after))).any():
            raise ValueError("a request can only follow an earlier one")
        if n and (self.prompt_tokens.min() < 1 or self.output_tokens.min() < 1):
            raise ValueError("prompts and outputs are at least one token")
        if n and (not np.isfinite(self.arrival_s).all() or (np.diff(self.arrival_s) < 0).any()):
            raise ValueError("arrivals are finite and ascending")

    @classmethod
    def none(cls, note: str) -> Self:
        """Make no requests at all, and say why."""
        nothing = np.zeros(0, np.int64)
        return cls(np.zeros(0), nothing, nothing, notes=[note])

    def __len__(self) -> int:
        """How many."""
        return len(self.arrival_s)

    def take(self, rows: Ints) -> Requests:
        """Return some of them, in order of arrival, as they would be by themselves, following none and of no part."""
        return Requests(
            self.arrival_s[rows],
            self.prompt_tokens[rows],
            self.output_tokens[rows],
            self.samples[rows] if len(self.samples) else self.samples,
            self.beam,
            None if self.prefixes is None else self.prefixes.take(rows),
        )

    def same_as(self, other: Requests) -> bool:
        """Whether these are the other's requests once more, as all replications of a trace are."""
        columns = ("arrival_s", "prompt_tokens", "output_tokens", "samples", "delay_s")
        contents = [b"" if one.prefixes is None else one.prefixes.ids.tobytes() for one in (self, other)]
        return contents[0] == contents[1] and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in columns
        )

    def known(self, rows: Ints) -> dict[str, object]:
        """Columns of results that tell of some requests what no engine changes: prefix groups, and parts of a mix."""
        part = {"part": (self.part[rows], self.parts)} if self.parts else {}
        return {"prefix_group": self.prefix_groups()[rows], **part}

    def prefix_groups(self) -> Ints:
        """Number groups of prompts that begin with the same piece of content: int64[n], -1 where no other one does."""
        groups = np.full(len(self), -1, np.int64)
        if self.prefixes is not None and len(self):
            first = self.prefixes.ids[self.prefixes.offsets[:-1]]
            _, which, size = np.unique(first, return_inverse=True, return_counts=True)
            names = np.where(size > 1, np.cumsum(size > 1) - 1, -1)
            groups[:] = names[which]
        return groups
