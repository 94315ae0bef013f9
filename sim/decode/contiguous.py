"""Attention without blocks, for the two allocators that have none.

`Growing` keeps one tensor of K and one of V per layer for each sequence and concatenates every new
token to it, in transformers' own DynamicCache: PyTorch's caching allocator decides where the tensors
lie, and the memory they take can be metered.  `Recomputing` keeps nothing: every step is given all
known tokens of every sequence, which attend to one another, on a GPU those of all sequences in one
kernel.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache

from sim.decode.device import moved
from sim.decode.torch_backend import seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sim.decode.batch import Batch
    from sim.decode.transcript import Transcript
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving


FLASH = (torch.float16, torch.bfloat16)
"""Number formats that the kernel for packed sequences has."""
GROUPED = "enable_gqa" in signature(varlen_attn).parameters
"""Whether it wants to be told that several heads share one of K/V; torch 2.11 finds that itself."""
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Not cuDNN's: it compiles a plan for each length that it has not seen, and here every step brings new ones."""


class Meter:
    """What the growing tensors take of a GPU, as PyTorch's caching allocator itself counts it.  Bytes.

    They live in a memory pool of their own (`torch.cuda.MemPool`), so that segments and peaks
    are theirs alone; the pool is run by the same caching allocator.
    """

    def __init__(self, device: torch.device) -> None:
        """Meter an empty pool."""
        self.allocated = self.peak_allocated = 0
        self.peak_reserved = 0
        """The pool keeps its segments, so what it has reserved only grows."""
        self._pool = torch.cuda.MemPool()
        self._device = device

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Make tensors in the pool, or drop some of it; nothing else may be made or dropped within the context."""
        torch.cuda.reset_peak_memory_stats(self._device)
        before = self._stats()
        with torch.cuda.use_mem_pool(self._pool):
            yield
        after = self._stats()
        self.peak_allocated = max(self.peak_allocated, self.allocated + after.peak - before.allocated)
        self.allocated += after.allocated - before.allocated
        self.peak_reserved += after.reserved - before.reserved

    def _stats(self) -> Stats:
        stats = torch.cuda.memory_stats_as_nested_dict(self._device)
        allocated, reserved = (stats[name]["all"] for name in ("allocated_bytes", "reserved_bytes"))
        return Stats(allocated["current"], allocated["peak"], reserved["current"])


class Stats(NamedTuple):
    """What PyTorch's caching allocator holds for the whole process.  Bytes."""

    allocated: int
    peak: int
    reserved: int


class Growing:
    """K/V of each sequence in tensors of its own, concatenated every step; backend and memory in one."""

    name = "concatenate"

    def __init__(self, transcript: Transcript, meter: Meter | None = None) -> None:
        """Keep nothing yet.

        Args:
            transcript: names sequences.
            meter: counts memory.

        """
        self._transcript = transcript
        self._meter = meter
        self._caches: dict[int, DynamicCache] = {}
        self._names: list[int] = []
        self._counts: list[int] = []
        self._attention = Attention()

    def move(self, plan: Plan, serving: Serving) -> None:
        """Drop the tensors of sequences that have lost or given back their memory."""
        at = self._transcript.at
        alive = {at(job.index, sample) for job in serving.running.values() for sample in range(len(job.rows))}
        alive -= {at(job.index, sample) for job in plan.preempted for sample in range(job.samples)}
        gone = sorted(self._caches.keys() - alive)
        if gone:
            with self._counting():
                for name in gone:
                    self._drop(name)

    def fork(self, batch: Batch) -> None:
        """Clone the tensors of a sequence's first sample for the others."""
        for fork in batch.forks:
            with self._counting():
                for index, layer in enumerate(self._caches[fork.source].layers):
                    self._update(fork.target, index, layer.keys, layer.values)

    def plan(self, batch: Batch) -> None:
        """Note which sequences there are, and how many tokens each has."""
        self._names, self._counts = batch.names.tolist(), batch.counts.tolist()
        self._attention = Attention()

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
        queries, keys, values = (apart(states, self._counts) for states in (query, key, value))
        with self._counting():
            for name, *new in zip(self._names, keys, values, strict=True):
                self._update(name, layer, *new)
        grown = [self._caches[name].layers[layer] for name in self._names]
        return self._attention.each(queries, [(kept.keys, kept.values) for kept in grown], scale, window)

    def _counting(self) -> AbstractContextManager[None]:
        return nullcontext() if self._meter is None else self._meter.counting()

    def _drop(self, name: int) -> None:
        """Free the tensors of a sequence."""
        del self._caches[name]

    def _update(self, name: int, layer: int, *new: torch.Tensor) -> None:
        """Concatenate new K and V, [1, kv_heads, tokens, head_dim] each, to one layer of a sequence."""
        self._caches.setdefault(name, DynamicCache()).update(*new, layer)


class Recomputing:
    """K/V that does not outlive its layer; backend and memory in one."""

    name = "recompute"

    def __init__(self) -> None:
        """Keep nothing, ever."""
        self._counts: list[int] = []
        self._ends = torch.empty(0)
        """int32[s + 1]: where each sequence begins and ends, on the device."""
        self._attention = Attention()

    def move(self, plan: Plan, serving: Serving) -> None:
        """Do nothing: there is nothing to move."""

    def fork(self, batch: Batch) -> None:
        """Do nothing: a fork recomputes what it needs."""

    def plan(self, batch: Batch) -> None:
        """Note where each sequence begins; the batch brings all of its tokens."""
        self._counts = batch.counts.tolist()
        self._ends = moved(batch.offsets.astype(np.int32), batch.ids.device)
        self._attention = Attention()

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
        if query.is_cuda and query.dtype in FLASH:
            longest, before = max(self._counts), -1 if window is None else window - 1
            more: dict[str, Any] = {"enable_gqa": True} if GROUPED else {}
            packed = query, key, value, self._ends, self._ends, longest, longest
            return cast("torch.Tensor", varlen_attn(*packed, scale=scale, window_size=(before, 0), **more))
        queries, keys, values = (apart(states, self._counts) for states in (query, key, value))
        return self._attention.each(queries, list(zip(keys, values, strict=True)), scale, window)


def apart(states: torch.Tensor, counts: list[int]) -> tuple[torch.Tensor, ...]:
    """Take the packed tokens of sequences apart: [tokens, heads, head_dim] to [1, heads, tokens of one, head_dim]."""
    return torch.split(states.transpose(0, 1)[None], counts, dim=2)


class Attention:
    """Lets the last tokens of each sequence attend to all of it; keeps the masks of a step."""

    def __init__(self) -> None:
        """Keep no mask yet."""
        self._masks: dict[tuple[int, int, int | None], torch.Tensor] = {}

    def each(
        self,
        queries: Sequence[torch.Tensor],
        kept: Sequence[tuple[torch.Tensor, torch.Tensor]],
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """Attend sequence by sequence.

        Args:
            queries: of each sequence, [1, heads, tokens, head_dim].
            kept: K and V of each, [1, kv_heads, all, head_dim].
            scale: of the scores.
            window: tokens a token attends to, itself included; None for all before it.

        Returns:
            [tokens of all, heads, head_dim]

        """
        with sdpa_kernel(KERNELS):
            found = [self._one(query, *states, scale, window) for query, states in zip(queries, kept, strict=True)]
        return torch.cat(found, dim=2)[0].transpose(0, 1)

    def _one(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, window: int | None
    ) -> torch.Tensor:
        tokens, context = query.shape[2], keys.shape[2]
        everything = window is None or context <= window
        causal = everything and tokens == context > 1
        mask = None if causal or (everything and tokens == 1) else self._mask(tokens, context, window, query.device)
        return scaled_dot_product_attention(
            query,
            keys,
            values,
            attn_mask=mask,
            is_causal=causal,
            scale=scale,
            enable_gqa=keys.shape[1] != query.shape[1],
        )

    def _mask(self, tokens: int, context: int, window: int | None, device: torch.device) -> torch.Tensor:
        mask = self._masks.get((tokens, context, window))
        if mask is None:
            ends = torch.arange(context - tokens + 1, context + 1, device=device)[:, None]
            mask = self._masks[tokens, context, window] = seen(torch.arange(context, device=device), ends, window)
        return mask
