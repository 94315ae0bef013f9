"""The settings of an engine that `advise` tries, and the alternatives for each.

Only alternatives that can make a difference are tried: a prefix cache if prompts share something, swapping
if the allocator can do it, memory utilization if the pool depends on it.  Settings that are left out are
listed with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allocators.base import Allocator
from allocators.registry import find
from sim.devices import GIB
from sim.planner.vary import Axis
from workloads.values import written

if TYPE_CHECKING:
    from sim.setup import Setup
    from workloads.document import Where

BLOCK_SIZES = (1, 8, 16, 32, 64, 128)
WATERMARKS = (0.0, 0.01, 0.05)
UTILISATIONS = (0.85, 0.9, 0.95)
SEAT_FACTORS = (0.25, 0.5, 2.0, 4.0)
BUDGET_FACTORS = (0.25, 0.5, 2.0, 4.0)


@dataclass(frozen=True)
class Change:
    """One setting, changed."""

    knob: str
    before: Any
    after: Any
    axis: Axis
    unit: str = ""

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.knob} {_shown(self.before)} -> {_shown(self.after)} {self.unit}".rstrip()


def changes(setup: Setup, place: int, *, shared: bool) -> tuple[list[Change], list[str]]:
    """List what may be changed about one allocator of a workload.

    Args:
        setup: the workload, resolved.
        place: which allocator.
        shared: whether prompts share anything.

    Returns:
        Single changes, knob by knob; and knobs that are left out, each with the reason.

    """
    workload, case = setup.workload, setup.cases[place]
    cls, engine = find(case.spec.kind), workload.engine
    own: Where = ("allocators", place)
    offered: list[tuple[str, Where, Any, tuple[Any, ...]]] = []
    left_out: list[str] = []

    if "block_size" in cls.options:
        sizes = tuple(size for size in BLOCK_SIZES if not cls.options["block_size"].fault(size))
        offered.append(("block_size", (*own, "block_size"), case.pool.block_size, sizes))
    else:
        left_out.append(f"block_size: {case.spec.kind} has none")
    limits = case.limits
    offered += [
        ("max_num_seqs", ("engine", "max_num_seqs"), limits.max_num_seqs, _times(limits.max_num_seqs, SEAT_FACTORS)),
        (
            "max_num_batched_tokens",
            ("engine", "max_num_batched_tokens"),
            limits.max_num_batched_tokens,
            tuple(
                tokens
                for tokens in _times(limits.max_num_batched_tokens, BUDGET_FACTORS)
                if limits.chunked_prefill or tokens >= limits.max_model_len
            ),
        ),
        ("watermark", ("engine", "watermark"), limits.watermark, WATERMARKS),
    ]
    if "prefix_cache" not in cls.options:
        left_out.append(f"prefix_cache: {case.spec.kind} has none")
    elif not shared:
        left_out.append("prefix_cache: no two prompts begin alike, as far as the workload says")
    else:
        default = cls.options["prefix_cache"].default
        now = case.spec.options.get("prefix_cache", default)
        offered.append(("prefix_cache", (*own, "prefix_cache"), now, (True, False)))
    offered.append(("kv_dtype", ("model", "kv_dtype"), setup.geometry.kv_dtype, ("fp8",)))
    if cls.swap_out_group is Allocator.swap_out_group:
        left_out.append(f"preemption: {case.spec.kind} cannot swap")
    else:
        where: Where = own if case.spec.preemption else ("engine",)
        offered.append(("preemption", (*where, "preemption"), case.preemption, ("recompute", "swap")))
    if case.pool.given:
        left_out.append("gpu_memory_utilization: the file gives the pool itself, as device.kv_memory_gib")
    else:
        now = engine.gpu_memory_utilization
        offered.append(("gpu_memory_utilization", ("engine", "gpu_memory_utilization"), now, UTILISATIONS))
    made = [
        Change(name, before, after, Axis(name, (where,), ()))
        for name, where, before, values in offered
        for after in values
        if after != before
    ]
    return made, left_out


def _times(value: int, factors: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(max(1, round(value * factor)) for factor in factors))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else written(value)


MORE = 1.25


def hardware(setup: Setup, place: int) -> list[Change]:
    """List what a quarter more of each resource of the device would be: a check of what limits the workload."""
    device, pool = setup.device, setup.cases[place].pool
    more = (MORE - 1) * pool.kv_bytes / GIB
    if pool.given:
        memory = ("KV memory", "GiB", "kv_memory_gib", pool.kv_bytes / GIB, MORE * pool.kv_bytes / GIB)
    else:  # the engine takes its share of what is added
        now = device.memory_bytes / GIB
        added = more / setup.workload.engine.gpu_memory_utilization
        memory = ("device memory (a quarter more KV memory)", "GiB", "memory_gib", now, now + added)
    dtype = setup.geometry.model.compute_dtype
    dtype = dtype if dtype in device.flops else "bf16"
    bandwidth, flops = device.bandwidth / 1e12, device.flops[dtype] / 1e12
    rows = (
        ("memory bandwidth", "TB/s", "bandwidth_tbps", bandwidth, MORE * bandwidth),
        ("compute", f"{dtype} TFLOP/s", "bf16_tflops" if dtype == "fp16" else f"{dtype}_tflops", flops, MORE * flops),
        memory,
    )
    return [
        Change(name, float(f"{now:.4g}"), float(f"{then:.4g}"), Axis(name, (("device", key),), ()), unit)
        for name, unit, key, now, then in rows
    ]
