"""The capacity of the pool: how many blocks of K/V fit beside weights and activations.

Computed here and nowhere else: `(memory x utilization - weights - activations) // block_bytes`,
or `kv_memory // block_bytes` where the user gives the cache's memory.  Recurrent layers keep a
state for every sequence; it is set aside from that memory for a full batch, unless the allocator keeps
states in blocks, too.  An allocator may also count in parts of a token, or need whole pages of blocks.
All sizes are for one GPU; under tensor parallelism every GPU holds the same number of blocks, of smaller slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.devices import GIB
from sim.errors import DoesNotFitError, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocators.answers import Measure
    from sim.devices import Device
    from sim.models.geometry import Geometry

LOGIT_BYTES = 12
"""fp32 logits, their probabilities and the logarithms of those: what sampling holds besides the model's logits."""


@dataclass(frozen=True)
class Pool:
    """Physical blocks of one GPU.  Bytes throughout."""

    num_blocks: int
    block_size: int
    """Slots a block."""
    slot_bytes: int
    """One slot of the ledger: K/V of one token over all layers, or a part of it where groups of layers are apart."""
    token_bytes: int
    """K/V of one token over all layers."""
    kv_bytes: int
    """Memory of the cache: the blocks, and a rest smaller than one."""
    memory_bytes: int
    """Of the device."""
    utilization: float
    """Share of it that the engine may use."""
    weight_bytes: int
    activation_bytes: int
    """Estimated peak."""
    state_bytes: int
    """Recurrent state of `max_num_seqs` sequences, for models that have one."""
    given: bool
    """Whether `kv_bytes` is the user's, rather than what weights and activations leave."""

    @property
    def block_bytes(self) -> int:
        """One block."""
        return self.block_size * self.slot_bytes

    @property
    def slots(self) -> int:
        """Slots in the pool."""
        return self.num_blocks * self.block_size

    @property
    def tokens(self) -> int:
        """Tokens of which the pool could hold the K/V in every layer."""
        return self.slots * self.slot_bytes // self.token_bytes

    def explain(self) -> list[tuple[str, str]]:
        """How the number of blocks came about, as (what, how much) rows."""
        usable = (f"usable at {self.utilization:.0%}", gib(int(self.memory_bytes * self.utilization)))
        state = [("recurrent state of a full batch", gib(self.state_bytes))] if self.state_bytes else []
        less = ", less that state" if self.state_bytes else ""
        return [
            ("GPU memory", gib(self.memory_bytes)),
            *([] if self.given else [usable]),
            ("weights", gib(self.weight_bytes)),
            ("activations, estimated peak", gib(self.activation_bytes)),
            *state,
            (f"KV memory, as given{less}" if self.given else "KV memory, what is left", gib(self.kv_bytes)),
            ("token slot", f"{self.token_bytes:,} B"),
            *([] if self.slot_bytes == self.token_bytes else [("slot of the ledger", f"{self.slot_bytes:,} B")]),
            ("block", f"{self.block_size} x {self.slot_bytes:,} = {self.block_bytes:,} B"),
            ("pool", f"{self.num_blocks:,} blocks = {self.slots:,} slots"),
        ]


def gib(size: float) -> str:
    """Format a size, in MiB where it is small, in bytes where it is tiny."""
    if abs(size) < 2**20 / 10:
        return f"{size:,.0f} B"
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.2f} MiB"


def activation_bytes(geometry: Geometry, max_num_batched_tokens: int, max_num_seqs: int) -> int:
    """Estimate the peak of activations in a full step: the widest layer, and the logits of a full batch.

    Every token holds the residual stream, its normed copy, and what lies between the feed-forward matrices; every
    sequence the logits over the vocabulary in the model's dtype, and `LOGIT_BYTES` an entry for sampling.  vLLM
    measures the same peak by a dry run at start-up; for Llama-3-8B, 8,192 tokens and 256 sequences it found
    1.26 GiB (pull request 10511), this says 1.21.
    """
    model = geometry.model
    widest = max(layer.feed_forward.activations for layer in model.stack)
    token = (2 * model.hidden + widest // geometry.tensor_parallel) * geometry.element_bytes
    return max_num_batched_tokens * token + max_num_seqs * model.vocab * (geometry.element_bytes + LOGIT_BYTES)


def make_pool(
    geometry: Geometry,
    device: Device,
    measure: Measure,
    *,
    utilization: float = 0.9,
    max_num_batched_tokens: int = 2048,
    max_num_seqs: int = 256,
    activation_factor: float = 1.0,
) -> Pool:
    """Compute the pool.

    Args:
        geometry: the model.
        device: the GPU, or each of them.
        measure: in what the allocator counts it.
        utilization: share of the device's memory that the engine may use.
        max_num_batched_tokens: tokens of the largest step.
        max_num_seqs: sequences of the largest step.
        activation_factor: what the estimate of activations is multiplied by.

    Raises:
        DoesNotFitError: the weights do not fit, or no block does; says what is missing.
        UserError: the model keeps no K/V.

    """
    weights, state = geometry.weight_bytes, 0 if measure.states else max_num_seqs * geometry.state_bytes
    activations = round(activation_factor * activation_bytes(geometry, max_num_batched_tokens, max_num_seqs))
    if not geometry.kv_bytes_per_token:
        raise UserError(f"model: {geometry.name} has no attention: it keeps no K/V to manage")
    slot_bytes = measure.slot_bytes or geometry.kv_bytes_per_token
    block_bytes = measure.block_size * slot_bytes * measure.multiple
    given = device.kv_memory_bytes
    usable = int(device.memory_bytes * utilization) - weights - activations if given is None else given
    kv_bytes = usable - state
    missing = block_bytes - kv_bytes if given is None else weights + given - device.memory_bytes
    if missing > 0:
        parts = {"weights": weights, "recurrent state": state, "activations": activations, "one block": block_bytes}
        if given is not None:
            parts = {"weights": weights, "kv_memory_gib": given}
        raise DoesNotFitError(_too_large(geometry, device, 1.0 if given else utilization, parts, missing))
    if kv_bytes < block_bytes:
        less = f", less a full batch's recurrent state of {gib(state)}," if state else ""
        raise DoesNotFitError(f"device.kv_memory_gib: {gib(usable)}{less} is less than one block of {gib(block_bytes)}")
    return Pool(
        num_blocks=kv_bytes // block_bytes * measure.multiple,
        block_size=measure.block_size,
        slot_bytes=slot_bytes,
        token_bytes=geometry.kv_bytes_per_token,
        kv_bytes=kv_bytes,
        memory_bytes=device.memory_bytes,
        utilization=utilization,
        weight_bytes=weights,
        activation_bytes=activations,
        state_bytes=state,
        given=given is not None,
    )


def _too_large(geometry: Geometry, device: Device, share: float, parts: Mapping[str, int], missing: int) -> str:
    """Say which key asks for too much, by how much it misses its share of the device, and what would help."""
    where = device.name if geometry.tensor_parallel == 1 else f"each of {geometry.tensor_parallel} x {device.name}"
    *first, last = (f"{name} {gib(size)}" for name, size in parts.items() if size)
    needs = f"{', '.join(first)} and {last} are {gib(missing)} more than {share:.0%} of its {gib(device.memory_bytes)}"
    key, less = "model", ""
    if missing < parts.get("kv_memory_gib", 0):
        key, less = "device.kv_memory_gib", "a smaller kv_memory_gib, "
    help_ = f"{less}a larger device, more tensor_parallel or a smaller dtype would help"
    return f"{key}: {geometry.name} does not fit on {where}: {needs}; {help_}"
