"""One allocator's run on a real model: everything that replaces the cost model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from allocators.compiled import is_a
from allocators.grouprows import GroupRows
from allocators.swapping import SwappingRows
from sim.costs.shapes import captured_tokens, shapes_for
from sim.decode.batch import Batcher
from sim.decode.contiguous import Growing, Meter, Recomputing
from sim.decode.device import DTYPES, demand_memory, name_of
from sim.decode.executor import TorchExecutor
from sim.decode.flashinfer_backend import FlashInferBackend, build, obstacle
from sim.decode.graphs import PaddedSteps
from sim.decode.groups import GroupedBackend, PooledStore
from sim.decode.memory import BlockMemory, PagedMemory
from sim.decode.paging import paging_of
from sim.decode.store import KVStore
from sim.decode.torch_backend import TorchBackend
from sim.decode.transcript import Transcript
from sim.decode.warm import warm_up
from sim.errors import UserError, suggest
from sim.schedulers import find_scheduler
from sim.serve import contents

if TYPE_CHECKING:
    from allocators.base import Allocator
    from sim.case import Case
    from sim.costs.shapes import Shapes
    from sim.decode.attention import AttentionBackend
    from sim.decode.executor import Memory, Watcher
    from sim.decode.model import Decoder
    from sim.decode.paged import PagedBackend
    from sim.decode.store import BlockStore
    from sim.models.geometry import Geometry
    from workloads.requests import Requests

BACKENDS = ("torch", "flashinfer")


@dataclass(frozen=True)
class Runtime:
    """What carries out the plans of one run."""

    executor: TorchExecutor
    transcript: Transcript
    backend: str
    """Name of the attention backend."""
    store: BlockStore | None
    """The blocks, for allocators that have some."""
    meter: Meter | None
    """Meters what growing tensors take on a GPU."""
    padded: PaddedSteps | None
    """Runs padded steps."""


def choose_backend(name: str | None, geometry: Geometry, device: torch.device) -> str:
    """Return the backend to use: the one asked for, else FlashInfer where it can be used, else torch.

    Raises:
        UserError: there is no such backend, or it cannot be used here.

    """
    if name is None:
        return "torch" if obstacle(geometry, device) else "flashinfer"
    if name not in BACKENDS:
        raise UserError(f"--backend {name}: not known{suggest(name, BACKENDS)}; known are {', '.join(BACKENDS)}")
    if name == "flashinfer" and (why := obstacle(geometry, device)):
        raise UserError(f"--backend flashinfer: {why}; use --backend torch")
    return name


def build_kernels(backend: str, geometry: Geometry) -> None:
    """Have a backend build what it needs for a model, before a run that keeps to one core of the host."""
    if backend == "flashinfer":
        build(geometry.head_dim, geometry.window)


def host_blocks(allocator: Allocator) -> int:
    """Return how many blocks an allocator has on the host."""
    return allocator.host.pool.num_blocks if is_a(allocator, SwappingRows) else 0


def longest_step(case: Case, allocator: Allocator) -> int:
    """Return how many tokens a step computes at most: what its scheduler allows, or two sequences if it allows any."""
    bounded = find_scheduler(case.scheduler).has_budget and not allocator.recomputes
    return case.limits.max_num_batched_tokens if bounded else 2 * case.limits.max_model_len


def assemble(
    decoder: Decoder,
    case: Case,
    allocator: Allocator,
    requests: Requests,
    *,
    seed: int,
    backend: str,
    swap: bool = False,
    watcher: Watcher | None = None,
    padded: bool | None = None,
    metered: bool = True,
    shapes: Shapes | None = None,
    long_steps: bool = True,
) -> Runtime:
    """Assemble what runs one case: K/V allocated, kernels built, graphs captured.

    Args:
        decoder: the model.
        case: the pool and what is known of it.
        allocator: the one whose plans will be run.
        requests: what will be served.
        seed: of the prompts' tokens.
        backend: attends, where there are blocks.
        swap: whether there is to be room on the host.
        watcher: is shown the logits; every step is then waited for.
        padded: whether steps are padded (`sim.decode.graphs`); where a CUDA graph can hold them
            if not given.
        metered: whether what growing tensors take of a GPU is counted, which takes time.
        shapes: that steps are padded to; those of the engine's limits if not given.
        long_steps: whether those that no graph holds are warmed up as well, which takes a while.

    Raises:
        UserError: the pool, or a step beside it, does not fit on the device, or the allocator keeps what no model
            here does.

    """
    device, limits = decoder.device, case.limits
    transcript = Transcript(requests, contents(requests), decoder.geometry.vocab, seed, device)
    captured = captured_tokens(decoder.geometry)
    shapes = shapes or shapes_for(limits, captured)
    kept = _keep(decoder, case, allocator, transcript, shapes, backend=backend, swap=swap, metered=metered)
    steps = None
    if kept.paged is not None and (kept.paged.capturable if padded is None else padded):
        steps = PaddedSteps(decoder, kept.paged, transcript, shapes)
    try:
        if steps is not None:
            steps.capture()  # first, as it gives back the memory of other steps
            shapes = shapes.timed(steps.periods)
        warming = kept.attends if kept.store is not None else Recomputing()
        most = longest_step(case, allocator) if long_steps else 0
        warm_up(decoder, warming, allocator.table.width, most, 0 if steps is None else captured)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{case.label}: no room on {name_of(device)} for the first steps beside weights and K/V; "
            "a smaller device.kv_memory_gib, max_num_seqs or max_num_batched_tokens would help"
        ) from error
    batcher = Batcher(transcript, device, recomputes=allocator.recomputes, shapes=None if steps is None else shapes)
    executor = TorchExecutor(decoder, kept.attends, kept.memory, batcher, transcript, steps, watcher)
    return Runtime(executor, transcript, kept.attends.name, kept.store, kept.meter, steps)


@dataclass(frozen=True)
class _Kept:
    """Where K/V is kept between steps, and the backend that attends to it."""

    attends: AttentionBackend
    memory: Memory
    store: BlockStore | None = None
    """The blocks, if there are any."""
    paged: PagedBackend | None = None
    """The backend, if all layers read one block table: only then can steps be padded."""
    meter: Meter | None = None


def _keep(
    decoder: Decoder,
    case: Case,
    allocator: Allocator,
    transcript: Transcript,
    shapes: Shapes,
    *,
    backend: str,
    swap: bool,
    metered: bool,
) -> _Kept:
    """Allocate what an allocator's K/V is kept in; arguments are those of `assemble`."""
    geometry, device, pool = decoder.geometry, decoder.device, case.pool
    if allocator.recomputes:
        nothing = Recomputing()
        return _Kept(nothing, nothing)
    if allocator.concatenates:
        meter = Meter(device) if metered and device.type == "cuda" else None
        growing = Growing(transcript, meter)
        return _Kept(growing, growing, meter=meter)
    dtype = DTYPES[geometry.kv_dtype]
    on_host = host_blocks(allocator) if swap else 0
    demand_memory(device, {"the KV pool and its null block": (pool.num_blocks + 1) * pool.block_bytes})
    if is_a(allocator, GroupRows):  # the fast kernels read one table for all layers
        parts = PooledStore(pool.num_blocks, pool.block_bytes, dtype, device, on_host)
        return _Kept(GroupedBackend(parts, allocator, geometry), BlockMemory(parts), parts)
    store = KVStore(geometry, pool.num_blocks, pool.block_size, dtype, device, on_host)
    paging = paging_of(allocator)
    if backend == "flashinfer":
        paged: PagedBackend = FlashInferBackend(store, geometry, shapes, case.limits.max_model_len, paging)
    else:
        paged = TorchBackend(store, paging)
    return _Kept(paged, PagedMemory(store), store, paged)
