"""Padded steps of decodes, each size captured once as a CUDA graph and replayed ever after.

A step reads the tokens said last from the transcript, runs them through the model and writes
what it says back, so nothing comes to the host.  Before a replay the host tells the device
four numbers a lane and the blocks of each (`sim.decode.lanes`), through pinned memory and
without waiting.  Where there are no graphs the same step runs kernel by kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sim.decode.device import finish
from sim.decode.lanes import Lanes, make_lanes, padded_sizes

if TYPE_CHECKING:
    from sim.decode.model import Decoder
    from sim.decode.paged import PagedBackend
    from sim.decode.transcript import Transcript


@dataclass(frozen=True)
class Captured:
    """A graph and where it leaves the logits."""

    graph: torch.cuda.CUDAGraph
    logits: torch.Tensor
    """[lanes, vocab]"""


class PaddedSteps:
    """Runs lanes on a model."""

    def __init__(self, decoder: Decoder, backend: PagedBackend, transcript: Transcript, most: int) -> None:
        """Run steps of up to `most` sequences."""
        self._decoder = decoder
        self._backend = backend
        self._transcript = transcript
        self._most = most
        self._inputs = torch.zeros(4 * most, dtype=torch.int64, device=decoder.device)
        self._captured: dict[int, Captured] = {}

    def run(self, lanes: Lanes) -> torch.Tensor:
        """Run a step, without waiting for it; returns its logits, [lanes.count, vocab], good until the next step."""
        given = torch.from_numpy(lanes.inputs).flatten()
        if self._inputs.device.type == "cuda":
            given = given.pin_memory()
        self._inputs[: len(given)].copy_(given, non_blocking=True)
        self._backend.plan_lanes(lanes, self._columns(lanes.size)[2])
        captured = self._captured.get(lanes.size)
        if captured is None:
            return self._step(lanes.size)[: lanes.count]
        captured.graph.replay()
        return captured.logits[: lanes.count]

    def capture(self) -> None:
        """Capture a graph for each size, the largest first, all in one pool of memory, if the backend allows."""
        if not self._backend.capturable:
            return
        pool = torch.cuda.graph_pool_handle()
        for size in reversed(padded_sizes(self._most)):
            none = np.zeros(0, np.int64)
            empty = make_lanes(np.zeros((1, 1), np.int32), 1, none, none, none, none, size, self._transcript.spare)
            self.run(empty)  # builds and plans what the size needs
            finish(self._decoder.device)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                logits = self._step(size)
            self._captured[size] = Captured(graph, logits)

    def _step(self, size: int) -> torch.Tensor:
        places, positions, _, targets = self._columns(size)
        tokens = self._transcript.tokens
        logits = self._decoder.run(tokens[places], positions, None, self._backend)
        tokens.index_copy_(0, targets, logits.argmax(dim=-1))
        return logits

    def _columns(self, size: int) -> torch.Tensor:
        """int64[4, size]: the inputs of a step, on the device."""
        return self._inputs[: 4 * size].view(4, size)
