"""The workload file: what a user writes, as frozen models.

`Workload` is the whole file.  `workloads.loader.load` makes one from YAML with errors that
name line and column; everything downstream reads it and nothing changes it.  Names of
models and devices are resolved in `sim`; here they are only words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from workloads.allocator import AllocatorSpec, Scheduler
from workloads.arrivals import Arrivals
from workloads.lengths import Lengths
from workloads.spec import Count, DataPath, NotNegative, Positive, Share, Spec


class Model(Spec):
    """A model's geometry, and what is varied about it; a bare word is its name."""

    shorthand: ClassVar[str] = "name"

    name: str
    """A shipped geometry (`sim list models`), or the path of a Hugging Face config.json."""
    dtype: Literal["fp32", "fp16", "bf16", "fp8", "int4"] | None = None
    """Number format of the weights; as in the geometry if not given."""
    kv_dtype: Literal["fp32", "fp16", "bf16", "fp8", "int4"] | None = None
    """Number format of the KV cache; that of the activations if not given."""
    tensor_parallel: Count = 1
    """GPUs over which weights and KV heads are divided; KV heads are replicated when there are fewer."""
    kv_heads: Count | None = None
    """KV heads in place of the geometry's: all heads is MHA, one is MQA."""


class Device(Spec):
    """A GPU, and what is varied about it; a bare word is its name."""

    shorthand: ClassVar[str] = "name"

    name: str | None = None
    """A shipped device (`sim list devices`) that the other fields vary; without it all are needed."""
    memory_gib: Positive | None = None
    """Device memory."""
    bandwidth_tbps: Positive | None = None
    """Memory bandwidth, terabytes (1e12 bytes) a second."""
    bf16_tflops: Positive | None = None
    """Peak dense bf16/fp16 rate, 1e12 operations a second."""
    fp8_tflops: Positive | None = None
    """Peak dense fp8 rate; twice bf16 if not given."""
    host_bandwidth_gbps: Positive | None = None
    """Bandwidth to host memory one way, 1e9 bytes a second: what swapping costs."""
    kv_memory_gib: Positive | None = None
    """Memory of the KV pool, in place of what utilization, weights and activations leave."""

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
    activation_gib: NotNegative | None = None
    """Memory for activations and workspace; estimated from the geometry if not given."""
    watermark: Share | None = None
    """Share of the pool kept free when admitting; the scheduler's own default (vLLM V0 0.01, V1 0) if not given."""
    chunked_prefill: bool | None = None
    """Whether a prompt may be computed over several steps; true for `vllm-v1`, false for the others if not given."""
    long_prefill_token_threshold: Annotated[int, Field(ge=0)] = 0
    """Most prompt tokens of one request in one step; 0 is no limit."""
    full_prompt_gate: bool = True
    """Admit a request only when blocks for all its known tokens are free, though only a chunk is taken (`vllm-v1`)."""
    preemption: Literal["recompute", "swap"] = "recompute"
    """What a preempted request does to come back."""
    swap_space_gib: NotNegative = 4.0
    """Host memory for swapped blocks, a GPU."""
    attention: Literal["flash", "naive"] = "flash"
    """`flash`: no quadratic traffic; `naive`: the score matrix goes through memory."""


class Generated(Spec):
    """Requests drawn from distributions."""

    count: Count | None = None
    """How many; give this or duration_s."""
    duration_s: Positive | None = None
    """All that arrive before this instant; give this or count."""
    arrivals: Arrivals
    """When they arrive."""
    lengths: Lengths
    """How long prompts and outputs are."""
    samples: Count = 1
    """Parallel samples (vLLM's `n`), or the beam width: sequences that share one prompt."""
    beam: bool = False
    """Whether the samples are beams of one search, which fork and drop at every step."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.count is None) == (self.duration_s is None):
            raise ValueError("give either count or duration_s")
        if self.duration_s is not None and self.arrivals.kind == "batch":
            raise ValueError("a batch arrives all at once: give count, not duration_s")
        return self


class Trace(Spec):
    """Requests replayed from a recorded trace."""

    trace: DataPath
    """The file; gzip'd or not."""
    format: str = "auto"
    """Name of the format (`sim list traces`), or auto to tell it from the content."""
    rate_scale: Positive = 1.0
    """Arrival rate as a multiple of the recorded one: every gap is divided by it."""
    count: Count | None = None
    """Only the first so many requests."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """Whether a row that makes no sense is an error or is left out with a note."""


def _request_kind(value: Any) -> str:
    trace = "trace" in value if isinstance(value, dict) else isinstance(value, Trace)
    return "trace" if trace else "generated"


RequestSource: TypeAlias = Annotated[
    Annotated[Generated, Tag("generated")] | Annotated[Trace, Tag("trace")], Discriminator(_request_kind)
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
    """Who owns which block: never, at so many instants, or at every change."""
    instants: Count = 400
    """Snapshots of the block map when sampled."""


class Costs(Spec):
    """What is changed about the cost model; `sim list costs` names every factor and its source."""

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, Annotated[float, Field(gt=0)]]

    calibration: DataPath | None = None
    """A file that `sim calibrate` wrote on the device, in place of the built-in factors."""

    @property
    def factors(self) -> dict[str, float]:
        """The named factors that the file overrides."""
        return dict(self.__pydantic_extra__)


class Expected(Spec):
    """A published figure; a bare number is its value."""

    shorthand: ClassVar[str] = "value"

    value: float
    """The figure."""
    source: str = ""
    """Where it stands."""


class Workload(Spec):
    """One workload file."""

    name: str = Field(min_length=1, max_length=200)
    """What it is called in reports."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Everything random follows from it."""
    model: Model
    """A shipped geometry, the path of a Hugging Face config.json, or a mapping that varies one."""
    device: Device
    """A shipped device, or a mapping that varies or describes one."""
    engine: Engine = Engine()
    """The serving engine."""
    requests: RequestSource
    """The requests, generated or replayed; every allocator sees the same."""
    allocators: Annotated[tuple[AllocatorSpec, ...], Field(min_length=1, strict=False)]
    """The allocators to compare."""
    slo: Slo = Slo()
    """Service-level objectives."""
    repeat: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Replications, each with draws of its own."""
    horizon_s: Positive | None = None
    """Where the simulated clock stops; unfinished requests are reported.  Without it every request is finished."""
    telemetry: Telemetry = Telemetry()
    """How much is recorded."""
    costs: Costs = Costs()
    """Changes to the cost model."""
    expect: dict[str, dict[str, Expected]] = Field(default_factory=dict)
    """Published figures: label of a run -> metric -> value; printed beside the simulated ones."""

    @model_validator(mode="after")
    def _labels(self) -> Self:
        seen: set[str] = set()
        for allocator in self.allocators:
            name = allocator.label or allocator.kind
            if allocator.label and name in seen:
                raise ValueError(f"two allocators are labelled {name}")
            seen.add(name)
        return self

    def resolved(self) -> dict[str, Any]:
        """Return the whole file as plain data, defaults filled in, as manifests show it."""
        return self.model_dump(mode="json", exclude_none=True)


PRESETS = Path(__file__).parent / "presets"
"""Workload files that come with kvsim."""
