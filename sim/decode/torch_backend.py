"""Paged attention in plain PyTorch: gather the pages, then scaled dot-product attention.

The reference: it runs anywhere, in every dtype, and says in a few lines what any other
backend must compute.  Sequences with one new token attend together, padded with the null
block to the longest; each prefill chunk attends alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from sim.decode.paged import Cache, PagedBackend

if TYPE_CHECKING:
    from sim.decode.batch import Batch
    from sim.decode.lanes import Lanes
    from sim.decode.paging import Paging


class Span(NamedTuple):
    """A sequence with several new tokens."""

    first: int
    """Where they begin in the packed row."""
    tokens: int
    context: int
    """Tokens of the sequence after the step."""
    pages: torch.Tensor
    """int64[ceil(context / page size)]: its pages in logical order."""


class TorchBackend(PagedBackend):
    """Keeps K/V in a `Cache` and attends through the block table."""

    name = "torch"

    def __init__(self, store: Cache, paging: Paging | None = None) -> None:
        """See `PagedBackend`."""
        super().__init__(store, paging)
        self._singles = 0
        self._padded = torch.zeros(0)
        self._contexts = torch.zeros(0)
        self._spans: list[Span] = []
        self._masks: dict[tuple[int, int | None], torch.Tensor | None] = {}

    def plan(self, batch: Batch) -> None:
        """Find the pages of every sequence; masks are made when a layer first asks for them."""
        paging, table, device = self.paging, batch.table, batch.table.device
        self.slots = batch.slots
        self._masks = {}
        self._singles = singles = int((batch.counts == 1).argmin()) if (batch.counts != 1).any() else len(batch.counts)
        contexts = batch.contexts
        if singles:
            rows = torch.from_numpy(batch.rows[:singles]).to(device)
            nth = torch.arange(-(-int(contexts[:singles].max()) // paging.size), device=device)
            self._padded = paging.pages(table, rows[:, None], nth[None]).to(torch.int64)
            self._contexts = torch.from_numpy(contexts[:singles]).to(device)
        self._spans = []
        for place in range(singles, len(batch.rows)):
            context = int(contexts[place])
            nth = torch.arange(-(-context // paging.size), device=device)
            pages = paging.pages(table, int(batch.rows[place]), nth).to(torch.int64)
            self._spans.append(Span(int(batch.offsets[place]), int(batch.counts[place]), context, pages))

    def plan_lanes(self, lanes: Lanes, slots: torch.Tensor) -> None:
        """See `PagedBackend.plan_lanes`."""
        size, shape = self.paging.size, lanes.shape
        self.slots, self._singles, self._spans, self._masks = slots, shape.decodes, [], {}
        if shape.decodes:
            offsets, ids, _ = lanes.decodes
            counts = np.diff(offsets)
            table = np.zeros((shape.decodes, int(counts.max())), np.int64)
            table[np.arange(table.shape[1]) < counts[:, None]] = ids
            self._padded = torch.from_numpy(table).to(slots.device)
            self._contexts = torch.from_numpy(lanes.contexts).to(slots.device)
        for lane in range(shape.chunks):
            first, stop = lanes.queries[lane : lane + 2].tolist()
            if stop > first:
                begin, end = lanes.chunks.offsets[lane : lane + 2].tolist()
                context = (end - begin - 1) * size + int(lanes.chunks.last[lane])
                named = torch.from_numpy(lanes.chunks.ids[begin:end].astype(np.int64)).to(slots.device)
                self._spans.append(Span(shape.decodes + first, stop - first, context, named))

    def read(self, layer: int, query: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """See `PagedBackend.read`."""
        keys, values = self.pages(layer)
        output = torch.zeros_like(query)  # places that stand empty must be finite too
        singles = self._singles
        if singles:
            mask = self._mask(-1, window)
            past, old = (cache[self._padded].flatten(1, 2).transpose(1, 2) for cache in (keys, values))
            output[:singles] = _attend(query[:singles, :, None], past, old, mask, scale)[:, :, 0]
        for index, span in enumerate(self._spans):
            new = slice(span.first, span.first + span.tokens)
            past, old = (cache[span.pages].flatten(0, 1)[: span.context].transpose(0, 1) for cache in (keys, values))
            mask = self._mask(index, window)
            output[new] = _attend(query[new].transpose(0, 1)[None], past[None], old[None], mask, scale)[0].transpose(
                0, 1
            )
        return output

    def _mask(self, index: int, window: int | None) -> torch.Tensor:
        """Which keys each query sees, of one span or (-1) of all single tokens; the same for every layer."""
        mask = self._masks.get((index, window))
        if mask is None:
            device = self.slots.device
            if index < 0:
                ends = self._contexts[:, None, None, None]
                places = torch.arange(self._padded.shape[1] * self.paging.size, device=device)
            else:
                span = self._spans[index]
                ends = torch.arange(span.context - span.tokens + 1, span.context + 1, device=device)[:, None]
                places = torch.arange(span.context, device=device)
            mask = seen(places, ends, window)
            self._masks[index, window] = mask
        return mask


def seen(places: torch.Tensor, ends: torch.Tensor, window: int | None) -> torch.Tensor:
    """Which of the keys at `places` a query sees that is the last of its first `ends` tokens."""
    mask = places < ends
    return mask if window is None else mask & (places >= ends - window)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attend with fewer K/V heads than heads, if so: [sequences, heads, tokens, head_dim] each."""
    grouped = key.shape[1] != query.shape[1]
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped)
