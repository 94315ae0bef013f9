"""The queue, the running requests, and their memory, asked for one row at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import MISS, Ask, Hit, Mappings, Refusal
from allocators.base import Allocator
from sim.engine.jobs import StalledError
from sim.engine.plan import Move, MoveKind
from sim.reference.requests import Request, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allocators.answers import Copy


@dataclass(slots=True)
class Step:
    """What one step runs and what planning it did to memory."""

    work: dict[Request, int] = field(default_factory=dict)
    """Tokens each request computes for each of its sequences: 1 if it decodes, else its chunk."""
    admitted: list[Request] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)
    restored: list[Request] = field(default_factory=list)
    """Those of the admitted that came back from the host."""
    losses: list[tuple[Request, str, int, int, str]] = field(default_factory=list)
    """Whose memory was taken, the word for it, token slots, the request that needed them, and what it lacked."""
    moves: list[Move] = field(default_factory=list)
    """Whole blocks to move before it runs, in this order."""
    copied_tokens: int = 0
    swapped_blocks: int = 0
    mappings: Mappings = field(default_factory=Mappings)
    """Pages mapped and unmapped since the step before began."""
    hidden: int = 0
    exposed: int = 0
    """Nanoseconds that the calls for them took behind the step before, and before this one."""
    blocked: str = ""
    """What keeps the head of the queue waiting."""
    refusal: Refusal | None = None
    """The allocator's answer when that is memory."""
    lacking: Refusal | None = None
    """Why the last of those preempted had to give up its own memory, if it did."""

    def block(self, why: str, refusal: Refusal | None = None) -> None:
        """Note what keeps the head of the queue waiting."""
        self.blocked, self.refusal = why, refusal

    def move(self, kind: MoveKind, blocks: Iterable[Copy]) -> None:
        """Note blocks to move."""
        self.moves += [Move(kind, source, target) for source, target in blocks]


class Room:
    """Who waits, who runs, and what they hold."""

    def __init__(self, allocator: Allocator, *, swap: bool) -> None:
        """Start empty; `swap` says whether who is preempted moves to the host, if the allocator has one."""
        self.allocator = allocator
        self.swap = allocator.free_preemption or (swap and allocator.swaps)
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        """In the order of their admission; those that finished but hold their memory included."""
        self.finished: list[Request] = []
        """Those that finished but hold their memory, in the order of their ends."""

    @property
    def seats(self) -> int:
        """Sequences that run."""
        return sum(request.samples for request in self.running)

    @property
    def active(self) -> list[Request]:
        """Running requests that have not finished."""
        return [request for request in self.running if request not in self.finished]

    # -- from the queue to memory ------------------------------------------------------------

    def ask(self, request: Request, tokens: int, hit: Hit = MISS, whole: int = 0, spare: int = 0) -> Ask:
        """Word what a request wants; only an oracle is told its output."""
        output = request.output if self.allocator.oracle else None
        return Ask(request.content, request.prompt, tokens, hit, whole, spare, output)

    def admit(self, step: Step, tokens: int, hit: Hit, *, whole: int = 0, spare: int = 0) -> Refusal | None:
        """Admit the head of the queue with a chunk of `tokens` tokens beyond its hit; or change nothing."""
        request = self.waiting[0]
        ask = self.ask(request, hit.tokens + tokens, hit, whole, spare)
        rows: list[int] = []
        for further in range(1 if self.allocator.shares else request.samples):
            grant = self.allocator.admit(ask._replace(samples=request.samples - further))
            if isinstance(grant, Refusal):
                for row in reversed(rows):
                    self.allocator.release(row)
                return grant
            rows.append(grant.row)
        # Rows beyond the first are room for samples to come: they are filled by copying when the prompt is computed.
        request.sequences = [Sequence(row, 0) for row in rows]
        request.sequences[0].tokens = hit.tokens
        request.decoding = False
        self._seat(step)
        step.work[request] = tokens
        return None

    def restore(self, step: Step, spare: int) -> Refusal | None:
        """Bring the head of the queue back from the host, or change nothing."""
        request = self.waiting[0]
        swaps = self.allocator.swap_in_group([sequence.row for sequence in request.sequences], spare)
        if isinstance(swaps, Refusal):
            return swaps
        moves: list[Copy] = []
        for sequence, swap in zip(request.sequences, swaps, strict=True):
            sequence.row = swap.row
            moves += swap.moves
        request.swapped = False
        request.decoding = request.generated > 0 and request.computed == request.known - 1
        self._count_swap(step, request, len(moves))
        step.move(MoveKind.IN, moves)
        self._seat(step)
        step.restored.append(request)
        return None

    def _seat(self, step: Step) -> None:
        request = self.waiting.pop(0)
        self.running.append(request)
        step.admitted.append(request)

    # -- while it runs -----------------------------------------------------------------------

    def grow(self, step: Step, request: Request, sequence: Sequence, tokens: int) -> Refusal | None:
        """Make room for `tokens` more tokens of a sequence."""
        length = request.computed + tokens  # samples to come grow with the first
        growth = self.allocator.grow(np.array([sequence.row]), np.array([length]))
        if growth.refusal is None:
            step.move(MoveKind.COPY, growth.copies)
            step.copied_tokens += growth.copied
        return growth.refusal

    def grow_or_preempt(self, step: Step, request: Request, tokens: int) -> bool:
        """Make room, taking it from the newest until it is there; False if the request had to give up its own."""
        for sequence in list(request.sequences):
            while (refusal := self.grow(step, request, sequence, tokens)) is not None:
                if self.finished:
                    self.retire(self.finished[-1])
                elif self.preempt(step, request, refusal) is request:
                    step.lacking = refusal
                    return False
        return True

    def slots(self, request: Request) -> int:
        """Token slots its rows hold, shared ones once a row."""
        return sum(int(self.allocator.table.slots[sequence.row]) for sequence in request.sequences)

    def preempt(self, step: Step, needy: Request, lacking: Refusal) -> Request:
        """Take the memory of the newest running request, which `needy` lacks, and put it at the front of the queue."""
        request = self.running.pop()
        slots = self.slots(request)
        if not (self.swap and self._swap_out(step, request)):
            for sequence in reversed(request.sequences):
                self.allocator.release(sequence.row)
            request.sequences = []
            if request.samples > 1:  # their outputs differ, so one prompt cannot bring them back: all begin anew
                request.generated = 0
        request.decoding = False
        request.preemptions += 1
        self.waiting.insert(0, request)
        step.preempted.append(request)
        word = "swap_out" if request.swapped else "preempt"
        step.losses.append((request, word, slots, needy.index, lacking.reason.value))
        return request

    def _swap_out(self, step: Step, request: Request) -> bool:
        swaps = self.allocator.swap_out_group([sequence.row for sequence in request.sequences])
        if isinstance(swaps, Refusal):  # a full host: the whole request stays, to be recomputed
            return False
        moves: list[Copy] = []
        for sequence, swap in zip(request.sequences, swaps, strict=True):
            sequence.row = swap.row
            moves += swap.moves
        request.swapped = True
        self._count_swap(step, request, len(moves))
        step.move(MoveKind.OUT, moves)
        return True

    def _count_swap(self, step: Step, request: Request, blocks: int) -> None:
        if not self.allocator.free_preemption:
            request.swapped_blocks += blocks
            step.swapped_blocks += blocks

    def fork(self, request: Request) -> int:
        """Make the samples of a request whose prompt is computed; returns the tokens to copy for that."""
        first, copied = request.sequences[0], 0
        for sequence in request.sequences[1:]:
            sequence.tokens = first.tokens
            copied += 0 if self.allocator.recomputes else first.tokens
        while len(request.sequences) < request.samples:
            grant = self.allocator.fork(first.row)
            if isinstance(grant, Refusal):
                raise StalledError(f"{request} cannot fork: {grant}")
            request.sequences.append(Sequence(grant.row, first.tokens))
            copied += grant.copied
        return copied

    def select(self, request: Request, parents: list[int]) -> int:
        """Let each beam continue the one that `parents` says; returns the tokens to copy for that."""
        before, copied = request.sequences, 0
        if not self.allocator.shares:  # beams keep their room, and what one takes over from another is copied
            again = 0 if self.allocator.recomputes else len(parents) - len(set(parents))
            return again * request.computed
        after: list[Sequence] = []
        for parent in parents:
            if before[parent] in after:
                grant = self.allocator.fork(before[parent].row)
                if isinstance(grant, Refusal):
                    raise StalledError(f"{request} cannot fork: {grant}")
                after.append(Sequence(grant.row, request.computed))
                copied += grant.copied
            else:
                after.append(before[parent])
        for sequence in before:
            if sequence not in after:
                self.allocator.release(sequence.row)
        request.sequences = after
        return copied

    def retire(self, request: Request) -> None:
        """Let go of the memory of a request that has finished."""
        for sequence in reversed(request.sequences):
            self.allocator.release(sequence.row)
        request.sequences = []
        self.running.remove(request)
        if request in self.finished:
            self.finished.remove(request)
