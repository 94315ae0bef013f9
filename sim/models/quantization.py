"""Bits a weight takes in a quantized checkpoint, scales included, from `quantization_config`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from workloads.values import shown

if TYPE_CHECKING:
    from sim.models.config import Config

SCALE_BITS = 16
"""Of a group's scale in the 4-bit formats."""


class Bits(NamedTuple):
    """Bits a weight; 0 for the model's own dtype."""

    dense: float = 0.0
    """Of the layers' matrices that every token goes through."""
    routed: float = 0.0
    """Of the experts' matrices."""
    compute: str = ""
    """Dtype of the matrix products; empty for the model's own."""
    note: str = ""
    """What could not be understood."""


def weight_bits(config: Config) -> Bits:
    """Read a `quantization_config`.

    Embeddings, the output matrix, norms and biases stay in the model's dtype, as in all these formats.
    fp8: 8 bits and an fp32 scale for each block (or tensor).  gptq, awq and compressed-tensors: `bits`, and an
    fp16 scale and a zero point for each group.  mxfp4 (gpt-oss): 4 bits and an 8-bit scale for 32 weights, experts
    only.  bitsandbytes: 8 bits, or 4 with an fp32 scale for 64 weights.

    Raises:
        UserError: a value makes no sense.

    """
    method = str(config.values.get("quant_method", "")).replace("-", "_")
    if method == "mxfp4":
        return Bits(0.0, 4 + 8 / 32)
    if method in ("fp8", "fbgemm_fp8"):
        bits = 8 + _block_scale(config)
        return Bits(bits, bits, compute="fp8")
    if method in ("gptq", "awq"):
        bits = _grouped(config, "bits", 4, 128)
        return Bits(bits, bits)
    if method == "bitsandbytes":
        four = any(config.flag(key, default=False) for key in ("load_in_4bit", "_load_in_4bit"))
        bits = 4 + 32 / 64 if four else 8.0
        return Bits(bits, bits)
    if method == "compressed_tensors" and (found := _compressed(config)):
        return found
    return Bits(note=f"quantization method {method or 'unnamed'} is not understood: weights count in full")


def _block_scale(config: Config) -> float:
    """Bits a weight of the scale of its block; 0 if there is one for a whole tensor."""
    block = config.numbers("weight_block_size")
    if block and (len(block) != 2 or min(block) < 1):
        raise config.error(f"weight_block_size: wanted two positive whole numbers, got {shown(block)}")
    return 32 / (block[0] * block[1]) if block else 0.0


def _compressed(config: Config) -> Bits | None:
    """Read the first group of compressed-tensors that says anything of weights."""
    groups = config.part("config_groups")
    for name in groups.values if groups else ():
        group = groups.part(name) if groups else None
        weights = group.part("weights") if group else None
        if group and weights:
            bits = _grouped(weights, "num_bits")
            floats = weights.values.get("type") == "float" and weights.number("num_bits") == 8
            return Bits(bits, bits, compute="fp8" if floats and "input_activations" in group else "")
    return None


def _grouped(config: Config, key: str, bits: int | None = None, group: int = 0) -> float:
    """Bits a weight with an fp16 scale and a zero point for each group, if there are groups (-1 and 0 say no)."""
    number = config.number(key, bits)
    size = 0 if config.values.get("group_size") == -1 else config.count("group_size", group)
    return number + ((SCALE_BITS + number) / size if size else 0.0)
