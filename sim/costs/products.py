"""How long a step takes besides attention: overheads, matrix products, the output matrix, all-reduces.

Matrix products of few tokens are bound by reading the weights, of many tokens by computing; the shorter of the
two is not hidden entirely.  (`sim.costs.model` has the formulas, and says why they serve numbers and arrays.)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.costs.load import Load

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.costs.coefficients import Coefficients
    from sim.costs.load import Maximum
    from sim.devices import Device
    from sim.models.geometry import Geometry


class Products:
    """All layers of one geometry on one device, without attention."""

    def __init__(self, geometry: Geometry, device: Device, coefficients: Coefficients) -> None:
        """Turn sizes, rates and coefficients into seconds for each unit of load.

        Args:
            geometry: the model, as split over GPUs.
            device: one of those GPUs.
            coefficients: of the cost model.

        """
        c = coefficients
        model, tp, count, layers = geometry.model, geometry.tensor_parallel, geometry.weights, geometry.layers
        element = geometry.element_bytes
        bandwidth = device.bandwidth * c.memory_efficiency
        flops = device.peak(model.compute_dtype) * c.compute_efficiency

        self._step = c.step_overhead_s
        self._run = layers * (c.layer_overhead_s + (2 * c.allreduce_latency_s if tp > 1 else 0.0))
        self._prefilling = layers * c.prefill_layer_s
        self._sequence = c.sequence_overhead_s + 2 * geometry.state_bytes / bandwidth
        self._overlap = c.overlap_loss

        self._weights = (geometry.dense_bytes + count.vectors * element) / bandwidth
        self._routed = geometry.routed_bytes / bandwidth
        experts = model.experts
        self._idle = 1 - experts.active / experts.experts if experts else 1.0
        self._token_memory = (geometry.activation_elements * element + geometry.kv_bytes_per_token) / bandwidth
        self._token_compute = 2 * (count.dense + count.routed * (1 - self._idle)) / flops
        reduced = 2 * layers * 2 * (tp - 1) / tp * model.hidden * element
        self._token_reduce = reduced / (device.link_bandwidth * c.link_efficiency)

        self._head = count.head * element / bandwidth
        self._sample_memory = (model.hidden * element + count.head / model.embedding_dim * 4) / bandwidth
        self._sample_compute = 2 * count.head / (device.peak(model.dtype) * c.compute_efficiency)

        gained = self._token_compute - self._token_memory
        self.bound = (self._weights + self._routed) / gained if gained > 0 else math.inf
        """Number of tokens from which matrix products are bound by compute."""
        self._alone: dict[int, float] = {}
        """Results of `alone`, by the number of sequences."""

    def seconds(self, load: Load) -> float:
        """Return the seconds of one step."""
        seconds: float = self._seconds(load, max, self._experts_read)
        return seconds

    def seconds_each(self, load: Load) -> Any:
        """Return the seconds of each of several steps, or one number if they do not differ in this."""
        counts = load.prefill_tokens, load.decode_seqs, load.prefill_seqs, load.samples
        if any(isinstance(count, np.ndarray) for count in counts):
            return self._seconds(load, np.maximum, self._experts_read_each)
        return self.seconds(load)

    def alone(self, seqs: int) -> float:
        """Return the seconds of one step of `seqs` decodes and nothing else."""
        seconds = self._alone.get(seqs)
        if seconds is None:
            seconds = self._alone[seqs] = self.seconds(Load(decode_seqs=seqs, samples=seqs))
        return seconds

    def _experts_read(self, tokens: int) -> float:
        """Expected share of the experts that `tokens` tokens reach, if each is sent to random ones."""
        return 1.0 - self._idle**tokens

    def _experts_read_each(self, tokens: Any) -> Any:
        if isinstance(tokens, int):
            return self._experts_read(tokens)
        return np.array([self._experts_read(each) for each in tokens.tolist()])

    def _seconds(self, load: Load, maximum: Maximum, experts_read: Callable[[Any], Any]) -> Any:
        tokens, samples = load.prefill_tokens + load.decode_seqs, load.samples
        memory = self._weights + tokens * self._token_memory
        if self._routed:
            memory = memory + self._routed * experts_read(tokens)
        compute = tokens * self._token_compute
        longer = maximum(memory, compute)
        head_memory = self._head + samples * self._sample_memory
        head_compute = samples * self._sample_compute
        head_longer = maximum(head_memory, head_compute)
        return (
            self._step
            + (load.decode_seqs + load.prefill_seqs) * self._sequence
            + (load.prefill_tokens > 0) * self._prefilling
            + (tokens > 0) * (self._run + longer + self._overlap * (memory + compute - longer))
            + (samples > 0) * (head_longer + self._overlap * (head_memory + head_compute - head_longer))
            + tokens * self._token_reduce
        )
