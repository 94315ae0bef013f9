"""The capacity of the pool: how many blocks of K/V fit beside weights and activations.

Computed here and nowhere else: `(memory x utilisation - weights - activations) // block_bytes`,
or `kv_memory // block_bytes` where the user says how much memory the cache has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.errors import UserError
from sim.geometry import DTYPE_BYTES

if TYPE_CHECKING:
    from sim.devices import Device
    from sim.geometry import Geometry

GIB = 2**30


@dataclass(frozen=True)
class Pool:
    """Physical blocks of one GPU.  Bytes throughout."""

    num_blocks: int
    block_size: int
    """Token slots a block."""
    token_bytes: int
    kv_bytes: int
    """Memory for the cache; the blocks fill it but for a rest smaller than one block."""
    memory_bytes: int
    """Of the device."""
    utilization: float
    weight_bytes: int
    activation_bytes: int
    given: bool
    """Whether `kv_bytes` was given rather than computed."""

    @property
    def block_bytes(self) -> int:
        """Bytes of one block."""
        return self.block_size * self.token_bytes

    @property
    def slots(self) -> int:
        """Token slots."""
        return self.num_blocks * self.block_size

    def explain(self) -> list[tuple[str, str]]:
        """How the number of blocks came about, as (what, how much) rows."""
        rows = [("GPU memory", _gib(self.memory_bytes))]
        if self.given:
            rows += [("weights", _gib(self.weight_bytes)), ("KV memory (given)", _gib(self.kv_bytes))]
        else:
            rows += [
                (f"usable at {self.utilization:.0%}", _gib(int(self.memory_bytes * self.utilization))),
                ("weights", _gib(self.weight_bytes)),
                ("activations (estimate)", _gib(self.activation_bytes)),
                ("KV memory", _gib(self.kv_bytes)),
            ]
        return [
            *rows,
            ("token slot", f"{self.token_bytes:,} B"),
            ("block", f"{self.block_size} slots, {self.block_bytes:,} B"),
            ("pool", f"{self.num_blocks:,} blocks, {self.slots:,} slots"),
        ]


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"


def activation_bytes(geometry: Geometry, max_num_batched_tokens: int, max_num_seqs: int) -> int:
    """Estimate the peak of activations: the widest layer for a full step, and logits for a full batch.

    Residual and hidden state, then the feed-forward's gate, up and product, for every token;
    logits in the model's dtype and three copies in fp32 (logits, probabilities, their logarithms).
    """
    model, tp = geometry.model, geometry.tensor_parallel
    element = DTYPE_BYTES[model.dtype]
    width = max(layer.feed_forward.width for layer in model.stack)
    tokens = max_num_batched_tokens * (2 * model.hidden + 3 * width // tp) * element
    return tokens + max_num_seqs * model.vocab * (element + 12)


def make_pool(
    geometry: Geometry,
    device: Device,
    block_size: int,
    *,
    utilization: float = 0.9,
    max_num_batched_tokens: int = 2048,
    max_num_seqs: int = 256,
    activation_factor: float = 1.0,
) -> Pool:
    """Compute the pool.  Raises UserError if weights do not fit, or no block does, and says by how much."""
    weights = geometry.weight_bytes
    activations = round(activation_factor * activation_bytes(geometry, max_num_batched_tokens, max_num_seqs))
    given = device.kv_memory_bytes is not None
    usable = int(device.memory_bytes * utilization)
    kv_bytes = usable - weights - activations if device.kv_memory_bytes is None else device.kv_memory_bytes
    block_bytes = block_size * geometry.kv_bytes_per_token
    if kv_bytes < block_bytes:
        raise UserError(
            f"{geometry.name} does not fit on {device.name}: weights {_gib(weights)} and activations "
            f"{_gib(activations)} leave {_gib(kv_bytes)} of {_gib(usable)}, one block needs {_gib(block_bytes)}"
        )
    return Pool(
        num_blocks=kv_bytes // block_bytes,
        block_size=block_size,
        token_bytes=geometry.kv_bytes_per_token,
        kv_bytes=kv_bytes,
        memory_bytes=device.memory_bytes,
        utilization=utilization,
        weight_bytes=weights,
        activation_bytes=activations,
        given=given,
    )
