"""A model as it is served: its architecture, divided over GPUs, with a K/V cache of some dtype.

Everything depends on one number, `kv_bytes_per_token`, the size of a token slot on one GPU:
`2 x layers x kv_heads x head_dim x bytes` for MHA, GQA and MQA, and
`layers x (kv_lora_rank + qk_rope_head_dim) x bytes` for MLA.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from sim.errors import UserError, suggest
from sim.models.architecture import Architecture, Weights
from sim.models.config import DTYPE_NOTE, DTYPES, FP32_NOTE
from sim.models.layers import Attention
from sim.models.reading import read
from sim.models.shipped import read_config, shipped_models
from workloads.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Geometry", "KVFormat", "KVGroup", "resolve_model", "shipped_models", "with_kv_heads"]

DTYPE_BYTES: Mapping[str, int] = {"fp32": 4, "fp16": 2, "bf16": 2}


class KVFormat(NamedTuple):
    """How K/V elements are stored."""

    bits: int
    """Bits an element."""
    scale_bytes: int = 0
    """Bytes of scales for each vector kept: one head's K or V of one token, or one MLA latent."""


KV_FORMATS: Mapping[str, KVFormat] = {
    "fp32": KVFormat(32),
    "fp16": KVFormat(16),
    "bf16": KVFormat(16),
    "fp8": KVFormat(8),
    "int8": KVFormat(8, 4),
    "int4": KVFormat(4, 4),
}
"""fp8 has one scale for K and one for V of a whole layer (vLLM's `--kv-cache-dtype fp8`), nothing a
token.  int8 and int4 keep an fp16 scale and an fp16 zero point for every vector (as LMDeploy does)."""

KV_ALIASES: Mapping[str, str] = {**DTYPES, "fp8_e4m3": "fp8", "fp8_e5m2": "fp8"}
MODEL_KEYS = ("name", "kv_dtype", "tensor_parallel", "kv_heads", "dtype")


class KVGroup(NamedTuple):
    """Layers that keep the same, so that one block table can serve them."""

    kind: str
    """`full`, `sliding`, `latent` or `state`."""
    layers: int
    token_bytes: int
    """K/V of one token in one layer on one GPU; 0 for a state."""
    window: int | None
    """Tokens that stay needed; None for all."""
    state_bytes: int
    """State of one sequence in one layer on one GPU; 0 for attention."""

    @property
    def slot_bytes(self) -> int:
        """K/V of one token over the group's layers on one GPU."""
        return self.layers * self.token_bytes


@dataclass(frozen=True)
class Geometry:
    """One model on `tensor_parallel` GPUs.  Sizes are for one of them, unless they say otherwise."""

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
    def heads(self) -> int:
        """Query heads of an attention layer, over all GPUs; 0 if there is none."""
        mixer = self.model.attention or self.model.latent
        return mixer.heads if mixer else 0

    @property
    def kv_heads(self) -> int:
        """K/V heads of an attention layer, over all GPUs; 1 for MLA, whose latent serves all heads."""
        return self.model.attention.kv_heads if self.model.attention else int(self.model.latent is not None)

    @property
    def head_dim(self) -> int:
        """Length of a key; for MLA that of the latent with its rotary part."""
        mixer = self.model.attention or self.model.latent
        return mixer.kept(1)[0][1] if mixer else 0

    @property
    def vocab(self) -> int:
        """Entries of the vocabulary."""
        return self.model.vocab

    @property
    def max_model_len(self) -> int:
        """Longest sequence the model knows, in tokens."""
        return self.model.max_model_len

    @property
    def parameters(self) -> int:
        """Weights of the whole model, a tied matrix once."""
        return self.model.parameters

    @property
    def active_parameters(self) -> int:
        """Weights of the whole model that a token goes through."""
        return self.model.active_parameters

    @property
    def element_bytes(self) -> int:
        """Bytes of an activation, and of a weight that is not quantized."""
        return DTYPE_BYTES[self.model.dtype]

    @cached_property
    def kv_groups(self) -> tuple[KVGroup, ...]:
        """Layers by what they keep, in order of first appearance."""
        tp, form = self.tensor_parallel, KV_FORMATS[self.kv_dtype]
        groups = Counter(
            (
                mixer.kind,
                sum(count * (-(-length * form.bits // 8) + form.scale_bytes) for count, length in mixer.kept(tp)),
                mixer.window if isinstance(mixer, Attention) else None,
                mixer.state(tp) * self.element_bytes,
            )
            for mixer in (layer.mixer for layer in self.model.stack)
        )
        return tuple(KVGroup(kind, n, size, window, state) for (kind, size, window, state), n in groups.items())

    @cached_property
    def kv_bytes_per_token(self) -> int:
        """A token slot: K and V of one token over all layers, windows not considered."""
        return sum(group.slot_bytes for group in self.kv_groups)

    @property
    def kv_tensors(self) -> int:
        """Tensors that hold the cache: K and V of an attention layer, one latent of an MLA layer."""
        return sum({"latent": 1, "state": 0}.get(group.kind, 2) * group.layers for group in self.kv_groups)

    @cached_property
    def state_bytes(self) -> int:
        """Recurrent state of one sequence over all layers."""
        return sum(group.layers * group.state_bytes for group in self.kv_groups)

    @cached_property
    def window(self) -> int | None:
        """The largest sliding window; None if no layer has one."""
        return max((group.window for group in self.kv_groups if group.window), default=None)

    @cached_property
    def weights(self) -> Weights:
        """Numbers of weights by use."""
        return self.model.weights(self.tensor_parallel)

    @property
    def dense_bytes(self) -> float:
        """Bytes of the layers' matrices that every token goes through."""
        return self.weights.dense * (self.model.dense_bits / 8 or self.element_bytes)

    @property
    def routed_bytes(self) -> float:
        """Bytes of all experts' matrices."""
        return self.weights.routed * (self.model.routed_bits / 8 or self.element_bytes)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        count = self.weights
        plain = count.embedding + count.vectors + (0 if self.model.tied_embeddings else count.head)
        return round(plain * self.element_bytes + self.dense_bytes + self.routed_bytes)

    @cached_property
    def activation_elements(self) -> int:
        """Elements that one token's matrix products read and write over all layers.

        A layer moves the residual stream six times, in and out of attention's and the feed-forward's
        products, and what lies between the feed-forward's matrices once.
        """
        between = sum(layer.feed_forward.activations for layer in self.model.stack)
        return 6 * self.layers * self.hidden + between // self.tensor_parallel

    @property
    def attention(self) -> str:
        """MHA, GQA, MQA or MLA; a dash if there is no attention."""
        mixer = self.model.attention
        if mixer is None:
            return "MLA" if self.model.latent else "-"
        return "MQA" if mixer.kv_heads == 1 else "MHA" if mixer.kv_heads == mixer.heads else "GQA"

    def explain(self) -> list[tuple[str, str]]:
        """What is assumed of the model, as (what, how much) rows."""
        active = "" if self.active_parameters == self.parameters else f", {self.active_parameters / 1e9:.2f} B active"
        rows = [
            ("model", f"{self.name}: {self.layers} layers of {self.hidden}, {self.model.dtype}{self.model.quantized}"),
            ("parameters", f"{self.parameters / 1e9:.2f} B{active}"),
            ("attention", f"{self.attention}: {self.heads} heads, {self.kv_heads} for K/V, of {self.head_dim}"),
            ("token slot", f"{self.kv_bytes_per_token:,} B in {self.kv_dtype}"),
        ]
        if self.tensor_parallel > 1:
            rows.append(("tensor parallel", f"{self.tensor_parallel} GPUs; sizes are for one"))
        if len(self.kv_groups) > 1 or self.window:
            rows += [("layers", _group_words(group)) for group in self.kv_groups]
        return rows + [("note", note) for note in self.model.notes]


def _group_words(group: KVGroup) -> str:
    if group.kind == "state":
        return f"{group.layers} recurrent, {group.state_bytes:,} B a sequence each"
    window = f" over {group.window:,} tokens" if group.window else ""
    return f"{group.layers} {group.kind} attention{window}, {group.token_bytes:,} B a token each"


def resolve_model(spec: str | Mapping[str, Any], base_dir: Path | str = ".") -> Geometry:
    """Find a model and vary it.

    Args:
        spec: a shipped name, or the path of a config.json or of a directory that holds one; or a mapping with that
            under `name`, and any of `kv_dtype` (default: the model's dtype), `tensor_parallel`, `kv_heads` (the
            what-if of MHA against GQA against MQA) and `dtype` (of weights and activations).
        base_dir: relative paths start here.

    Raises:
        UserError: it cannot be found, read, varied or divided, in one line.

    """
    values = {"name": spec} if isinstance(spec, str) else spec
    for key in values:
        if key not in MODEL_KEYS:
            raise UserError(
                f"model: unknown key {shown(key)}{suggest(key, MODEL_KEYS)}; known are {', '.join(MODEL_KEYS)}"
            )
    if not isinstance(values.get("name"), str) or not values["name"]:
        raise UserError("model: name is missing (a shipped geometry, or the path of a config.json)")
    name, config = read_config(values["name"], base_dir)
    model = read(config, f"model: {name}")
    if "dtype" in values:
        dtype = _choice(values["dtype"], "dtype", DTYPES, DTYPE_BYTES)
        notes = tuple(note for note in model.notes if note != DTYPE_NOTE)
        model = replace(model, dtype=dtype, compute_dtype=dtype, dense_bits=0.0, routed_bits=0.0, notes=notes)
    elif model.dtype == "fp32" and name not in shipped_models():
        model = replace(model, notes=(*model.notes, FP32_NOTE))
    if "kv_heads" in values:
        model = with_kv_heads(model, _positive(values["kv_heads"], "kv_heads"), name)
    kv_dtype = values.get("kv_dtype", "auto")
    kv_dtype = model.dtype if kv_dtype == "auto" else _choice(kv_dtype, "kv_dtype", KV_ALIASES, KV_FORMATS)
    geometry = Geometry(name, model, kv_dtype, _positive(values.get("tensor_parallel", 1), "tensor_parallel"))
    try:
        model.weights(geometry.tensor_parallel)
    except ValueError as error:
        raise UserError(f"model: {name}: {error}") from None
    return geometry


def with_kv_heads(model: Architecture, kv_heads: int, name: str) -> Architecture:
    """Return the model with another number of K/V heads in every attention layer.  Raises UserError."""
    if model.attention is None:
        raise UserError(f"model: {name}: kv_heads cannot be set, it has no attention with K/V heads")
    if model.attention.heads % kv_heads:
        raise UserError(f"model: {name}: kv_heads {kv_heads} does not divide its {model.attention.heads} heads")
    stack = tuple(
        replace(layer, mixer=replace(layer.mixer, kv_heads=kv_heads)) if isinstance(layer.mixer, Attention) else layer
        for layer in model.stack
    )
    return replace(model, stack=stack)


def _choice(value: object, key: str, aliases: Mapping[str, str], known: Mapping[str, object]) -> str:
    name = aliases.get(str(value), str(value))
    if name not in known:
        raise UserError(
            f"model: {key}: {shown(value)} is not known{suggest(name, known)}; known are {', '.join(known)}"
        )
    return name


def _positive(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"model: {key}: {shown(value)} is not a positive whole number")
    return value
