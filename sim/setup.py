"""Resolving a workload: geometry, device, pool, and a case for each allocator.

Everything that can be wrong with a workload beyond its syntax is found here, before the first
request arrives: unknown models, weights that do not fit, two runs with the same name.
"""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from allocators.base import Allocator
from allocators.errors import AllocatorError
from allocators.groups import Group
from allocators.plugins import PluginError
from allocators.registry import find, measure
from analysis.numbers import listed
from analysis.published import faults
from sim.case import Case
from sim.costs.coefficients import REPLAYED, Coefficients
from sim.costs.load import Load, Route
from sim.costs.model import USUAL_BLOCK, CostModel
from sim.costs.moves import LARGE_PAGE
from sim.costs.products import Products
from sim.devices import GIB, Device, resolve_device
from sim.errors import UserError, of_variant
from sim.files import with_model_found
from sim.limits import Limits
from sim.models.geometry import Geometry, resolve_model
from sim.pool import make_pool
from sim.schedulers import find_scheduler
from sim.vain import windows_in_vain
from workloads.errors import WorkloadError
from workloads.generate import requests as make_requests
from workloads.labels import labels as label_all
from workloads.labels import part_names
from workloads.variants import vary

if TYPE_CHECKING:
    from allocators.options import Value
    from sim.costs.captured import CapturedStep, CapturedSteps
    from workloads.allocator import AllocatorSpec
    from workloads.read_once import Traces
    from workloads.requests import Requests
    from workloads.schema import Engine, Workload


SLOWEST_S = 3600.0
"""No engine takes longer for a token; a device or coefficient with which it would is a mistake in a unit."""


class Setup(NamedTuple):
    """A workload with everything resolved."""

    workload: Workload
    geometry: Geometry
    device: Device
    coefficients: Coefficients
    cases: tuple[Case, ...]
    captured: tuple[CapturedStep, ...] = ()
    """Captured steps that the calibration has measured, if it is one of this model on this device."""
    traces: Traces | None = None
    """Where traces are read that several runs replay; None if each run reads its own."""

    @property
    def notes(self) -> list[str]:
        """What a reader of the results must know of the settings."""
        found = self.device.doubts()
        asked, known, model = self.cases[0].limits.max_model_len, self.geometry.max_model_len, self.geometry.model
        if asked > known:
            found.append(
                f"max_model_len {asked:,} is more than the {known:,} tokens that {self.geometry.name} is made for"
            )
        if self.workload.engine.max_model_len is None and (
            reserving := [case.label for case in self.cases if case.reserves_longest()]
        ):
            found.append(
                f"engine.max_model_len is not given: every sequence of {listed(reserving)} gets room for {asked:,} "
                f"tokens, all that {self.geometry.name} is made for"
            )
        whole = list(dict.fromkeys(case.scheduler for case in self.cases if not case.limits.chunked_prefill))
        if self.workload.engine.chunked_prefill and whole:
            found.append(f"engine.chunked_prefill is true, but prompts are computed whole by {listed(whole)}")
        if "fp32" in {model.dtype, model.compute_dtype} - self.device.flops.keys():
            found.append(
                f"{self.geometry.name} is fp32 and {self.device.name} has no fp32_tflops: its bf16 rate is assumed, "
                "which GPUs reach a half to a sixteenth of in fp32"
            )
        return found + windows_in_vain(self.geometry, self.cases)

    def cost(self, allocator: Allocator) -> CostModel:
        """Make the cost model of this model on this device, reading K/V where `allocator` puts it.

        Raises:
            UserError: a step of one token would take more than `SLOWEST_S`.

        """
        cost = CostModel(
            self.geometry,
            self.device,
            self.coefficients,
            attention=self.workload.engine.attention,
            paged=allocator.scattered,
            # The bound has the step times of what it bounds, although its blocks are single slots.
            block_size=USUAL_BLOCK if allocator.free_preemption else allocator.block_size,
            route=route_of(allocator),
            page_bytes=allocator.page_bytes or LARGE_PAGE,
            captured=self._captured_steps() if route_of(allocator) == "blocks" else None,
        )
        try:
            takes = cost.step_ns(Load(decode_seqs=1, decode_context=1, samples=1)) / 1e9
        except OverflowError:
            takes = inf
        if takes > SLOWEST_S:
            raise UserError(
                f"one token of {self.geometry.name} would take {takes:.3g} s on {self.device.name}: "
                "look at the units of the device's rates, and at costs"
            )
        return cost

    def _captured_steps(self) -> CapturedSteps | None:
        """Return the times of captured steps, if any are known."""
        if not self.captured:
            return None
        from sim.costs.captured import CapturedSteps, on_machine  # noqa: PLC0415  (start-up time without a calibration)
        from sim.costs.shapes import shapes_for  # noqa: PLC0415  (start-up time without a calibration)
        from sim.costs.splitting import Splitting  # noqa: PLC0415  (start-up time without a calibration)

        shapes = shapes_for(self.cases[0].limits, int(self.coefficients.captured_tokens))
        bound = Products(self.geometry, self.device, self.coefficients).bound
        steps = on_machine(self.captured, self.coefficients, bound)
        return CapturedSteps(shapes, steps, Splitting.of(self.geometry, self.device))

    def facts(self, case: Case, repeat: int) -> dict[str, Any]:
        """Return what is known of a run beforehand, as manifests have it."""
        pool, price = case.pool, self.device.price_per_hour
        paid = {} if price is None else {"price_per_hour": price * self.geometry.tensor_parallel}
        parts = part_names(self.workload.requests)
        return {
            "label": case.label,
            "kind": case.spec.kind,
            "scheduler": case.scheduler,
            "repeat": repeat,
            "capacity": pool.slots,
            "num_blocks": pool.num_blocks,
            "block_size": pool.block_size,
            "block_bytes": pool.block_bytes,
            **paid,
            **({"parts": parts} if parts else {}),
        }

    def requests(self, repeat: int = 0) -> Requests:
        """Make the requests of a replication; no session outgrows the longest sequence that is served.

        Raises:
            WorkloadError: a data file or trace is bad, or no request arrives.

        """
        return make_requests(self.workload, repeat, self.cases[0].limits.max_model_len, self.traces)


def prepare(workload: Workload, base: Path | None = None, traces: Traces | None = None) -> Setup:
    """Resolve a workload.

    Args:
        workload: as loaded.
        base: folder that a relative config.json starts from; the working directory if not given.
        traces: where traces are read that other runs replay, too.

    Raises:
        UserError: one line for what is wrong and what would be right.
        WorkloadError: as many lines for what `expect` names that is not there.

    """
    workload = with_model_found(workload, base or Path())
    geometry = resolve_model(workload.model.model_dump(exclude_none=True), base or Path())
    device = resolve_device(workload.device.model_dump(exclude_none=True))
    coefficients, captured = _step_times(workload, geometry, device)
    labels = label_all(workload.allocators)
    if wrong := faults(labels, workload.model_dump(mode="json")["expect"], part_names(workload.requests)):
        raise WorkloadError(*wrong)
    named = enumerate(zip(labels, workload.allocators, strict=True))
    cases = tuple(_case(workload.engine, geometry, device, place, label, spec) for place, (label, spec) in named)
    return Setup(workload, geometry, device, coefficients, cases, captured, traces)


def prepare_variants(workload: Workload, base: Path | None) -> dict[str, Setup]:
    """Resolve every variant of a workload; returns them by label.

    Raises:
        VariantError: one cannot run.

    """
    found = {}
    for variant in workload.variants:
        with of_variant(variant.label):
            found[variant.label] = prepare(vary(workload, variant, base or Path()), base)
    return found


def _step_times(
    workload: Workload, geometry: Geometry, device: Device
) -> tuple[Coefficients, tuple[CapturedStep, ...]]:
    """Return what step times are computed from, and those that were measured; the file's own factors override both."""
    costs = workload.costs
    if costs.calibration is None:
        return Coefficients().changed(costs.factors, "costs"), ()
    from sim.costs.calibration import find_calibration, load_captured, load_coefficients  # noqa: PLC0415  (start-up time)

    path = find_calibration(costs.calibration)
    coefficients = load_coefficients(path)
    measured: tuple[CapturedStep, ...] = ()
    if workload.engine.attention == "flash" and geometry.window is None and not REPLAYED & costs.factors.keys():
        measured = load_captured(path, geometry, device)
    return coefficients.changed(costs.factors, "costs"), measured


def _case(engine: Engine, geometry: Geometry, device: Device, place: int, label: str, spec: AllocatorSpec) -> Case:
    """Resolve one allocator of the file, the one at `place`: its scheduler, limits and pool."""
    scheduler = spec.scheduler or engine.scheduler
    limits = _limits(engine, geometry, scheduler, spec.kind)
    facts = facts_of(geometry)
    try:
        counted = measure(spec.kind, spec.options, facts)
    except (AllocatorError, ValueError) as error:
        raise UserError(f"allocators: {label}: {error}") from error
    if spec.preemption == "swap" and find(spec.kind).swap_out_group is Allocator.swap_out_group:
        raise UserError(f"allocators.{place}.preemption: {spec.kind} cannot swap: what it preempts is recomputed")
    pool = make_pool(
        geometry,
        device,
        counted,
        utilization=engine.gpu_memory_utilization,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        max_num_seqs=engine.max_num_seqs,
        activation_factor=engine.activation_factor,
    )
    facts["host_blocks"] = int(engine.swap_space_gib * GIB) // pool.block_bytes
    return Case(label, spec, scheduler, spec.preemption or engine.preemption, limits, pool, facts)


def _limits(engine: Engine, geometry: Geometry, scheduler: str, kind: str) -> Limits:
    """Return the engine's limits, with the defaults of a scheduler where the file says nothing."""
    try:
        chunks = find_scheduler(scheduler).chunks
    except PluginError as error:
        raise UserError(str(error)) from error
    return Limits(
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        max_model_len=engine.max_model_len or geometry.max_model_len,
        chunked_prefill=chunks and engine.chunked_prefill is not False,
        long_prefill_token_threshold=engine.long_prefill_token_threshold,
        full_prompt_gate=engine.full_prompt_gate,
        watermark=_watermark(scheduler, kind) if engine.watermark is None else engine.watermark,
    )


def _watermark(scheduler: str, kind: str) -> float:
    """Return vLLM 0.6's default for its block manager; nothing else leaves room free."""
    return 0.01 if scheduler == "vllm-v0" and kind in {"paged", "radix", "hybrid"} else 0.0


def route_of(allocator: Allocator | type[Allocator]) -> Route:
    """Say how attention finds K/V where `allocator` keeps it."""
    if allocator.recomputes:
        return "recompute"
    return "tensors" if allocator.concatenates else "blocks"


def facts_of(geometry: Geometry) -> dict[str, Value]:
    """What allocators may know of the model (see `allocators.options.Option.fact`)."""
    tensors = max(1, geometry.kv_tensors)
    groups = [
        Group(each.kind, each.layers, each.state_bytes or each.token_bytes, each.window) for each in geometry.kv_groups
    ]
    facts: dict[str, Value] = {
        "kv_tensors": tensors,
        "tensor_token_bytes": max(1, geometry.kv_bytes_per_token // tensors),
        "token_bytes": geometry.kv_bytes_per_token,
        "kv_groups": ", ".join(map(str, groups)),
    }
    windows = [group.window for group in geometry.kv_groups]
    if windows and all(windows):
        facts["sliding_window"] = max(window or 0 for window in windows)
    return facts
