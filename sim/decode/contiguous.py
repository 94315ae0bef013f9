"""Attention without blocks, for the two allocators that have none.

`Growing` keeps a tensor of K and one of V a layer for each sequence and concatenates every new
token to it, in transformers' own DynamicCache: PyTorch's caching allocator decides where
the tensors lie, and what they take there can be metered.  `Recomputing` keeps nothing: every
step brings all known tokens of every sequence, which attend to one another.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache

from sim.decode.torch_backend import seen

if TYPE_CHECKING:
    from sim.decode.batch import Batch
    from sim.decode.transcript import Transcript
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving


class Meter:
    """What the growing tensors take of a GPU, as PyTorch's caching allocator itself counts it.

    They live in a memory pool of their own (`torch.cuda.MemPool`), so that segments and peaks
    are theirs alone; the pool is run by the same caching allocator.
    """

    def __init__(self, device: torch.device) -> None:
        """Meter an empty pool."""
        self.pool = torch.cuda.MemPool()
        self.allocated = self.peak_allocated = self.peak_reserved = 0
        """Bytes."""
        self._device = device
        self._sizes: dict[tuple[int, int], int] = {}
        """Bytes of one of the two tensors of each (sequence, layer)."""

    def using(self) -> AbstractContextManager[None]:
        """Allocate from the pool within the context."""
        return torch.cuda.use_mem_pool(self.pool)

    def now(self) -> int:
        """Bytes allocated on the device, by anybody."""
        return torch.cuda.memory_allocated(self._device)

    def replaced(self, name: int, layer: int, change: int) -> None:
        """Count two equally long tensors that took the place of two shorter ones, one after the other.

        Args:
            name: of the sequence.
            layer: index.
            change: bytes by which the allocation grew.

        """
        before = self._sizes.get((name, layer), 0)
        after = self._sizes[name, layer] = before + change // 2
        self.peak_allocated = max(self.peak_allocated, self.allocated + after, self.allocated + 2 * after - before)
        self.allocated += change

    def freed(self, name: int) -> None:
        """Count the tensors of a sequence as gone."""
        for key in [key for key in self._sizes if key[0] == name]:
            self.allocated -= 2 * self._sizes.pop(key)

    def step(self) -> None:
        """Take note of the pool's segments."""
        segments = self.pool.snapshot()  # type: ignore[no-untyped-call]  # PyTorch's own is not annotated
        self.peak_reserved = max(self.peak_reserved, sum(segment["total_size"] for segment in segments))


class Growing:
    """K/V of each sequence in tensors of its own, concatenated every step; backend and memory in one."""

    name = "concatenate"

    def __init__(self, transcript: Transcript, meter: Meter | None = None) -> None:
        """Keep nothing yet.

        Args:
            transcript: names sequences.
            meter: counts memory; slow.

        """
        self._transcript = transcript
        self._meter = meter
        self._caches: dict[int, DynamicCache] = {}
        self._names: list[int] = []
        self._bounds: list[tuple[int, int]] = []

    def move(self, plan: Plan, serving: Serving) -> None:
        """Drop the tensors of sequences that have lost or given back their memory."""
        at = self._transcript.at
        alive = {at(job.index, sample) for job in serving.running.values() for sample in range(len(job.rows))}
        alive -= {at(job.index, sample) for job in plan.preempted for sample in range(job.samples)}
        for name in self._caches.keys() - alive:
            del self._caches[name]
            if self._meter is not None:
                self._meter.freed(name)

    def fork(self, batch: Batch) -> None:
        """Clone the tensors of a sequence's first sample for the others."""
        for fork in batch.forks:
            for index, layer in enumerate(self._caches[fork.source].layers):
                self._update(fork.target, index, layer.keys, layer.values)

    def plan(self, batch: Batch) -> None:
        """Start sequences that begin anew with empty tensors."""
        self._names = batch.names.tolist()
        self._bounds = list(zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True))
        for name, start in zip(self._names, batch.starts.tolist(), strict=True):
            if not start:
                self._caches.pop(name, None)
        if self._meter is not None:
            self._meter.step()

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """See `AttentionBackend.attend`."""
        output = torch.empty_like(query)
        for name, (first, last) in zip(self._names, self._bounds, strict=True):
            new = (states[first:last].transpose(0, 1)[None] for states in (key, value))
            keys, values = self._update(name, layer, *new)
            output[first:last] = _causal(query[first:last], keys, values, scale, window)
        return output

    def _update(self, name: int, layer: int, *new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Concatenate new K and V, [1, kv_heads, tokens, head_dim] each, to one layer of a sequence."""
        cache = self._caches.setdefault(name, DynamicCache())
        meter = self._meter
        before = meter.now() if meter else 0
        with meter.using() if meter else nullcontext():
            keys, values = cache.update(*new, layer)
        if meter:
            meter.replaced(name, layer, meter.now() - before)
        return keys, values


class Recomputing:
    """K/V that does not outlive its layer; backend and memory in one."""

    name = "recompute"

    def __init__(self) -> None:
        """Keep nothing, ever."""
        self._bounds: list[tuple[int, int]] = []

    def move(self, plan: Plan, serving: Serving) -> None:
        """Do nothing: there is nothing to move."""

    def fork(self, batch: Batch) -> None:
        """Do nothing: a fork recomputes what it needs."""

    def plan(self, batch: Batch) -> None:
        """Note where each sequence begins; the batch brings all of its tokens."""
        self._bounds = list(zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True))

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """See `AttentionBackend.attend`."""
        output = torch.empty_like(query)
        for first, last in self._bounds:
            keys, values = (states[first:last].transpose(0, 1)[None] for states in (key, value))
            output[first:last] = _causal(query[first:last], keys, values, scale, window)
        return output


def _causal(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, window: int | None
) -> torch.Tensor:
    """Let the last tokens of one sequence attend: query [tokens, heads, head_dim], K/V [1, kv_heads, all, head_dim]."""
    tokens, context = len(query), keys.shape[2]
    ends = torch.arange(context - tokens + 1, context + 1, device=query.device)[:, None]
    mask = seen(torch.arange(context, device=query.device), ends, window)
    grouped = keys.shape[1] != query.shape[1]
    states = (query.transpose(0, 1)[None], keys, values)
    return scaled_dot_product_attention(*states, attn_mask=mask, scale=scale, enable_gqa=grouped)[0].transpose(0, 1)
