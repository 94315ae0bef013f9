"""A model as it is served: its architecture, split over GPUs, with a K/V cache of some dtype.

The number everything else hangs on is `kv_bytes_per_token`, the size of a token slot on one
GPU: `2 x layers x kv_heads x head_dim x bytes` for MHA, GQA and MQA, and
`layers x (kv_lora_rank + qk_rope_head_dim) x bytes` for MLA.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sim import families
from sim.architecture import Architecture, Weights
from sim.errors import UserError, suggest
from sim.layers import Attention

if TYPE_CHECKING:
    from collections.abc import Mapping

DTYPE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


class KVFormat(NamedTuple):
    """How K/V elements are stored."""

    bits: int
    """Bits an element."""
    scale_bytes: int
    """Bytes of scales for each vector kept (one head's K or V of one token, or one MLA latent)."""


KV_FORMATS = {
    "fp32": KVFormat(32, 0),
    "fp16": KVFormat(16, 0),
    "bf16": KVFormat(16, 0),
    "fp8": KVFormat(8, 0),
    "int8": KVFormat(8, 4),
    "int4": KVFormat(4, 4),
}
"""fp8 has one scale for a whole layer (vLLM's `--kv-cache-dtype fp8`): 8 bytes a layer, nothing a
token.  int8 and int4 keep an fp16 scale and an fp16 zero point for every vector."""


class KVGroup(NamedTuple):
    """Layers that keep the same for a token, so that one block table can serve them."""

    kind: str
    """`full`, `sliding`, `latent` or `state`."""
    layers: int
    token_bytes: int
    """K/V of one token in one layer on one GPU; 0 for a state."""
    window: int | None
    """Tokens that stay needed; None for all."""
    state_bytes: int
    """State of one sequence in one layer on one GPU; 0 for attention."""


@dataclass(frozen=True)
class Geometry:
    """One model on `tensor_parallel` GPUs.  All sizes are for one GPU unless they say otherwise."""

    name: str
    model: Architecture
    kv_dtype: str
    tensor_parallel: int = 1

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return len(self.model.stack)

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.model.hidden

    @property
    def vocab(self) -> int:
        """Entries of the vocabulary."""
        return self.model.vocab

    @property
    def max_model_len(self) -> int:
        """Longest sequence the model knows."""
        return self.model.max_model_len

    @cached_property
    def kv_groups(self) -> tuple[KVGroup, ...]:
        """Layers by what they keep, in order of first appearance."""
        tp, form = self.tensor_parallel, KV_FORMATS[self.kv_dtype]
        element = DTYPE_BYTES[self.model.dtype]
        groups = Counter(
            (
                mixer.kind,
                sum(count * (-(-length * form.bits // 8) + form.scale_bytes) for count, length in mixer.kept(tp)),
                mixer.window if isinstance(mixer, Attention) else None,
                mixer.state(tp) * element,
            )
            for mixer in (layer.mixer for layer in self.model.stack)
        )
        return tuple(KVGroup(kind, n, size, window, state) for (kind, size, window, state), n in groups.items())

    @cached_property
    def kv_bytes_per_token(self) -> int:
        """A token slot: K and V of one token over all layers on one GPU."""
        return sum(group.layers * group.token_bytes for group in self.kv_groups)

    @property
    def parameters(self) -> int:
        """Weights of the whole model, a tied matrix once."""
        return self.model.parameters

    @property
    def active_parameters(self) -> int:
        """Weights a token goes through."""
        return self.model.active_parameters

    @cached_property
    def weights(self) -> Weights:
        """Numbers of weights on one GPU."""
        return self.model.weights(self.tensor_parallel)

    @property
    def element_bytes(self) -> int:
        """Bytes of an activation, and of a weight that is not quantised."""
        return DTYPE_BYTES[self.model.dtype]

    @property
    def dense_bytes(self) -> float:
        """Bytes of the layers' matrices that every token goes through, on one GPU."""
        return self.weights.dense * (self.model.dense_bits / 8 or self.element_bytes)

    @property
    def routed_bytes(self) -> float:
        """Bytes of all experts' matrices on one GPU."""
        return self.weights.routed * (self.model.routed_bits / 8 or self.element_bytes)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of weights on one GPU."""
        count = self.weights
        plain = count.embedding + count.vectors + (0 if self.model.tied_embeddings else count.head)
        return round(plain * self.element_bytes + self.dense_bytes + self.routed_bytes)

    @property
    def state_bytes(self) -> int:
        """Recurrent state of one sequence over all layers on one GPU."""
        return sum(group.layers * group.state_bytes for group in self.kv_groups)

    @property
    def activation_elements(self) -> int:
        """Elements that a token's matrix products read and write over all layers on one GPU.

        For each layer the residual stream six times (into and out of attention's and the feed-forward's
        products) and the feed-forward's width three times (gate, up, product).
        """
        widths = sum(layer.feed_forward.width for layer in self.model.stack)
        return 6 * self.layers * self.hidden + 3 * widths // self.tensor_parallel


def shipped_models() -> tuple[str, ...]:
    """Names of the geometries that come with the simulator."""
    folder = resources.files("sim") / "data" / "models"
    return tuple(sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json")))


def resolve_model(spec: str | Mapping[str, Any], base_dir: Path | str = ".") -> Geometry:
    """Find a model and vary it.

    Args:
        spec: a shipped name, or the path of a config.json (or of a directory that holds one); or a mapping with
            that under `name`, and any of `kv_dtype`, `tensor_parallel`, `kv_heads`, `dtype`.
        base_dir: relative paths start here.

    Raises:
        UserError: it cannot be found, read or divided, in one line.

    """
    if isinstance(spec, str):
        spec = {"name": spec}
    known = ("name", "kv_dtype", "tensor_parallel", "kv_heads", "dtype")
    for key in spec:
        if key not in known:
            raise UserError(f"model: unknown key {key!r}{suggest(key, known)}")
    name, config = read_config(str(spec.get("name", "")), base_dir)
    model = families.read(config, name)
    kv_dtype = spec.get("kv_dtype", model.dtype)
    if kv_dtype not in KV_FORMATS:
        raise UserError(
            f"model: kv_dtype {kv_dtype!r} is none of {', '.join(KV_FORMATS)}{suggest(kv_dtype, KV_FORMATS)}"
        )
    geometry = Geometry(name, model, kv_dtype, spec.get("tensor_parallel", 1))
    if "kv_heads" in spec:
        stack = tuple(
            replace(layer, mixer=replace(layer.mixer, kv_heads=spec["kv_heads"]))
            if isinstance(layer.mixer, Attention)
            else layer
            for layer in model.stack
        )
        geometry = replace(geometry, model=replace(model, stack=stack))
    try:
        geometry.weights  # noqa: B018
    except ValueError as error:
        raise UserError(f"model {name}: {error}") from None
    return geometry


def read_config(name: str, base_dir: Path | str = ".") -> tuple[str, dict[str, Any]]:
    """Read the config.json of a shipped model or of a path; return its name and content."""
    shipped = resources.files("sim") / "data" / "models" / f"{name.lower()}.json"
    if "/" not in name and shipped.is_file():
        return name.lower(), json.loads(shipped.read_text())
    path = Path(base_dir, name)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise UserError(
            f"model: {name!r} is neither a shipped geometry nor a config.json{suggest(name, shipped_models())}"
        )
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    return str(path), values
