"""Padded steps: each shape is captured once as a CUDA graph and replayed from then on.

A step reads the last generated tokens from the transcript, runs them through the model and writes
the new ones back, so no token passes through the host.  Before a replay the host sends the device a
few numbers per token and the pages of each sequence (`sim.decode.lanes`), through pinned memory
and without waiting.  Where graphs are not available, the same step runs kernel by kernel.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sim.costs.captured import MANY, CapturedStep
from sim.costs.shapes import Shape, Shapes
from sim.decode.device import finish
from sim.decode.grid import served
from sim.decode.lanes import Lanes, blank

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.decode.lanes import Ints
    from sim.decode.model import Decoder
    from sim.decode.paged import PagedBackend
    from sim.decode.transcript import Transcript

BEFORE = 8
"""Decodes in the steps that run before one that is timed, if it has none itself."""
PREPARED_S = 2.5e-3
"""For how long they do while the host prepares it."""
REPEATS = 2
"""How often a step is timed; once more if the times differ by more than `ALIKE`."""
ALIKE = 1.01
EARLIER = 144
"""Tokens that each chunk attends to before its own where that is measured: so few that reading them takes no time, but
enough for the chunk to be split (`sim.costs.splitting`)."""
OFTEN = 2
"""Times as many repeats for steps that tell of others."""
HOT_S = 0.15
"""For how long `MANY` decodes run before any step with as many is timed.  In service they come in rows, too, and those
of a large model draw more power than a GPU may on average: on an H200 256 of the 8B take 7 % longer in 0.1 s."""
ROW_S = 1e-2
"""For how long they run at least before each that is timed; before one with chunks for ..."""
TIMES = 2
"""... so many times as long as it takes, so that the clock is not still low from the one before."""
READS = (32, 16, 8, 4, 2)
"""Parts of the longest sequence that decodes read on average, or nearly ..."""
EVEN_READS = (16, 4)
"""... and if all of them read equally much ..."""
LONE_READS = (16, 8)
"""... or one of them reads as much as the longest may be ..."""
USUAL = 16
"""... and those that run before a step with chunks."""
TILE = 256
"""Attention reads tiles of 128 or 256 tokens (where a key is 128 or 64 numbers: FlashInfer 0.5.3), so that all decodes
take up to 11 % longer with one token more than just fill them.  What is measured is a quarter of this beside."""


@dataclass(frozen=True)
class Captured:
    """A graph and where it leaves the logits."""

    graph: torch.cuda.CUDAGraph
    logits: torch.Tensor
    """[rows, vocab]"""
    period: int
    """Nanoseconds that it took when tried out with all lanes empty."""


class Told(NamedTuple):
    """What a step sends to the device: views of one buffer, in which each shape has its own layout."""

    places: torch.Tensor
    """int64[width]: position of each token in the transcript."""
    positions: torch.Tensor
    """int64[width]"""
    slots: torch.Tensor
    """int64[width]: where its K/V goes."""
    last: torch.Tensor
    """int64[rows]: the last token of each sequence."""
    targets: torch.Tensor
    """int64[rows]: position in the transcript of its next token."""


class PaddedSteps:
    """Runs lanes on a model."""

    def __init__(self, decoder: Decoder, backend: PagedBackend, transcript: Transcript, shapes: Shapes) -> None:
        """Run steps of any of some shapes."""
        self._decoder = decoder
        self._backend = backend
        self._transcript = transcript
        self._shapes = shapes
        room = max(3 * shape.width + 2 * shape.rows for shape in shapes.all)
        self._buffer = torch.zeros(room, dtype=torch.int64, device=decoder.device)
        self._captured: dict[Shape, Captured] = {}

    def run(self, lanes: Lanes) -> torch.Tensor:
        """Run a step, without waiting for it; returns its logits, [shape.rows, vocab], good until the next step."""
        given = torch.from_numpy(np.concatenate([lanes.inputs.ravel(), lanes.outputs.ravel()]))
        if self._buffer.device.type == "cuda":
            given = given.pin_memory()
        self._buffer[: len(given)].copy_(given, non_blocking=True)
        self._backend.plan_lanes(lanes, self._told(lanes.shape).slots)
        captured = self._captured.get(lanes.shape)
        if captured is None:
            return self._step(lanes.shape)
        captured.graph.replay()
        return captured.logits

    @property
    def periods(self) -> dict[Shape, int]:
        """Least nanoseconds that a step of each captured shape takes."""
        return {shape: captured.period for shape, captured in self._captured.items()}

    @property
    def planning(self) -> str:
        """How attention is planned, as text."""
        return self._backend.planning

    def clock(self, longest: int, num_blocks: int, split: int) -> list[CapturedStep]:
        """Measure a step of each captured shape (a median): decodes by context read, with chunks or without.

        As in service it comes behind decodes, so that the host has told the device all about it by then, and behind as
        many as it has itself: those of a large model draw much power.  What fewer chunks take longer, or chunks that
        attend to earlier tokens, does not depend on decodes beside them, and is measured without.

        Args:
            longest: tokens of the longest sequence.
            num_blocks: of the cache, which decodes read one after the other.
            split: decodes up to which their contexts are split, so that no long one is waited for.

        """
        alone = [shape for shape in self._captured if not shape.chunks]
        if not alone:
            return []
        self.rehearse()
        paging, spare = self._backend.paging, self._transcript.spare
        blocks = np.random.default_rng(0).permutation(num_blocks)  # as those of an engine that has long been at work
        found = []
        for shape in alone:
            self._row(blank(shape, paging, spare), HOT_S if shape.decodes >= MANY else ROW_S)
            for alike, others in reads(shape.decodes, longest, lone=shape.decodes > split):
                each = [blank(shape, paging, spare, contexts=contexts, blocks=blocks) for contexts in alike]
                seconds = float(np.mean([self._clocked(lanes, lanes, ROW_S) for lanes in each]))
                context, most = (int(np.mean([of(contexts) for contexts in alike])) for of in (np.sum, np.max))
                found.append(CapturedStep(shape.decodes, 0, 0, context, seconds, most, others))
        few = min(alone, key=lambda shape: abs(shape.decodes - BEFORE))
        mixed = sorted(shape for shape in self._captured if shape.chunks)
        for decodes, shapes in groupby(mixed, key=lambda shape: shape.decodes):
            usual = ragged(decodes or few.decodes, longest // USUAL, longest)
            before = blank(Shape(len(usual)), paging, spare, contexts=usual, blocks=blocks)
            self._row(before, HOT_S if decodes >= MANY else ROW_S)
            for shape in shapes:
                ways = [(shape.chunks, 0), (shape.chunks, EARLIER), (1, 0)]
                for chunks, start in ways[:1] if decodes else ways:
                    lanes = blank(shape, paging, spare, chunks=chunks, start=start, blocks=blocks)
                    row_s = max(ROW_S, TIMES * self._captured[shape].period / 1e9) if decodes else PREPARED_S
                    seconds = self._clocked(lanes, before, row_s, 1 if decodes else OFTEN)
                    context = decodes or chunks * start
                    found.append(CapturedStep(decodes, shape.tokens, chunks, context, seconds))
        return found

    def _clocked(self, lanes: Lanes, before: Lanes, row_s: float, often: int = 1) -> float:
        """Return the seconds that a step takes after a row of others, from `often` times as many repeats as usual."""
        took: list[float] = []
        least = often * REPEATS
        while len(took) < least or (len(took) == least and max(took) > ALIKE * min(took)):
            if not lanes.shape.decodes:  # so that the clock is not still low from the one before (`sim.costs.heat`)
                time.sleep(self._captured[lanes.shape].period / 1e9)
            self._row(before, row_s)
            took.append(_timed(partial(self.run, lanes)))
        return float(np.median(took))

    def _row(self, lanes: Lanes, seconds: float) -> None:
        """Run a captured step over and over for some seconds at least, without waiting for it."""
        captured = self._captured[lanes.shape]
        self.run(lanes)
        for _ in range(round(seconds * 1e9 / captured.period)):
            captured.graph.replay()

    def capture(self) -> None:
        """Capture a graph for each shape, the largest first, all in one pool of memory, if the backend allows."""
        if not self._backend.capturable:
            return
        pool = torch.cuda.graph_pool_handle()
        for shape in self._shapes.all:
            self.run(blank(shape, self._backend.paging, self._transcript.spare))  # builds what it needs
            finish(self._decoder.device)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                logits = self._step(shape)
            self._captured[shape] = Captured(graph, logits, _tried(graph))

    def rehearse(self) -> None:
        """Run every captured shape as in service, so that nothing is new to the host and the device is not at rest."""
        with torch.inference_mode():
            for shape in self._captured:
                self.run(blank(shape, self._backend.paging, self._transcript.spare))
        self._decoder.settle()
        finish(self._decoder.device)

    def _step(self, shape: Shape) -> torch.Tensor:
        told, tokens = self._told(shape), self._transcript.tokens
        keep = told.last if shape.tokens else None
        logits = self._decoder.run(tokens[told.places], told.positions, keep, self._backend)
        tokens.index_copy_(0, told.targets, logits.argmax(dim=-1))
        return logits

    def _told(self, shape: Shape) -> Told:
        """Return what a step reads."""
        sizes = [shape.width] * 3 + [shape.rows] * 2
        return Told(*torch.split(self._buffer[: sum(sizes)], sizes))


def _tried(graph: torch.cuda.CUDAGraph) -> int:
    """Replay a graph twice; returns the nanoseconds that the second took on the device."""
    graph.replay()
    return round(_timed(graph.replay) * 1e9)


def _timed(work: Callable[[], object]) -> float:
    """Return the seconds that the device spends on some work."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # PyTorch's
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


class Reads(NamedTuple):
    """What some decodes read."""

    ways: list[Ints]
    """int64[decodes] each: K/V tokens of each of them; what is measured is the mean over these ways."""
    others: int = 0
    """See `CapturedStep.others`."""


def reads(count: int, longest: int, *, lone: bool) -> list[Reads]:
    """Return how many tokens each of some decodes reads: only its own, then ever more.

    They differ as in service (`sim.decode.grid.served`).  For comparison, then all are of one length: a little shorter
    and a little longer, so that they take as much longer than those that just fill their tiles as they do on average.
    And if a `lone` long one makes a difference, they differ as in service again but for one.
    """
    means = [(part, max(1, longest // part), min(TILE, 2 * longest // part) // 4) for part in READS]
    different = [Reads([ragged(count, mean - beside, longest)]) for _, mean, beside in means]
    even = [
        Reads([np.full(count, length) for length in (mean - beside, mean + beside)])
        for part, mean, beside in means
        if part in EVEN_READS and count > 1
    ]
    long = [
        Reads([np.where(np.arange(count) == count // 2, longest, ragged(count, mean, longest))], mean)
        for part, mean, _ in means
        if part in LONE_READS and lone
    ]
    return [Reads([np.ones(count, np.int64)]), *different, *even, *long]


def ragged(count: int, mean: int, longest: int) -> Ints:
    """Return the tokens of sequences as they are in service, int64[count]: `mean` on average, but none over a limit."""
    return np.clip(served(count) * mean, 1, longest).astype(np.int64)
