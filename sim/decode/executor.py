"""The executor that really decodes: plans go in, measured nanoseconds come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from sim.decode.device import moved
from sim.decode.lanes import Lanes
from sim.decode.pace import Pace
from sim.engine.executor import Executor

if TYPE_CHECKING:
    import numpy.typing as npt

    from sim.decode.attention import AttentionBackend
    from sim.decode.batch import Batch, Batcher
    from sim.decode.graphs import PaddedSteps
    from sim.decode.model import Decoder
    from sim.decode.transcript import Transcript
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving

    Ints = npt.NDArray[np.int64]


class Memory(Protocol):
    """Where K/V is kept between steps, and how the moves that a plan asks for are made."""

    def move(self, plan: Plan, serving: Serving) -> None:
        """Copy, swap out and swap in what the plan says, and forget what has been released."""

    def fork(self, batch: Batch) -> None:
        """Copy whole sequences that fork without sharing."""


class Watcher(Protocol):
    """Observes the model's output."""

    def see(self, batch: Batch | Lanes, logits: torch.Tensor) -> None:
        """Receive a step's logits, [wanted places, vocab], which are valid until the next step."""


class TorchExecutor(Executor):
    """Runs plans on a model."""

    def __init__(
        self,
        decoder: Decoder,
        backend: AttentionBackend,
        memory: Memory,
        batcher: Batcher,
        transcript: Transcript,
        padded: PaddedSteps | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        """Run plans.

        Args:
            decoder: the model.
            backend: attends.
            memory: what `backend` attends over.
            batcher: makes a batch of a plan.
            transcript: the tokens.
            padded: runs lanes, if `batcher` makes some; its graphs are captured.
            watcher: is shown every step's logits; that is not timed, so each step is then waited for.

        """
        self._decoder = decoder
        self._backend = backend
        self._memory = memory
        self._batcher = batcher
        self._transcript = transcript
        self._padded = padded
        self._watcher = watcher
        periods = {} if padded is None else padded.periods
        self._pace = Pace(decoder.device, ahead=padded is not None and watcher is None, periods=periods)

    def run(self, plan: Plan, serving: Serving) -> int:
        """Carry out one step; returns the nanoseconds it took (`sim.decode.pace` says what is measured).

        Raises:
            OutOfMemoryError: the device has no room for it.

        """
        try:
            with torch.inference_mode():
                return self._run(plan, serving)
        except torch.OutOfMemoryError as error:
            self._pace.lost()
            raise OutOfMemoryError(_shortage(plan, serving, error)) from error

    @property
    def waited(self) -> int:
        """Nanoseconds, in total, that the host has stood still waiting for the device to finish a step."""
        return self._pace.waited

    def errors(self) -> npt.NDArray[np.int64]:
        """Wait for what is under way; returns int64[steps], nanoseconds that the clock was ahead after each step."""
        self._pace.settle()
        return np.array(self._pace.errors, np.int64)

    def rest(self) -> None:
        """Wait for what is under way: what the host does next belongs to no step."""
        self._pace.rest()

    def _run(self, plan: Plan, serving: Serving) -> int:
        self._pace.start()
        completed = self._transcript.completed
        self._memory.move(plan, serving)
        if plan.moves:  # by kernels that were launched singly
            self._decoder.settle()
        if plan.empty:
            return self._pace.finished()
        batch = self._batcher.make(plan, serving)
        if isinstance(batch, Lanes):
            if self._transcript.completed != completed:  # so were these
                self._decoder.settle()
            logits = self._lanes(batch)
            duration = self._pace.launched(batch.shape)
        else:
            logits = self._packed(batch)
            duration = self._pace.finished()
        if self._watcher is not None:
            self._watcher.see(batch, logits)
        return duration

    def _lanes(self, lanes: Lanes) -> torch.Tensor:
        if self._padded is None:
            raise RuntimeError("a step was padded, but nothing runs padded steps")
        return self._padded.run(lanes)

    def _packed(self, batch: Batch) -> torch.Tensor:
        self._memory.fork(batch)
        logits = self._decoder.logits(batch, self._backend)
        if len(batch.targets):
            self._transcript.say(batch.targets, chosen(logits, batch))
        if self._padded is not None:
            self._decoder.settle()
        return logits


class OutOfMemoryError(Exception):
    """The device ran out of memory within a step; the message says what it held."""


def _shortage(plan: Plan, serving: Serving, error: BaseException) -> str:
    prefill = sum(chunk.tokens for chunk in plan.chunks)
    ledger = ", ".join(f"{share} {slots:,}" for share, slots in serving.ledger()._asdict().items())
    first = str(error).partition(". ")[0]
    return f"{first}: in a step of {plan.decodes} decodes and {prefill} prefill tokens; token slots: {ledger}"


def chosen(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Choose the token for each target: the likeliest, or for the first one of parallel sample k the k-th likeliest."""
    picks = moved(batch.picks, logits.device)
    most = int(batch.ranks.max(initial=0))
    if not most:
        return logits.argmax(dim=-1)[picks]
    ranks = moved(batch.ranks, logits.device)
    return logits.topk(most + 1, dim=-1).indices[picks, ranks]
