"""A stage on which single steps are set up and timed: given decodes of given lengths, and given chunks.

Sequences are set up as in an engine in the middle of its work, in an allocator's own block table, but
the contents of the cache are not computed, as step times do not depend on them.  The steps themselves
go through the executor that serves workloads.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from allocators.answers import MISS, Copy
from allocators.content import Segments
from sim.costs.calibration import Point
from sim.costs.load import Load
from sim.costs.splitting import Splitting
from sim.decode.runtime import assemble, host_blocks
from sim.engine.executor import Simulated
from sim.engine.jobs import Job
from sim.engine.plan import Chunk, MoveKind, Plan
from sim.engine.serving import Serving
from sim.setup import route_of
from workloads.requests import Requests

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from sim.costs.captured import CapturedStep
    from sim.costs.load import Route
    from sim.costs.shapes import Shapes
    from sim.decode.model import Decoder
    from sim.decode.scene import Patience, Scene
    from sim.setup import Setup


PAUSE_S = 0.06
"""Longer than a GPU may draw more power than its limit (`sim.costs.heat`)."""
MOST = 256
"""Tokens by which a sequence may grow."""


class Stage:
    """A model with its K/V and the state of an engine."""

    def __init__(
        self, decoder: Decoder, setup: Setup, *, backend: str, longest: int, seats: int, shapes: Shapes | None = None
    ) -> None:
        """Allocate K/V for the first case of `setup`.

        Args:
            decoder: the model.
            setup: a workload whose first allocator holds the sequences; its requests are not served.
            backend: attends.
            longest: tokens of the longest sequence that will stand here.
            seats: sequences that will stand here at once, at most.
            shapes: that steps are padded to; those of the workload's engine if not given.

        Raises:
            UserError: the pool does not fit on the device.

        """
        case = setup.cases[0]
        self.allocator = case.allocator()
        whole = np.full(seats, longest)
        self._requests = Requests(np.zeros(seats), whole, np.full(seats, MOST))
        runtime = assemble(
            decoder,
            case,
            self.allocator,
            self._requests,
            seed=setup.workload.seed,
            backend=backend,
            swap=True,
            metered=False,
            shapes=shapes,
            long_steps=False,  # every scene begins with some repeats that do not count
        )
        if runtime.store is not None:  # real K/V is not zeros
            runtime.store.blocks.normal_()
            decoder.settle()
        self.backend = runtime.backend
        self._executor, self._transcript, self._padded = runtime.executor, runtime.transcript, runtime.padded
        self._serving = Serving(self.allocator)
        self._splitting = Splitting.of(setup.geometry, setup.device)
        self._told: list[int] = []
        """Nanoseconds that each step of a scene was told to take."""
        self._earlier = 0
        """Steps before that scene."""
        block_bytes, recomputes = case.pool.block_bytes, self.allocator.recomputes
        self.cost = setup.cost(self.allocator)
        """What the setup says of the times of steps; only which of them are bound by compute is asked of it."""
        self._heat = self.cost.heat()
        self._counter = Simulated(self.cost, recomputes=recomputes, block_bytes=block_bytes)

    @property
    def route(self) -> Route:
        """How attention finds K/V here."""
        return route_of(self.allocator)

    @property
    def host_blocks(self) -> int:
        """Blocks on the host."""
        return host_blocks(self.allocator)

    def captured(self, longest: int) -> list[CapturedStep]:
        """Measure steps of every captured shape, of sequences of up to `longest` tokens; none if none is captured."""
        if self._padded is None:
            return []
        with torch.inference_mode():
            return self._padded.clock(longest, self.allocator.num_blocks, self._splitting.tiles)

    def fits(self, scene: Scene) -> bool:
        """Whether there is room for a scene and its repeats."""
        size = self.allocator.block_size
        # what samples share is counted as if they did not
        blocks = sum(-(-(length + scene.longer) // size) for length in scene.lengths)
        return (
            blocks <= self.allocator.num_blocks
            and len(scene.lengths) <= len(self._requests)
            and max(scene.lengths) <= int(self._requests.prompt_tokens[0])
            and max(scene.out, scene.back) <= min(self.host_blocks, self.allocator.num_blocks)
        )

    def measure(self, scene: Scene, patience: Patience) -> Point:
        """Set a step up, run it a number of times, and take it away.

        Returns:
            the median of what the executor measured, with the load of the middle repeat.  (What a padded step took is
            told too late, but known in the end: `sim.decode.pace`.)

        Raises:
            OutOfMemoryError: the device has no room for the step's activations.
            ValueError: the pool has no room for the scene.

        """
        jobs = self._seat(scene)
        loads: list[Load] = []
        self._begin()
        began = time.perf_counter()
        try:
            while len(loads) < patience.warmup + patience.most:
                loads.append(self._step(scene, _chunks(scene, jobs)))
                enough = len(loads) >= patience.warmup + patience.least
                if enough and time.perf_counter() - began > patience.seconds:
                    break
        finally:
            self._clear(jobs)
        each = len(scene.order)
        seconds = self._took()[each - 1 :: each][patience.warmup :]
        low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75)).tolist()
        load = loads[(patience.warmup + len(loads)) // 2]
        return Point(scene.name, load, middle, (high - low) / 2 / middle, self.route)

    def times(self, scene: Scene, prefills: Sequence[bool]) -> npt.NDArray[np.float64]:
        """Set a step up, and run its decodes alone, or with its chunks where `prefills` says so; take it away.

        All steps write the same tokens of the same sequences: none takes longer because a sequence has grown.

        Returns:
            float64[steps]: seconds of each.

        """
        jobs = self._seat(scene)
        alone = self._plan(())
        together = Plan(alone.decodes, _chunks(scene, jobs))
        self._begin()
        try:
            for prefill in prefills:
                self._told.append(self._executor.run(together if prefill else alone, self._serving))
        finally:
            self._clear(jobs)
        return self._took()

    def _begin(self) -> None:
        """Measure from here on."""
        self._executor.rest()
        self._earlier = len(self._executor.errors())
        self._told.clear()
        self._heat = self.cost.heat()

    def _took(self) -> npt.NDArray[np.float64]:
        """Wait for what is under way; returns the seconds that each step has taken since the beginning."""
        seconds: npt.NDArray[np.float64] = np.array(self._told) / 1e9
        return seconds - np.diff(self._executor.errors()[self._earlier :], prepend=0) / 1e9

    def _seat(self, scene: Scene) -> list[Job]:
        """Put a scene's sequences into the allocator, those that decode into the decoding set."""
        serving, count = self._serving, len(scene.decodes)
        decoding = [
            self._admit(scene, index, min(scene.alike, count - index)) for index in range(0, count, scene.alike)
        ]
        prefilling = [self._admit(scene, index) for index in range(count, len(scene.lengths))]
        if self.route == "tensors" and decoding:  # there is no way to have K/V tensors but to compute them
            self._executor.run(Plan(chunks=[Chunk(job, 0, job.prompt) for job in decoding]), serving)
        for job in decoding:
            job.computed, job.generated = job.prompt, 1
            serving.start_decoding(job)
        for job, (start, _) in zip(prefilling, scene.chunks, strict=True):
            job.computed = start
        jobs = [*decoding, *prefilling]
        serving.tokens = sum(job.computed * len(job.rows) for job in jobs)
        return jobs

    def _admit(self, scene: Scene, index: int, samples: int = 1) -> Job:
        """Give one of a scene's sequences memory; or several, which take the places of the next ones, too."""
        serving, length = self._serving, scene.lengths[index]
        job = Job(index, 0, length, int(self._requests.output_tokens[0]), samples, Segments([], index))
        serving.waiting.append(job)
        refusal = serving.admit(job, MISS, scene.shared if samples > 1 else length)
        if refusal is None and samples > 1:
            job.computed = scene.shared
            serving.fork(job)
            refusal = serving.extend(job, length - scene.shared, Plan())  # nothing that would have to be copied counts
        if refusal is not None:  # `fits` says whether there is room
            raise ValueError(f"{scene.name}: {refusal}")
        self._transcript.open(job)
        return job

    def _step(self, scene: Scene, chunks: Sequence[Chunk]) -> Load:
        """Run a scene's step, with all that comes before it; sequences that decode are longer afterwards."""
        if scene.row > 1:
            self._executor.rest()
            time.sleep(PAUSE_S)
        if scene.row > 1 or scene.behind:  # the pause, or what is behind, restores what was used up
            self._heat = self.cost.heat()
        serving, before, waits = self._serving, 0, True
        for step in scene.order[:-1]:
            plan = self._plan(chunks if step == "p" else ())
            before, waits = self._run(plan), bool(plan.chunks)  # which may be launched kernel by kernel
        plan = self._plan(chunks)
        plan.before, plan.unhidden = before, waits
        for kind, blocks in ((MoveKind.OUT, scene.out), (MoveKind.IN, scene.back)):
            plan.move(kind, (Copy(block, block) for block in range(1, blocks + 1)))
            plan.swapped_blocks += blocks
        load = self._counter.load(plan, serving)
        load = load._replace(  # whether they matter or not
            decode_repeated=serving.repeated(plan.decodes),
            decode_longest=serving.decoding.longest(plan.decodes) + 1 if plan.decodes else 0,
            prefill_merged=self._splitting.merged((tokens, start) for _, start, tokens in chunks),
            heat_ns=self._heat.at(sum(self._told)),
        )
        self._run(plan)
        return load

    def _plan(self, chunks: Sequence[Chunk]) -> Plan:
        """Plan a step in which all sequences that decode do so, with room for the next token of each."""
        plan = Plan(len(self._serving.decoding), list(chunks))
        if plan.decodes:
            _, growth = self._serving.growing.grow(0, plan.decodes)
            plan.copied_tokens += growth.copied
        return plan

    def _run(self, plan: Plan) -> int:
        """Run a plan; its decodes are a token longer afterwards.  Returns how long it was told to take."""
        duration = self._executor.run(plan, self._serving)
        if self.cost.heats(Load(sum(chunk.tokens for chunk in plan.chunks), decode_seqs=plan.decodes)):
            self._heat.add(sum(self._told), duration)
        self._told.append(duration)
        self._serving.tokens += plan.decodes
        self._serving.advance(1, 0)
        return duration

    def _clear(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.ticket in self._serving.prefilling:
                self._serving.leave_prefilling(job)
            else:
                self._serving.leave_decoding(job)
            self._serving.retire(job)


def _chunks(scene: Scene, jobs: Sequence[Job]) -> list[Chunk]:
    """Return the chunks of a scene, whose sequences come last."""
    prefilling = jobs[len(jobs) - len(scene.chunks) :]
    return [Chunk(job, *span) for job, span in zip(prefilling, scene.chunks, strict=True)]
