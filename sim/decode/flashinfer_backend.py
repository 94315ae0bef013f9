"""Paged attention with FlashInfer's kernels, which find K/V through the block table.

Decodes go through the decode wrapper, chunks through the prefill wrapper, one after the other where a
step has both: a kernel for all of them lays its work out for long queries, and ends with the longest
decode (with an 8B a millisecond later for each thousand tokens that it has more than most).  Both
attend on tensor cores with the kernel that FlashInfer calls `fa2`, of which one build per head size
suffices.  It computes in fp16 and bf16.  For padded steps there is a wrapper for each size of either
part, whose lists stay in place, so that a CUDA graph may hold its kernel.  It is planned again, once,
before each replay.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sim.decode.flashinfer_plan import Lists, Planned, Planner
from sim.decode.paged import PagedBackend
from sim.decode.paging import pages_of
from sim.errors import UserError

if TYPE_CHECKING:
    from sim.costs.shapes import Shapes
    from sim.decode.batch import Batch
    from sim.decode.lanes import Ints, Ints32, Lanes
    from sim.decode.paging import Pages, Paging
    from sim.decode.store import KVStore
    from sim.models.geometry import Geometry

WORKSPACE_BYTES = 128 << 20
"""For partial results of split sequences, as FlashInfer recommends; what a padded step needs may be more."""
HEAD_DIMS = (64, 128, 256)
"""Lengths of a key for which the kernels exist."""


def obstacle(geometry: Geometry, device: torch.device) -> str | None:
    """Say in words why FlashInfer cannot attend for this model here, or None if it can."""
    if device.type != "cuda":
        return "flashinfer runs on cuda only"
    if find_spec("flashinfer") is None:
        return "flashinfer is not installed (pip install flashinfer-python)"
    if geometry.model.dtype not in {"fp16", "bf16"}:
        return f"flashinfer computes in fp16 or bf16, the model is {geometry.model.dtype}"
    if geometry.head_dim not in HEAD_DIMS:
        return f"flashinfer knows keys of {HEAD_DIMS}, those of {geometry.name} are {geometry.head_dim} long"
    return None


def workspace_bytes(geometry: Geometry, shapes: Shapes) -> int:
    """Bytes for partial results of a padded step: one for each tile of queries that there may be.

    FlashInfer splits every sequence of a step that a CUDA graph may hold, and makes room for as many
    tiles as could come (`PrefillPlan` in flashinfer/attention/scheduler.cuh, 0.5.3).
    """
    group = geometry.heads // geometry.kv_heads
    most = 0
    for shape in shapes.all:
        for tokens, lanes in ((shape.decodes, shape.decodes), (shape.tokens, shape.chunks)):
            longest = (tokens - lanes + 1) * group
            tile = next(size for size in (16, 64, 128) if longest <= size or size == 128)
            tiles = max(-(-tokens * group // tile) + lanes, 512 // geometry.kv_heads)
            most = max(most, geometry.heads * tiles * tile * (geometry.head_dim + 1) * 4)
    return max(WORKSPACE_BYTES, most + (1 << 20))


def build(head_dim: int, window: int | None) -> None:
    """Have FlashInfer build its bf16 kernel for keys of `head_dim`, where it has not been built yet; takes a minute."""
    from flashinfer import BatchPrefillWithPagedKVCacheWrapper  # noqa: PLC0415  an extra, and slow to import

    workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device="cuda")
    one, two = (torch.tensor(values, dtype=torch.int32) for values in ([1], [0, 1]))
    wrapper = BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend="fa2")
    left = -1 if window is None else window - 1
    wrapper.plan(two, two, one, one, 1, 1, head_dim, 16, causal=True, window_left=left, q_data_type=torch.bfloat16)


class Part(NamedTuple):
    """The sequences of a step that attend together."""

    chunks: bool
    """Whether they have several new tokens, or one each."""
    padded: int = 0
    """Tokens that a padded step has room for; 0 in any other."""


def parts_of(counts: Ints) -> list[tuple[Part, slice]]:
    """Return which sequences of a packed step attend together, of those with `counts` new tokens, int64[n] > 0."""
    several = counts > 1
    decodes = int(several.argmax()) if several.any() else len(counts)  # the first have one each, as decodes have
    parts = (Part(chunks=False), slice(0, decodes)), (Part(chunks=True), slice(decodes, len(counts)))
    return [(part, where) for part, where in parts if where.start < where.stop]


class Which(NamedTuple):
    """Names a wrapper: it holds one plan, for layers that attend alike."""

    part: Part
    window: int | None
    scale: float


class Buffers:
    """Where wrappers find what they must know of up to `lanes` sequences: one stretch of device memory."""

    def __init__(self, lanes: int, pages: int, device: torch.device) -> None:
        """Make room for `pages` pages of all sequences together."""
        sizes = [lanes + 1, lanes + 1, lanes, pages]
        self._all = torch.zeros(sum(sizes), dtype=torch.int32, device=device)
        self.queries, self.offsets, self.last, self.pages = torch.split(self._all, sizes)

    def fill(self, queries: Ints32, pages: Pages, page_size: int) -> Planned:
        """Send a step to the device, in one piece."""
        offsets, ids, last = pages
        room, count = len(self.offsets), len(last)
        told = np.zeros(3 * room - 1 + len(ids), np.int32)
        told[: count + 1] = queries
        told[room : room + count + 1] = offsets
        told[2 * room : 2 * room + count] = last
        told[3 * room - 1 :] = ids
        pinned = torch.from_numpy(told).pin_memory()
        self._all[: len(told)].copy_(pinned, non_blocking=True)
        host, device = (
            Lists(lists[: count + 1], lists[room : room + count + 1], lists[2 * room : 2 * room + count])
            for lists in (pinned, self._all)
        )
        lengths = torch.from_numpy((np.diff(offsets) - 1) * np.int32(page_size) + last)
        return Planned(host, device, self.pages[: len(ids)], lengths)


class FlashInferBackend(PagedBackend):
    """Keeps K/V in a `KVStore` and attends with FlashInfer."""

    name = "flashinfer"
    capturable = True

    def __init__(self, store: KVStore, geometry: Geometry, shapes: Shapes, longest: int, paging: Paging) -> None:
        """Attend over `store`.

        Args:
            store: the K/V.
            geometry: of the model.
            shapes: of padded steps.
            longest: most tokens of a sequence.
            paging: how blocks are read.

        Raises:
            UserError: FlashInfer cannot be used.

        """
        super().__init__(store, paging)
        device = store.blocks.device
        if why := obstacle(geometry, device):
            raise UserError(f"--backend flashinfer: {why}; use --backend torch")
        from flashinfer import (  # noqa: PLC0415  an extra, and slow to import
            BatchDecodeWithPagedKVCacheWrapper,
            BatchPrefillWithPagedKVCacheWrapper,
        )

        self._geometry, self._dtype = geometry, store.blocks.dtype
        workspace = torch.zeros(workspace_bytes(geometry, shapes), dtype=torch.uint8, device=device)
        self._make_decode = partial(BatchDecodeWithPagedKVCacheWrapper, workspace, "NHD", use_tensor_cores=True)
        self._make_prefill = partial(BatchPrefillWithPagedKVCacheWrapper, workspace, "NHD", backend="fa2")
        self._planners: dict[Which, Planner] = {}
        self._planned: set[Which] = set()
        self._parts: dict[Part, Planned] = {}
        """What attends in this step, in the order of the packed row."""
        lanes = [max(counts) for counts in zip(*((shape.decodes, shape.chunks) for shape in shapes.all), strict=True)]
        lane_pages = -(-longest // paging.size)
        self._decodes, self._chunks = (Buffers(count, count * lane_pages, device) for count in lanes)

    @property
    def planning(self) -> str:
        """How wrappers are planned, in words: see `sim.decode.flashinfer_plan`."""
        ways = [planner.direct for planner in self._planners.values()]
        return f"{sum(way is True for way in ways)} of {len(ways)} wrappers are planned directly"

    def plan(self, batch: Batch) -> None:
        """List the pages of every sequence, decodes and chunks apart."""
        self.slots, self._parts = batch.slots, {}
        for part, where in parts_of(batch.counts):
            rows, contexts, counts = batch.rows[where], batch.contexts[where], batch.counts[where]
            queries = np.append(0, counts.cumsum()).astype(np.int32)
            pages = pages_of(batch.blocks, rows, contexts, self.paging, len(rows))
            buffers = Buffers(len(rows), len(pages.ids), batch.slots.device)
            self._parts[part] = buffers.fill(queries, pages, self.paging.size)
        self._planned.clear()

    def plan_lanes(self, lanes: Lanes, slots: torch.Tensor) -> None:
        """See `PagedBackend.plan_lanes`; plans every wrapper that steps of this shape have used so far."""
        shape, self.slots, self._parts, size = lanes.shape, slots, {}, self.paging.size
        if shape.decodes:
            one_each = np.arange(shape.decodes + 1, dtype=np.int32)
            self._parts[Part(chunks=False, padded=shape.decodes)] = self._decodes.fill(one_each, lanes.decodes, size)
        if shape.tokens:
            self._parts[Part(chunks=True, padded=shape.tokens)] = self._chunks.fill(lanes.queries, lanes.chunks, size)
        self._planned.clear()
        for which in [which for which in self._planners if which.part in self._parts]:
            self._wrapper(which)

    def read(self, layer: int, query: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """See `PagedBackend.read`."""
        query, cache = query.contiguous(), self.pages(layer)  # so will the output be
        if len(self._parts) == 1:
            (part,) = self._parts
            output: torch.Tensor = self._wrapper(Which(part, window, scale)).run(query, cache)
            return output
        output = torch.empty_like(query)
        sizes = [part.padded or planned.tokens for part, planned in self._parts.items()]
        for part, new, out in zip(self._parts, torch.split(query, sizes), torch.split(output, sizes), strict=True):
            self._wrapper(Which(part, window, scale)).run(new, cache, out=out)
        return output

    def _wrapper(self, which: Which) -> Any:
        """Return a wrapper planned for this step."""
        planner = self._planners.get(which)
        if planner is None:
            geometry, size = self._geometry, self.paging.size
            (chunks, padded), wrapper = which.part, self._make(which.part)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # PyTorch's own is not annotated
            planner = Planner(wrapper, chunks, padded, geometry, size, self._dtype, which.window, which.scale, copied)
            self._planners[which] = planner
        if which not in self._planned:
            self._planned.add(which)
            planner.plan(self._parts[which.part])
        return planner.wrapper

    def _make(self, part: Part) -> Any:
        if not part.padded:
            return self._make_prefill() if part.chunks else self._make_decode()
        if not part.chunks:
            buffers, lanes = self._decodes, part.padded
            return self._make_decode(
                use_cuda_graph=True,
                paged_kv_indptr_buffer=buffers.offsets[: lanes + 1],
                paged_kv_indices_buffer=buffers.pages,
                paged_kv_last_page_len_buffer=buffers.last[:lanes],
            )
        buffers = self._chunks
        return self._make_prefill(
            use_cuda_graph=True,
            qo_indptr_buf=buffers.queries,
            paged_kv_indptr_buf=buffers.offsets,
            paged_kv_indices_buf=buffers.pages,
            paged_kv_last_page_len_buf=buffers.last,
        )
