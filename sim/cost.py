"""How long a step takes: a roofline over what the step computes and moves.

    t = step_overhead + sequence_overhead x sequences
      + matrix products + attention of decodes + attention of prefills
      + all-reduces + copies + swaps + page mappings

Each part is the larger of its arithmetic over reachable FLOP/s and its traffic over reachable
bandwidth; matrix products add `overlap_loss` of the smaller.  One formula serves a single step
and a whole leap of steps: the same float operations in the same order, on a number or on an
array, so that both give the same nanoseconds to the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from sim.coefficients import Coefficients
from sim.geometry import DTYPE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from sim.devices import Device
    from sim.geometry import Geometry

    Ints = npt.NDArray[np.int64]


class Load(NamedTuple):
    """What one step computes and moves.  Tokens are counted once, whatever the number of layers."""

    prefill_tokens: int = 0
    """Known tokens computed, over all chunks."""
    prefill_pairs: int = 0
    """Query-key pairs of the chunks: sum of n x start + n x (n + 1) / 2."""
    prefill_context: int = 0
    """K/V tokens the chunks read: sum of start + n."""
    prefill_seqs: int = 0
    """Chunks."""
    decode_seqs: int = 0
    """Sequences that decode one token."""
    decode_context: int = 0
    """K/V tokens they attend to, their own included."""
    samples: int = 0
    """Sequences whose logits are computed."""
    copied_tokens: int = 0
    """Token slots copied on the device (torch.cat, copy-on-write, fork)."""
    swapped_bytes: int = 0
    """Bytes over PCIe on this GPU, both directions."""
    transfers: int = 0
    """Host transfers those bytes are split into."""
    mapped_pages: int = 0
    """Physical pages mapped."""
    unmapped_pages: int = 0
    """Physical pages unmapped."""
    window_pairs: int = 0
    """`prefill_pairs` as sliding-window layers see them."""
    window_prefill_context: int = 0
    """`prefill_context` as sliding-window layers see it."""
    window_decode_context: int = 0
    """`decode_context` as sliding-window layers see it: sum of min(context, window)."""


class _Attend(NamedTuple):
    """Seconds of attention over a set of layers: for a K/V token read, and for a query-key pair."""

    decode_memory: float
    decode_compute: float
    prefill_memory: float
    prefill_compute: float
    expand: float
    """For a context token that latent attention unpacks."""
    scores: float
    """For a score that naive attention moves through device memory."""


class CostModel:
    """Step times of one geometry on one device."""

    def __init__(
        self,
        geometry: Geometry,
        device: Device,
        coefficients: Coefficients | None = None,
        *,
        attention: Literal["flash", "naive"] = "flash",
        paged: bool = True,
    ) -> None:
        """Turn sizes, rates and coefficients into seconds for each unit of load.

        Args:
            geometry: the model, as split over GPUs.
            device: one of those GPUs.
            coefficients: None for the defaults.
            attention: `naive` materialises the scores in device memory, `flash` does not.
            paged: whether decode attention reads through a block table (`paged_attention_overhead` applies).

        """
        self.geometry, self.device, self.attention = geometry, device, attention
        self.coefficients = c = coefficients or Coefficients()
        model, tp, count = geometry.model, geometry.tensor_parallel, geometry.weights
        element = DTYPE_BYTES[model.dtype]
        bandwidth = device.bandwidth * c.memory_efficiency
        flops = device.peak(model.dtype) * c.compute_efficiency
        layers, kv_bytes = geometry.layers, geometry.kv_bytes_per_token

        self._step = c.step_overhead_s
        self._run = layers * (c.attention_layer_s + (2 * c.allreduce_latency_s if tp > 1 else 0.0))
        self._sequence = c.sequence_overhead_s + 2 * geometry.state_bytes / bandwidth
        self._overlap = c.overlap_loss

        self._weights = (geometry.dense_bytes + count.vectors * element) / bandwidth
        self._routed = geometry.routed_bytes / bandwidth
        experts = model.experts
        self._idle = 1 - experts.active / experts.experts if experts else 1.0
        self._token_memory = (geometry.activation_elements * element + kv_bytes) / bandwidth
        self._token_compute = 2 * (count.dense + count.routed * (1 - self._idle)) / flops
        reduced = 2 * layers * 2 * (tp - 1) / tp * model.hidden * element
        self._token_reduce = reduced / (device.link_bandwidth * c.link_efficiency)

        self._head = count.head * element / bandwidth
        self._sample_memory = (model.hidden * element + count.head / model.embedding_dim * 4) / bandwidth
        self._sample_compute = 2 * count.head / flops

        slower = 1 + c.paged_attention_overhead * paged
        self._full = self._attend(slower, sliding=False)
        self._sliding = self._attend(slower, sliding=True)
        self._windowed = any(group.kind == "sliding" for group in geometry.kv_groups)

        self._copy = 2 * kv_bytes / bandwidth
        self._swap = 1 / (device.pcie_bandwidth * c.pcie_efficiency)
        self._transfer = c.transfer_overhead_s
        self._map, self._unmap = c.page_map_s, c.page_unmap_s

    def _attend(self, slower: float, *, sliding: bool) -> _Attend:
        c, tp, model = self.coefficients, self.geometry.tensor_parallel, self.geometry.model
        bandwidth = self.device.bandwidth * c.attention_memory_efficiency
        peak = self.device.peak(model.dtype)
        flops = peak * c.attention_compute_efficiency
        mixers = [layer.mixer for layer in model.stack if (layer.mixer.kind == "sliding") == sliding]
        groups = [group for group in self.geometry.kv_groups if (group.kind == "sliding") == sliding]
        read = sum(group.layers * group.token_bytes for group in groups) / bandwidth
        score = c.naive_passes * DTYPE_BYTES[model.dtype] / bandwidth if self.attention == "naive" else 0.0
        return _Attend(
            decode_memory=slower * (read + score * sum(mixer.scores(tp) for mixer in mixers)),
            decode_compute=slower * sum(mixer.pair_flops(tp, decode=True) for mixer in mixers) / flops,
            prefill_memory=read,
            prefill_compute=sum(mixer.pair_flops(tp, decode=False) for mixer in mixers) / flops,
            expand=sum(mixer.expansion_flops(tp) for mixer in mixers) / (peak * c.compute_efficiency),
            scores=score * sum(mixer.scores(tp) for mixer in mixers),
        )

    def step_ns(self, load: Load) -> int:
        """Nanoseconds of one step."""
        return round(self._seconds(load, max, self._experts_read) * 1e9)

    def leap_ns(self, load: Load, **changing: Ints) -> Ints:
        """Nanoseconds of each of several steps that differ from `load` in the fields `changing`, int64[n] each.

        Equal to `step_ns` of every one of them.
        """
        seconds = self._seconds(load._replace(**changing), np.maximum, self._experts_read_each)  # type: ignore[arg-type]
        return np.rint(seconds * 1e9).astype(np.int64)

    def decode_ns(self, seqs: int, contexts: Ints) -> Ints:
        """Nanoseconds of each of several pure decode steps of `seqs` sequences, `contexts[i]` K/V tokens in step i."""
        return self.leap_ns(Load(decode_seqs=seqs, samples=seqs), decode_context=contexts)

    def _experts_read(self, tokens: int) -> float:
        """Expected share of the experts that at least one of `tokens` tokens is sent to, routed evenly."""
        return 1.0 - self._idle**tokens

    def _experts_read_each(self, tokens: int | Ints) -> float | npt.NDArray[np.float64]:
        if isinstance(tokens, int) or self._idle == 1.0:
            return self._experts_read(0 if self._idle == 1.0 else int(tokens))
        return np.array([self._experts_read(each) for each in tokens.tolist()])

    def _roofline(self, memory: Any, compute: Any, maximum: Callable[[Any, Any], Any]) -> Any:
        longer = maximum(memory, compute)
        return longer + self._overlap * (memory + compute - longer)

    def _seconds(self, load: Load, maximum: Callable[[Any, Any], Any], experts_read: Callable[[Any], Any]) -> Any:
        """Evaluate the formula, on numbers or on arrays."""
        tokens = load.prefill_tokens + load.decode_seqs
        samples = load.samples
        products = self._roofline(
            self._weights + self._routed * experts_read(tokens) + tokens * self._token_memory,
            tokens * self._token_compute,
            maximum,
        )
        head = self._roofline(self._head + samples * self._sample_memory, samples * self._sample_compute, maximum)
        attention = self._attention(
            self._full, load.decode_context, load.prefill_pairs, load.prefill_context, load.prefill_tokens, maximum
        )
        if self._windowed:
            attention = attention + self._attention(
                self._sliding,
                load.window_decode_context,
                load.window_pairs,
                load.window_prefill_context,
                load.prefill_tokens,
                maximum,
            )
        return (
            self._step
            + (load.decode_seqs + load.prefill_seqs) * self._sequence
            + (tokens > 0) * (self._run + products)
            + (samples > 0) * head
            + attention
            + tokens * self._token_reduce
            + load.copied_tokens * self._copy
            + load.swapped_bytes * self._swap
            + load.transfers * self._transfer
            + load.mapped_pages * self._map
            + load.unmapped_pages * self._unmap
        )

    def _attention(
        self, of: _Attend, context: Any, pairs: Any, read: Any, tokens: Any, maximum: Callable[[Any, Any], Any]
    ) -> Any:
        decode = maximum(context * of.decode_memory, context * of.decode_compute)
        if self.attention == "naive":
            square = 2.0 * pairs - tokens
            return decode + square * of.prefill_compute + square * of.scores + read * (of.prefill_memory + of.expand)
        return decode + maximum(pairs * of.prefill_compute, read * of.prefill_memory) + read * of.expand
