"""The workload file as a user writes it, in frozen models.

`Workload` is the whole file.  `workloads.loader.load` reads it from YAML, with errors that give line and
column; everything else only reads the result.  Names of models and devices are resolved in `sim`; here
they are only strings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from workloads.allocator import AllocatorSpec, Preemption, Scheduler
from workloads.arrivals import Paced
from workloads.machine import Device, Model
from workloads.published import Expectations, Sustained, Variant
from workloads.requests import LATEST_S
from workloads.slo import Slo
from workloads.source import Mix, RequestSource, parts_of
from workloads.spec import CalibrationName, Count, NotNegative, Share, Spec


class Engine(Spec):
    """The serving engine.  Names and defaults follow vLLM's engine arguments."""

    scheduler: Scheduler = "vllm-v1"
    """Which sequences run in a step (`sim list schedulers`): `static` batches of requests, `orca` iteration-level FCFS,
    `vllm-v0` prefills first, `vllm-v1` a token budget that prefills and decodes share.
    """
    max_num_seqs: Count = 256
    """The most sequences that run at once."""
    max_num_batched_tokens: Count = 2048
    """The most tokens that are computed in one step, prefill and decode together."""
    max_model_len: Count | None = None
    """Longest sequence allowed, prompt and output together, in tokens; the model's context length if not given."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of GPU memory, 0 to 1, that weights, activations and KV pool may take together."""
    activation_factor: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    """Peak activation memory as a multiple of what is estimated from the geometry."""
    watermark: Share | None = None
    """Share of the pool, 0 to 1, that is kept free when a request is admitted, whatever the allocator; if not given
    0.01 for `vllm-v0` with an allocator that is `paged`, `radix` or `hybrid`, else 0, as in vLLM.
    """
    chunked_prefill: bool | None = None
    """Whether a prompt may be computed in pieces over several steps; if not given true for `vllm-v1`.  The others
    compute prompts whole.
    """
    long_prefill_token_threshold: Annotated[int, Field(ge=0)] = 0
    """The most prompt tokens of one request that are computed in one step; 0 means no limit."""
    full_prompt_gate: bool = True
    """Whether `vllm-v1` admits a request only if all its tokens so far would fit, although the first step needs room
    for a piece of them only.
    """
    preemption: Preemption = "recompute"
    """What becomes of a preempted request's K/V: `recompute` drops it and computes it again, `swap` moves it to the
    host and back, where the allocator can.
    """
    swap_space_gib: Annotated[float, Field(ge=0, le=1e9)] = 4.0
    """Host memory for swapped blocks, GiB for each GPU."""
    attention: Literal["flash", "naive"] = "flash"
    """Attention kernel of the cost model: `flash` keeps scores on chip; `naive` writes the score matrix to memory and
    reads it back.
    """


class Telemetry(Spec):
    """How much is recorded of a run."""

    blocks: Literal["off", "sampled", "whole"] = "sampled"
    """When it is recorded which request owns which block: `off` never, `sampled` at so many `instants`, `whole` after
    every step.
    """
    instants: Count = 400
    """The most snapshots of the block map when it is sampled."""

    @property
    def snapshots(self) -> int | None:
        """Snapshots of the block map to keep, at most; None for one after every step."""
        return {"off": 0, "sampled": self.instants, "whole": None}[self.blocks]


class Costs(Spec):
    """Changes to the cost model; `sim list costs` names every factor and its source."""

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, NotNegative]

    calibration: CalibrationName | None = None
    """Coefficients fitted to measured steps: a shipped calibration (`sim list calibrations`), or a file that `sim
    calibrate` wrote.
    """

    @property
    def factors(self) -> dict[str, float]:
        """The named factors that the file overrides."""
        return dict(self.__pydantic_extra__)


def _distinct(allocators: tuple[AllocatorSpec, ...]) -> tuple[AllocatorSpec, ...]:
    labels = [allocator.label for allocator in allocators if allocator.label]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice:
        raise ValueError(f"two allocators are labelled {twice}")
    if not allocators:
        raise ValueError("name at least one allocator, such as {kind: paged}")
    return allocators


class Workload(Spec):
    """One workload file."""

    name: str = Field(min_length=1, max_length=200)
    """Name of the workload in reports; results go to runs/NAME unless --out says otherwise."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of all random numbers; the same seed and file give the same results, byte for byte. On another processor
    means may differ in their last digit.
    """
    model: Model
    """The model: a shipped geometry (`sim list models`), the path of a Hugging Face config.json, or a mapping that
    names one and changes it.
    """
    device: Device
    """The GPU: a shipped one (`sim list devices`), or a mapping that names one and changes it, or describes one of your
    own.
    """
    engine: Engine = Engine()
    """Settings of the serving engine; names and defaults follow vLLM."""
    requests: RequestSource
    """The requests: generated, from a recorded trace, or a mix of several; every allocator serves the same ones."""
    allocators: Annotated[tuple[AllocatorSpec, ...], Field(strict=False), AfterValidator(_distinct)]
    """The allocators to compare (`sim list allocators`), in the order of the reports."""
    slo: Slo = Slo()
    """Limits on latency, seconds: requests that meet all of them count as goodput."""
    repeat: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Number of replications, each with its own random draws; figures are means over them, with intervals."""
    horizon_s: Annotated[float, Field(gt=0, le=LATEST_S)] | None = None
    """Simulated seconds after which the run stops; requests unfinished by then are reported. Without it every request
    is finished.
    """
    telemetry: Telemetry = Telemetry()
    """How much of the block map is recorded."""
    costs: Costs = Costs()
    """Changes to the cost model, which says how long steps take."""
    expect: Expectations = Field(default_factory=dict)
    """Published figures, by label of an allocator and name of a metric (`sim list metrics`); they are printed beside
    the simulated ones.
    """
    sustained: Sustained | None = None
    """Also find the highest rate of arrivals that each allocator sustains (metric sustained_rps)."""
    variants: Annotated[tuple[Variant, ...], Field(strict=False)] = ()
    """Variants of the workload: the file is run with each of these changes instead of as it is, each into a run
    directory of its own.
    """
    remarks: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Sentences that are printed under the published figures: what remains different, and why."""

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        if self.sustained is None:
            return self
        mixed = isinstance(self.requests, Mix)
        if mixed:
            raise ValueError("sustained: needs one rate to vary, and a mix has several; `capacity` varies all of them")
        if not all(isinstance(source.arrivals, Paced) for source in parts_of(self.requests)):
            raise ValueError("sustained: needs arrivals with a rate to vary, such as {kind: poisson, rate: 2}")
        return self

    @model_validator(mode="after")
    def _expected_of_what_runs(self) -> Self:
        if self.variants and self.expect:
            raise ValueError("expect: a file with variants is not run as it is; give each variant its own")
        return self

    def resolved(self) -> dict[str, Any]:
        """Return the whole file as plain data, defaults filled in, as manifests show it."""
        return self.model_dump(mode="json", exclude_none=True)


PRESETS = Path(__file__).parent / "presets"
"""Workload files that come with kvsim."""
