"""What serves the requests: a model's geometry on a GPU.  `sim` resolves the names, and says what fits."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from workloads.spec import Count, ModelName, Positive, Spec


class Model(Spec):
    """A model's geometry, and what to change about it; a bare word is its name."""

    shorthand: ClassVar[str] = "name"

    name: ModelName
    """Name of a shipped geometry (`sim list models`), or the path of a Hugging Face config.json, whose
    `quantization_config` says how many bits weights take.
    """
    dtype: Literal["fp32", "fp16", "bf16"] | None = None
    """Number format of weights and activations; the geometry's own if not given."""
    kv_dtype: Literal["auto", "fp32", "fp16", "bf16", "fp8", "fp8_e4m3", "fp8_e5m2", "int8", "int4"] | None = None
    """Number format of the KV cache, in vLLM's words; auto, or not given, is the same as `dtype`."""
    tensor_parallel: Count = 1
    """Number of GPUs that the weights and KV heads are divided among; with fewer KV heads than GPUs, heads are
    replicated.
    """
    kv_heads: Count | None = None
    """Number of KV heads instead of the geometry's: as many as attention heads is MHA, fewer GQA, one MQA."""


class Device(Spec):
    """A GPU, and what to change about it; a bare word is its name."""

    shorthand: ClassVar[str] = "name"

    name: str | None = None
    """A shipped device (`sim list devices`), changed by the other fields; without it the next three are needed."""
    memory_gib: Positive | None = None
    """Memory of one GPU, GiB."""
    bandwidth_tbps: Positive | None = None
    """Memory bandwidth of one GPU, TB/s (10^12 bytes a second)."""
    bf16_tflops: Positive | None = None
    """Peak rate of dense bf16 and fp16 products, TFLOP/s (10^12 operations a second)."""
    fp8_tflops: Positive | None = None
    """Peak rate of dense fp8 products, TFLOP/s, for models in fp8; that of bf16 if not given."""
    fp32_tflops: Positive | None = None
    """Peak fp32 rate, TFLOP/s, for models in fp32; if not given that of bf16, which is far too fast."""
    pcie_gbps: Positive | None = None
    """Bandwidth between GPU and host in one direction, GB/s (10^9 bytes a second); sets how long swapping takes."""
    link_gbps: Positive | None = None
    """Bandwidth to the other GPUs of the host in one direction, GB/s; sets how long tensor parallelism communicates."""
    multiprocessors: Positive | None = None
    """Streaming multiprocessors; attention is split among them.  It matters only with a calibration."""
    kv_memory_gib: Positive | None = None
    """Size of the KV pool on each GPU, GiB, instead of what gpu_memory_utilization, weights and activations leave."""
    price_per_hour: Positive | None = None
    """Price of one GPU for an hour, in any currency; with it the cost of a million output tokens is reported."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name is None:
            missing = [name for name in ("memory_gib", "bandwidth_tbps", "bf16_tflops") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"a device without a name needs {', '.join(missing)}")
        return self
