"""The workload file as a user writes it, in frozen models.

`Workload` is the whole file.  `workloads.loader.load` reads it from YAML, with errors that give line and
column; everything else only reads the result.  Names of models and devices are resolved in `sim`; here
they are only strings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from workloads.allocator import AllocatorSpec, Preemption, Scheduler
from workloads.arrivals import Arrivals, Paced
from workloads.distributions import Quantity
from workloads.lengths import Lengths
from workloads.published import Expectations, Sustained, Variant
from workloads.replies import Replies
from workloads.requests import MOST
from workloads.sessions import Turns
from workloads.sharing import Part
from workloads.spec import CalibrationName, Count, ModelName, NotNegative, Positive, Share, Spec
from workloads.trace import Trace
from workloads.trees import Tree

NOMINAL_TOKEN_S = 0.02
"""Seconds an output token takes unless the file says: an 8B model on an H100 at a moderate batch."""
LATEST_S = 1e9
"""The last instant of a simulation, 32 years: engines count nanoseconds in 64 bits."""


class Model(Spec):
    """A model's geometry, and what to change about it; a bare word is its name."""

    shorthand: ClassVar[str] = "name"

    name: ModelName
    """A shipped geometry (`sim list models`), or the path of a Hugging Face config.json."""
    dtype: Literal["fp32", "fp16", "bf16"] | None = None
    """Number format of weights and activations; as in the geometry if not given."""
    kv_dtype: Literal["fp32", "fp16", "bf16", "fp8", "int8", "int4"] | None = None
    """Number format of the KV cache; that of the model if not given."""
    tensor_parallel: Count = 1
    """GPUs over which weights and KV heads are divided; with fewer KV heads than GPUs, heads are replicated."""
    kv_heads: Count | None = None
    """KV heads instead of the geometry's: as many as heads is MHA, one is MQA."""


class Device(Spec):
    """A GPU, and what to change about it; a bare word is its name."""

    shorthand: ClassVar[str] = "name"

    name: str | None = None
    """A shipped device (`sim list devices`), changed by the other fields; without it the next three are needed."""
    memory_gib: Positive | None = None
    """Device memory."""
    bandwidth_tbps: Positive | None = None
    """Memory bandwidth, 1e12 bytes a second."""
    bf16_tflops: Positive | None = None
    """Peak dense bf16 and fp16 rate, 1e12 operations a second."""
    fp8_tflops: Positive | None = None
    """Peak dense fp8 rate, 1e12 operations a second, for models in fp8; that of bf16 if not given."""
    fp32_tflops: Positive | None = None
    """Peak fp32 rate, 1e12 operations a second, for models in fp32; that of bf16, far too fast, if not given."""
    pcie_gbps: Positive | None = None
    """Bandwidth to the host, one direction, 1e9 bytes a second: what swapping costs."""
    link_gbps: Positive | None = None
    """Bandwidth to the host's other GPUs, one direction, 1e9 bytes a second."""
    multiprocessors: Positive | None = None
    """Streaming multiprocessors; attention is split among them.  It matters only with a calibration."""
    kv_memory_gib: Positive | None = None
    """Memory of the KV pool, instead of what utilization, weights and activations leave."""
    price_per_hour: Positive | None = None
    """What one GPU costs an hour, in any currency; adds the cost of a million output tokens to the figures."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name is None:
            missing = [name for name in ("memory_gib", "bandwidth_tbps", "bf16_tflops") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"a device without a name needs {', '.join(missing)}")
        return self


class Engine(Spec):
    """The serving engine.  Names and defaults follow vLLM's engine arguments."""

    scheduler: Scheduler = "vllm-v1"
    """`static` batches of requests, `orca` iteration-level FCFS, `vllm-v0` prefill first, `vllm-v1` token budget."""
    max_num_seqs: Count = 256
    """Sequences that run at once (seats)."""
    max_num_batched_tokens: Count = 2048
    """Tokens computed in one step."""
    max_model_len: Count | None = None
    """Longest sequence, prompt and output, in tokens; the model's context if not given."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of device memory that weights, activations and KV pool may take together."""
    activation_factor: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    """Activation memory as a multiple of what is estimated from the geometry."""
    watermark: Share | None = None
    """Share of the pool kept free when admitting; the scheduler's own default (vLLM V0 0.01, V1 0) if not given."""
    chunked_prefill: bool | None = None
    """Whether a prompt may be computed over several steps; true for `vllm-v1`, false for the others if not given."""
    long_prefill_token_threshold: Annotated[int, Field(ge=0)] = 0
    """The most prompt tokens of one request in one step; 0 means no limit."""
    full_prompt_gate: bool = True
    """Admit a request only if all its known tokens would fit, although only a chunk is taken (`vllm-v1`)."""
    preemption: Preemption = "recompute"
    """How a preempted request comes back: `recompute`, or `swap` where the allocator can."""
    swap_space_gib: Annotated[float, Field(ge=0, le=1e9)] = 4.0
    """Host memory for swapped blocks, for each GPU."""
    attention: Literal["flash", "naive"] = "flash"
    """`flash`: no quadratic memory traffic; `naive`: the score matrix is written to memory and read back."""


class Generated(Spec):
    """Requests drawn from distributions."""

    count: Annotated[int, Field(ge=1, le=MOST)] | None = None
    """How many requests; give this or duration_s."""
    duration_s: Positive | None = None
    """All requests (sessions, trees) that start before this instant; give this or count."""
    arrivals: Arrivals
    """When requests arrive; with a session, when sessions start."""
    lengths: Lengths
    """How long a request's own prompt and its output are; shared parts and history come on top of the prompt."""
    shared: Annotated[tuple[Part, ...], Field(strict=False)] = ()
    """Parts that prompts begin with and share: system prompts, few-shot examples, retrieved documents."""
    session: Annotated[Turns | Tree | Replies, Field(discriminator="kind")] | None = None
    """How requests follow from one another; without it every request stands alone."""
    samples: Quantity = Field(default=1, validate_default=True)
    """Parallel samples of a request (vLLM's `n`), or its beam width; rounded, at least 1."""
    beam: bool = False
    """Whether the samples are beams of one search, which are forked and dropped at every step."""
    token_s: Positive = NOMINAL_TOKEN_S
    """Nominal seconds for an output token; only orders requests that wait for an answer, which the engine times."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.count is None) == (self.duration_s is None):
            raise ValueError("give either count or duration_s")
        if self.duration_s is not None and self.arrivals.kind in {"batch", "closed"}:
            raise ValueError(f"{self.arrivals.kind} arrivals have no end of their own: give count, not duration_s")
        if self.arrivals.kind == "closed" and self.session is not None and self.session.loop == "open":
            raise ValueError("users in a closed loop wait for every answer: session.loop must be closed")
        return self


def _request_kind(value: Any) -> str:
    trace = "trace" in value if isinstance(value, dict) else isinstance(value, Trace)
    return "a trace" if trace else "generated"  # no key of either, or a fault's path would be taken to lead through it


RequestSource: TypeAlias = Annotated[
    Annotated[Generated, Tag("generated")] | Annotated[Trace, Tag("a trace")], Discriminator(_request_kind)
]


class Slo(Spec):
    """Service-level objectives: a request that meets every one given counts as goodput."""

    ttft_s: Positive | None = None
    """Time to first token, at most."""
    tpot_s: Positive | None = None
    """Time per output token, at most."""
    itl_s: Positive | None = None
    """The longest gap between two tokens, at most."""
    e2e_s: Positive | None = None
    """Arrival to last token, at most."""
    normalized_latency_s: Positive | None = None
    """End-to-end latency per output token, at most."""


class Telemetry(Spec):
    """How much is recorded of a run."""

    blocks: Literal["off", "sampled", "whole"] = "sampled"
    """When to record who owns which block: never, at `instants`, or after every step."""
    instants: Count = 400
    """Snapshots of the block map when sampled."""

    @property
    def snapshots(self) -> int | None:
        """Snapshots of the block map to keep, at most; None for one after every step."""
        return {"off": 0, "sampled": self.instants, "whole": None}[self.blocks]


class Costs(Spec):
    """Changes to the cost model; `sim list costs` names every factor and its source."""

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, NotNegative]

    calibration: CalibrationName | None = None
    """A shipped calibration (`sim list calibrations`), or a file that `sim calibrate` wrote on the device."""

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
    """What it is called in reports."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of everything random."""
    model: Model
    """A shipped geometry, the path of a Hugging Face config.json, or a mapping that changes one."""
    device: Device
    """A shipped device, or a mapping that changes or describes one."""
    engine: Engine = Engine()
    """The serving engine."""
    requests: RequestSource
    """The requests, generated or from a trace; every allocator sees the same ones."""
    allocators: Annotated[tuple[AllocatorSpec, ...], Field(strict=False), AfterValidator(_distinct)]
    """The allocators to compare."""
    slo: Slo = Slo()
    """Service-level objectives."""
    repeat: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Replications, each with its own random draws."""
    horizon_s: Annotated[float, Field(gt=0, le=LATEST_S)] | None = None
    """When the simulated clock stops; unfinished requests are reported.  Without it every request is finished."""
    telemetry: Telemetry = Telemetry()
    """How much is recorded."""
    costs: Costs = Costs()
    """Changes to the cost model."""
    expect: Expectations = Field(default_factory=dict)
    """Published figures: label of a run -> metric -> value; printed beside the simulated ones."""
    sustained: Sustained | None = None
    """Also find the rate that every allocator sustains (metric sustained_rps)."""
    variants: Annotated[tuple[Variant, ...], Field(strict=False)] = ()
    """Run the file with each of these changes instead of as it is, each into its own run directory."""
    remarks: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Printed under the published figures: what remains different, and why."""

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        if self.sustained is not None and not isinstance(self.requests.arrivals, Paced):
            raise ValueError("sustained: needs arrivals with a rate to vary, such as {kind: poisson, rate: 2}")
        return self

    def resolved(self) -> dict[str, Any]:
        """Return the whole file as plain data, defaults filled in, as manifests show it."""
        return self.model_dump(mode="json", exclude_none=True)


PRESETS = Path(__file__).parent / "presets"
"""Workload files that come with kvsim."""
