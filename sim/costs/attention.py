"""How long attention takes: reading K/V at a share of the memory bandwidth, computing pairs at a share of the FLOP/s.

Layers with a sliding window see shorter contexts than those without, so the two kinds are counted separately and
added.  (`sim.costs.model` describes the other parts of a step, and why the same formula serves numbers and arrays.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sim.costs.coefficients import Coefficients
    from sim.costs.load import Load, Maximum
    from sim.devices import Device
    from sim.models.geometry import Geometry


class Attend(NamedTuple):
    """Seconds of attention over a set of layers, per K/V token read or per query-key pair."""

    decode_memory: float
    decode_spared: float
    """Seconds saved for each token that is read again, because part of it is in the L2 cache."""
    decode_compute: float
    prefill_memory: float
    prefill_compute: float
    unpack: float
    """Seconds per token of earlier context that latent attention unpacks."""
    scores: float
    """Seconds per score that naive attention moves through device memory."""


class Attention:
    """Attention over all layers of one geometry on one device."""

    def __init__(
        self, geometry: Geometry, device: Device, coefficients: Coefficients, *, naive: bool, slower: float
    ) -> None:
        """Turn sizes, rates and coefficients into seconds for each unit of load.

        Args:
            geometry: the model, as split over GPUs.
            device: one of those GPUs.
            coefficients: of the cost model.
            naive: whether the scores are stored in device memory.
            slower: factor for decodes that read through a block table.

        """
        self._naive = naive
        self._full = _attend(geometry, device, coefficients, naive=naive, slower=slower, sliding=False)
        self._sliding = _attend(geometry, device, coefficients, naive=naive, slower=slower, sliding=True)
        self.windowed = any(group.kind == "sliding" for group in geometry.kv_groups)
        """Whether there are layers with a sliding window."""
        self.spares = self._full.decode_spared != 0
        """Whether step times depend on `Load.decode_repeated`."""
        self.token_s = max(self._full.decode_memory, self._full.decode_compute)
        """Seconds for each K/V token to which a decode attends, in layers without a window."""

    def decode(self, load: Load, maximum: Maximum) -> Any:
        """Return the seconds of attention for the sequences that decode."""
        full, context = self._full, load.decode_context
        memory = context * full.decode_memory - load.decode_repeated * full.decode_spared
        seconds = maximum(memory, context * full.decode_compute)
        if self.windowed:
            sliding, context = self._sliding, load.window_decode_context
            seconds = seconds + maximum(context * sliding.decode_memory, context * sliding.decode_compute)
        return seconds

    def prefill(self, load: Load, maximum: Maximum) -> Any:
        """Return the seconds of attention for the chunks that prefill."""
        tokens = load.prefill_tokens
        seconds = self._chunks(self._full, tokens, load.prefill_pairs, load.prefill_context, maximum)
        if self.windowed:
            pairs, context = load.window_pairs, load.window_prefill_context
            seconds = seconds + self._chunks(self._sliding, tokens, pairs, context, maximum)
        return seconds

    def earlier(self, pairs: float, context: int) -> Any:
        """Return the seconds for what chunks attend to before their own tokens, in layers without a window."""
        return self._chunks(self._full, 0, pairs, context, max)

    def _chunks(self, of: Attend, tokens: Any, pairs: Any, context: Any, maximum: Maximum) -> Any:
        unpack = (context - tokens) * of.unpack
        if self._naive:  # for whole prompts, 2 x pairs - tokens is the sum of the squares of their lengths
            square = 2.0 * pairs - tokens
            return square * of.prefill_compute + square * of.scores + context * of.prefill_memory + unpack
        return maximum(pairs * of.prefill_compute, context * of.prefill_memory) + unpack


def _attend(
    geometry: Geometry, device: Device, coefficients: Coefficients, *, naive: bool, slower: float, sliding: bool
) -> Attend:
    """Work out the seconds for the layers with a sliding window, or for those without."""
    c, tp, model = coefficients, geometry.tensor_parallel, geometry.model
    bandwidth = device.bandwidth * c.attention_memory_efficiency
    flops = device.peak(model.dtype) * c.attention_compute_efficiency
    products = device.peak(model.compute_dtype) * c.compute_efficiency
    mixers = [(mixer, layers) for mixer, layers in model.mixers if (mixer.kind == "sliding") == sliding]
    groups = [group for group in geometry.kv_groups if (group.kind == "sliding") == sliding]
    read = sum(group.layers * group.token_bytes for group in groups) / bandwidth
    score = c.naive_passes * geometry.element_bytes / bandwidth if naive else 0.0
    scores = sum(layers * mixer.scores(tp) for mixer, layers in mixers)
    return Attend(
        decode_memory=slower * (read + score * scores),
        decode_spared=slower * read * c.repeated_reads_cached,
        decode_compute=slower * sum(layers * mixer.pair_flops(tp, decode=True) for mixer, layers in mixers) / flops,
        prefill_memory=read,
        prefill_compute=sum(layers * mixer.pair_flops(tp, decode=False) for mixer, layers in mixers) / flops,
        unpack=sum(layers * mixer.expansion_flops(tp) for mixer, layers in mixers) / products,
        scores=score * scores,
    )
