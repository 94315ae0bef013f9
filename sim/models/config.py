"""Reading a Hugging Face config.json, with one-line errors.

Configs have different keys for the same thing (`n_embd`, `hidden_size`), contain the text model of a
multimodal one in `text_config`, and leave out what is a default in transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.errors import UserError
from workloads.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS: Mapping[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "width": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "length": ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"),
    "vocab": ("vocab_size",),
    "experts": ("n_routed_experts", "num_local_experts", "num_experts"),
    "dtype": ("dtype", "torch_dtype"),
    "active": ("num_experts_per_tok", "num_experts_per_token", "moe_topk"),
}
"""Our names and what configs call them; the first one present counts."""

LAYERS = 10_000
"""More layers than any model has; each is an object here, so a slip of the pen must not make a billion."""
SIZE = 2**31 - 1
"""More than any other size of a model."""

DTYPE_NOTE = "config.json names no dtype: bf16, as vLLM serves models whose config.json does not"
FP32_NOTE = "config.json says float32 and is taken at its word; vLLM serves it in 16 bits, as model.dtype: bf16 would"

DTYPES: Mapping[str, str] = {
    "float32": "fp32",
    "float": "fp32",
    "fp32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "fp16": "fp16",
    "bfloat16": "bf16",
    "bf16": "bf16",
}


class Config:
    """The values of one config.json and where it came from."""

    def __init__(self, values: Mapping[str, Any], where: str, defaults: Mapping[str, Mapping[str, Any]]) -> None:
        """Read `values`.

        Args:
            values: the parsed file; for a multimodal model its text part counts.
            where: how every complaint begins, usually the path.
            defaults: values to assume where a key is absent or null, by model type.

        """
        nested = values.get("text_config")
        if isinstance(nested, dict):
            outer = ("dtype", "torch_dtype", "quantization_config", "tie_word_embeddings")
            values = {**{key: values[key] for key in outer if key in values}, **nested}
        self.where = where
        self.model_type = str(values.get("model_type", ""))
        given = {key: value for key, value in values.items() if value is not None}
        self.values = {**defaults.get(self.model_type, {}), **given}

    def __contains__(self, name: str) -> bool:
        """Whether any of the keys for `name` has a value."""
        return any(key in self.values for key in KEYS.get(name, (name,)))

    def error(self, text: str) -> UserError:
        """Make a complaint about this file."""
        return UserError(f"{self.where}: {text}")

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number, at least 1, under any of the keys for `name`.  Raises UserError if absent or wrong."""
        value = self.count(name, default)
        if value < 1:
            raise self.error(f"{self._key(name)}: {shown(value)} is not a positive whole number")
        return value

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number, at least 0, under any of the keys for `name`.  Raises UserError if absent or wrong."""
        keys = KEYS.get(name, (name,))
        if name not in self:
            if default is None:
                raise self.error(f"{' or '.join(keys[:2])} is missing (a positive whole number is needed)")
            return default
        key = self._key(name)
        value = self.values[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(f"{key}: {shown(value)} is not a positive whole number")
        if value > (most := LAYERS if name == "layers" else SIZE):
            raise self.error(f"{key}: {value:,} is more than any model has; at most {most:,}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """A truth value.  Raises UserError if it is anything else."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.error(f"{key}: {shown(value)} is neither true nor false")
        return value

    def strings(self, key: str, length: int) -> list[str] | None:
        """A list of `length` strings, or None if there is none.  Raises UserError if it is anything else."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != length or not all(isinstance(item, str) for item in value):
            raise self.error(f"{key}: wanted a list of {length} names, one a layer")
        return value

    def numbers(self, key: str) -> list[int]:
        """A list of whole numbers, empty if absent.  Raises UserError if it is anything else."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
            raise self.error(f"{key}: wanted a list of whole numbers")
        return value

    def part(self, key: str) -> Config | None:
        """An object inside this one, or None if there is none.  Raises UserError if it is anything else."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(f"{key}: wanted an object, got {shown(value)}")
        return Config(value, f"{self.where}: {key}", {})

    def dtype(self) -> str:
        """Dtype of weights and activations: fp32, fp16 or bf16; bf16 (`DTYPE_NOTE`) if absent.  Raises UserError."""
        name = self.values[self._key("dtype")] if "dtype" in self else "bfloat16"
        if not isinstance(name, str) or name.removeprefix("torch.") not in DTYPES:
            raise self.error(f"dtype: {shown(name)} is none of float32, float16, bfloat16")
        return DTYPES[name.removeprefix("torch.")]

    def _key(self, name: str) -> str:
        return next(key for key in KEYS.get(name, (name,)) if key in self.values)
