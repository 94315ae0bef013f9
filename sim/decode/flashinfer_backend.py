"""Paged attention with FlashInfer's kernels, which find K/V through the block table.

A step of single tokens goes through the decode wrapper, any other through the prefill wrapper;
both attend on tensor cores with the kernel that FlashInfer calls `fa2`, of which one build per head
size suffices.  It computes in fp16 and bf16.  In a padded step, decodes and chunks each go through
their own wrapper; there is one for each size of either, whose buffers stay in place, so that a CUDA
graph may hold its kernel.  It is planned again, once, before each replay.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sim.decode.device import moved
from sim.decode.flashinfer_plan import Planned, Planner
from sim.decode.paged import PagedBackend
from sim.errors import UserError

if TYPE_CHECKING:
    from sim.costs.shapes import Shapes
    from sim.decode.batch import Batch
    from sim.decode.lanes import Ints32, Lanes
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


class Which(NamedTuple):
    """Names a wrapper: it holds one plan, for layers that attend alike."""

    part: Part
    window: int | None
    scale: float


class Buffers:
    """Where the wrappers of padded steps find what they must know of up to `lanes` sequences: one stretch of memory."""

    def __init__(self, lanes: int, lane_pages: int, device: torch.device) -> None:
        """Make room for `lane_pages` pages a sequence."""
        sizes = [lanes + 1, lanes + 1, lanes, lanes * lane_pages]
        self._all = torch.zeros(sum(sizes), dtype=torch.int32, device=device)
        self.queries, self.offsets, self.last, self.pages = torch.split(self._all, sizes)

    def fill(self, queries: Ints32, pages: Pages, page_size: int) -> Planned:
        """Send a step to the device, in one piece."""
        offsets, ids, last = pages
        room = len(self.offsets)
        told = np.zeros(3 * room - 1 + len(ids), np.int32)
        told[: len(queries)] = queries
        told[room : room + len(offsets)] = offsets
        told[2 * room : 2 * room + len(last)] = last
        told[3 * room - 1 :] = ids
        pinned = torch.from_numpy(told).pin_memory()
        self._all[: len(told)].copy_(pinned, non_blocking=True)
        return Planned(
            queries=pinned[: len(queries)],
            offsets=pinned[room : room + len(offsets)],
            pages=self.pages[: len(ids)],
            last=pinned[2 * room : 2 * room + len(last)],
            lengths=torch.from_numpy((np.diff(offsets) - 1) * np.int32(page_size) + last),
        )


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
        self._decodes, self._chunks = (Buffers(count, -(-longest // paging.size), device) for count in lanes)
        self._copied: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]  # PyTorch's own is not annotated

    @property
    def planning(self) -> str:
        """How padded steps are planned, in words: see `sim.decode.flashinfer_plan`."""
        ways = [planner.direct for planner in self._planners.values() if planner.padded]
        return f"{sum(way is True for way in ways)} of {len(ways)} wrappers are planned directly"

    def plan(self, batch: Batch) -> None:
        """List the pages of every sequence, one after the other."""
        size, contexts = self.paging.size, batch.contexts
        counts = -(-contexts // size)
        offsets = np.concatenate([[0], counts.cumsum()])
        owner = np.repeat(np.arange(len(counts)), counts)
        columns = np.arange(offsets[-1]) - offsets[:-1][owner]
        cells = moved(np.stack([batch.rows[owner], columns]), batch.table.device)
        self.slots = batch.slots
        planned = Planned(
            queries=_int32(batch.offsets),
            offsets=_int32(offsets),
            pages=self.paging.pages(batch.table, cells[0], cells[1]).to(torch.int32),
            last=_int32((contexts - 1) % size + 1),
            lengths=_int32(contexts),
        )
        self._parts = {Part(chunks=bool((batch.counts > 1).any())): planned}
        self._planned.clear()

    def plan_lanes(self, lanes: Lanes, slots: torch.Tensor) -> None:
        """See `PagedBackend.plan_lanes`; plans every wrapper that steps of this shape have used so far."""
        self._copied.synchronize()  # a plan is copied from pinned memory, which the next one writes to
        shape, self.slots, self._parts, size = lanes.shape, slots, {}, self.paging.size
        if shape.decodes:
            one_each = np.arange(shape.decodes + 1, dtype=np.int32)
            self._parts[Part(chunks=False, padded=shape.decodes)] = self._decodes.fill(one_each, lanes.decodes, size)
        if shape.tokens:
            self._parts[Part(chunks=True, padded=shape.tokens)] = self._chunks.fill(lanes.queries, lanes.chunks, size)
        self._planned.clear()
        for which in [which for which in self._planners if which.part in self._parts]:
            self._wrapper(which)
        self._copied.record()

    def read(self, layer: int, query: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """See `PagedBackend.read`."""
        query, cache = query.contiguous(), self.pages(layer)  # so will the output be
        if len(self._parts) == 1:
            (part,) = self._parts
            output: torch.Tensor = self._wrapper(Which(part, window, scale)).run(query, cache)
            return output
        output = torch.empty_like(query)
        sizes = [part.padded for part in self._parts]
        for part, new, out in zip(self._parts, torch.split(query, sizes), torch.split(output, sizes), strict=True):
            self._wrapper(Which(part, window, scale)).run(new, cache, out=out)
        return output

    def _wrapper(self, which: Which) -> Any:
        """Return a wrapper planned for this step."""
        planner = self._planners.get(which)
        if planner is None:
            geometry, size = self._geometry, self.paging.size
            (chunks, padded), wrapper = which.part, self._make(which.part)
            planner = Planner(wrapper, chunks, padded, geometry, size, self._dtype, which.window, which.scale)
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


def _int32(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int32)).pin_memory()
