"""A step as the model sees it: all its tokens in one packed row, and where their K/V goes.

A decode is a sequence with one new token, a prefill chunk a sequence with many; both share one
forward pass.  Everything is computed with a few NumPy operations over the batch from the plan, the
decoding columns and the allocator's own block table, which torch wraps without a copy and which
moves to a GPU once per step, through pinned memory.  Most steps have a simpler form
(`sim.decode.lanes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sim.costs.shapes import Shape, Shapes
from sim.decode.device import moved
from sim.decode.lanes import Ints, Ints32, Lanes, Sequences, make_lanes
from sim.decode.paging import paging_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sim.decode.transcript import Transcript
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving


class Fork(NamedTuple):
    """A sequence that begins as a copy of another, whose blocks it does not share."""

    source_row: int
    target_row: int
    source: int
    """Where the sequence begins in the transcript: its identity."""
    target: int
    tokens: int
    """Tokens in the cache."""


@dataclass(frozen=True)
class Batch:
    """One step: s sequences with t new tokens in all, the decodes first.

    NumPy arrays are for the host, tensors lie on the device.
    """

    rows: Ints
    """int64[s]: rows of the block table."""
    names: Ints
    """int64[s]: where each sequence begins in the transcript, which is its identity."""
    starts: Ints
    """int64[s]: tokens already in the cache."""
    counts: Ints
    """int64[s]: new tokens."""
    offsets: Ints
    """int64[s + 1]: where each sequence's new tokens begin in the packed row."""
    forks: tuple[Fork, ...]
    """Copies of whole sequences that are due before the step."""
    picks: Ints
    """int64[m]: for each token to be said, the row of the logits it is taken from."""
    ranks: Ints
    """int64[m]: see `Said`."""
    targets: Ints
    """int64[m]"""
    ids: torch.Tensor
    """int64[t]: token ids."""
    positions: torch.Tensor
    """int64[t]"""
    keep: torch.Tensor
    """int64[n]: places in the packed row whose logits are wanted."""
    blocks: Ints32
    """int32[rows, width]: the block table ..."""
    table: torch.Tensor
    """... and the same on the device."""
    slots: torch.Tensor
    """int64[t]: where each new token's K/V goes, block id x block_size + offset."""

    @property
    def tokens(self) -> int:
        """New tokens in all."""
        return int(self.offsets[-1])

    @property
    def contexts(self) -> Ints:
        """int64[s]: tokens of each sequence after the step."""
        return self.starts + self.counts


class Members(NamedTuple):
    """s sequences that take part in a step: int64[s] each, see `Batch`."""

    rows: Ints
    names: Ints
    starts: Ints
    counts: Ints


class Said(NamedTuple):
    """m tokens to be said: int64[m] each."""

    places: Ints
    """Which of the sequences says it."""
    ranks: Ints
    """0 for the likeliest token, k for the k-th after it."""
    targets: Ints
    """Where in the transcript it goes."""


def packed(
    table: Ints32, block_size: int, tokens: torch.Tensor, members: Members, said: Said, forks: Iterable[Fork] = ()
) -> Batch:
    """Make a batch.

    Args:
        table: int32[rows, width], the block table.
        block_size: tokens a block.
        tokens: int64[n], on the device: those of every sequence, as in a transcript.
        members: the sequences.
        said: what they say.
        forks: copies that are due before the step.

    """
    device = tokens.device
    rows, names, starts, counts = members
    offsets = np.concatenate([[0], counts.cumsum()])
    owner = np.repeat(np.arange(len(rows)), counts)
    positions = np.arange(offsets[-1]) - (offsets[:-1] - starts)[owner]
    keep, picks = np.unique(said.places, return_inverse=True)
    ends = offsets[1:][keep] - 1
    told = moved(np.concatenate([positions, names[owner] + positions, rows[owner], ends]), device)
    at, ids, row_of, wanted = told.tensor_split([len(positions) * part for part in (1, 2, 3)])
    there = moved(table, device)
    blocks = there[row_of, at // block_size].to(torch.int64)
    return Batch(
        rows=rows,
        names=names,
        starts=starts,
        counts=counts,
        offsets=offsets,
        forks=tuple(forks),
        picks=picks,
        ranks=said.ranks,
        targets=said.targets,
        ids=tokens[ids],
        positions=at,
        keep=wanted,
        blocks=table,
        table=there,
        slots=blocks * block_size + at % block_size,
    )


class Batcher:
    """Makes batches of plans; remembers which sequence each row of the block table holds."""

    def __init__(
        self,
        transcript: Transcript,
        device: torch.device,
        *,
        recomputes: bool = False,
        shapes: Shapes | None = None,
    ) -> None:
        """Make batches.

        Args:
            transcript: the tokens.
            device: where the model is.
            recomputes: every step computes all known tokens.
            shapes: a step that fits in one of them is padded.

        """
        self._transcript = transcript
        self._device = device
        self._recomputes = recomputes
        self._shapes = shapes
        self._tickets = np.full(64, -1, np.int64)
        self._names = np.zeros(64, np.int64)

    def make(self, plan: Plan, serving: Serving) -> Batch | Lanes:
        """Make the batch of a plan, which has at least one decode or chunk; or lanes, if they can hold it."""
        self._grow(len(serving.allocator.table.count))
        forks = self._seat_decodes(plan, serving)
        shape = None if forks else self._shape(plan)
        return self._batch(plan, serving, forks) if shape is None else self._lanes(plan, serving, shape)

    def _shape(self, plan: Plan) -> Shape | None:
        """Return the shape to pad a step to, if there is one: of each sequence, one token is said at most."""
        if self._shapes is None or any(job.samples > 1 for job, _, _ in plan.chunks):
            return None
        return self._shapes.fit(plan.decodes, sum(chunk.tokens for chunk in plan.chunks), len(plan.chunks))

    def _lanes(self, plan: Plan, serving: Serving, shape: Shape) -> Lanes:
        """Make a padded step."""
        decoding, allocator, transcript = serving.decoding, serving.allocator, self._transcript
        rows, starts = (decoding.column(which)[: plan.decodes] for which in (decoding.ROW, decoding.LENGTH))
        names = self._names[rows]
        said = transcript.aim(names + starts + 1)
        decodes = Sequences(rows, names, starts, np.ones_like(rows), said, np.ones(len(rows), np.bool_))
        chunks = self._chunks(plan) if plan.chunks else None
        return make_lanes(allocator.table.blocks, paging_of(allocator), shape, decodes, chunks, transcript.spare)

    def _chunks(self, plan: Plan) -> Sequences:
        """Lay out the chunks of a padded step."""
        transcript, columns = self._transcript, []
        for job, start, tokens in plan.chunks:
            transcript.open(job)
            name = transcript.at(job.index, 0)
            self._seat(job.rows[0], job.ticket, name)
            columns.append((job.rows[0], name, start, tokens, start + tokens == job.known))
        rows, names, starts, counts, says = np.array(columns, np.int64).T
        said, says = np.full(len(rows), transcript.spare), says.astype(np.bool_)
        said[says] = transcript.aim((names + starts + counts)[says])
        return Sequences(rows, names, starts, counts, said, says)

    def _batch(self, plan: Plan, serving: Serving, forks: list[Fork]) -> Batch:
        allocator = serving.allocator
        members, said = self._members(plan, serving)
        if self._recomputes:
            starts, counts = members.starts, members.counts
            members = members._replace(starts=np.zeros_like(starts), counts=starts + counts)
        table, tokens = allocator.table.blocks, self._transcript.tokens
        return packed(table, allocator.block_size, tokens, members, said, forks)

    def _members(self, plan: Plan, serving: Serving) -> tuple[Members, Said]:
        """Find who takes part in a step, the decodes first, and what they say."""
        decoding, transcript, n = serving.decoding, self._transcript, plan.decodes
        rows = decoding.column(decoding.ROW)[:n]
        starts = decoding.column(decoding.LENGTH)[:n]
        said = [(np.arange(n), np.zeros(n, np.int64), self._names[rows] + starts + 1)]
        for place, (job, start, tokens) in enumerate(plan.chunks, n):
            transcript.open(job)
            self._seat(job.rows[0], job.ticket, transcript.at(job.index, 0))
            if start + tokens == job.known:
                samples = np.arange(job.samples)
                target = transcript.base[job.index] + samples * transcript.stride[job.index] + job.known
                said.append((np.full(job.samples, place), samples, target))
        chunks = np.array([(job.rows[0], start, tokens) for job, start, tokens in plan.chunks], np.int64)
        more_rows, more_starts, counts = chunks.reshape(-1, 3).T
        rows, starts = np.concatenate([rows, more_rows]), np.concatenate([starts, more_starts])
        members = Members(rows, self._names[rows], starts, np.concatenate([np.ones(n, np.int64), counts]))
        return members, Said(*map(np.concatenate, zip(*said, strict=True)))

    def _seat_decodes(self, plan: Plan, serving: Serving) -> list[Fork]:
        """Find out which sequences are in rows not seen before; returns those that begin as copies."""
        decoding, transcript = serving.decoding, self._transcript
        rows = decoding.column(decoding.ROW)[: plan.decodes]
        tickets = decoding.column(decoding.TICKET)[: plan.decodes]
        forks = []
        for place in np.flatnonzero(self._tickets[rows] != tickets).tolist():
            job, row = decoding.members[place].owner, int(rows[place])
            sample = list(job.rows).index(row)
            name = transcript.at(job.index, sample)
            self._seat(row, job.ticket, name)
            if sample and not serving.allocator.shares:
                length = int(decoding.column(decoding.LENGTH)[place])
                forks.append(Fork(job.rows[0], row, transcript.at(job.index, 0), name, length))
        return forks

    def _seat(self, row: int, ticket: int, name: int) -> None:
        self._tickets[row] = ticket
        self._names[row] = name

    def _grow(self, rows: int) -> None:
        if rows > len(self._tickets):
            more = rows - len(self._tickets)
            self._tickets = np.concatenate([self._tickets, np.full(more, -1, np.int64)])
            self._names = np.concatenate([self._names, np.zeros(more, np.int64)])
