"""Worst fit: reserve a multiple of the true output, and cut it from the longest hole there is.

And a scheduler that lets the shortest prompt in first.
"""

from math import ceil
from typing import ClassVar

from allocators.holes import FirstFit
from allocators.options import BLOCK_SIZE, Option
from allocators.reserving import RunAllocator
from sim.engine.plan import Plan
from sim.engine.serving import Serving
from sim.schedulers import VllmV1


class WorstFit(FirstFit):
    """Takes the longest hole, so that what is left of it may still be of use."""

    def find(self, need: int) -> int | None:
        """Return the index of the hole for `need` blocks, or None."""
        index = max(range(len(self.sizes)), key=self.sizes.__getitem__, default=None)
        return index if index is not None and self.sizes[index] >= need else None


class WorstFitAllocator(RunAllocator):
    """One run of consecutive blocks a sequence, as in the contiguous family."""

    kind = "worst-fit"
    oracle = True
    options: ClassVar[dict[str, Option]] = {
        "block_size": BLOCK_SIZE,
        "headroom": Option(float, 1.0, "reserved output as a multiple of the true one", minimum=1, maximum=4),
    }

    def __init__(self, num_blocks: int, *sizes: int, headroom: float = 1.0) -> None:
        """Make an empty pool; `sizes` are those of every allocator."""
        super().__init__(WorstFit(num_blocks), num_blocks, *sizes)
        self.headroom = headroom

    def reservation(self, prompt: int, output: int | None) -> int:
        """Token slots for the prompt, and for `headroom` times the output."""
        return min(self.max_model_len, prompt + ceil(self.headroom * self.told(output)) - 1)


class ShortestFirst(VllmV1):
    """vLLM's V1 scheduler, the shortest waiting request before all others."""

    kind: ClassVar[str] = "shortest-first"
    fcfs: ClassVar[bool] = False

    def plan(self, serving: Serving) -> Plan:
        """Fill one step."""
        waiting = sorted(serving.waiting, key=lambda job: job.known)
        serving.waiting.clear()
        serving.waiting.extend(waiting)
        return super().plan(serving)
