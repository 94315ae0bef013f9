"""Bits a weight takes in a quantized checkpoint, scales included, from `quantization_config`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def weight_bits(quantization: Mapping[str, Any]) -> Bits:
    """Read a `quantization_config`.

    Embeddings, the output matrix, norms and biases stay in the model's dtype, as in all these formats.
    fp8: 8 bits and an fp32 scale for each block (or tensor).  gptq, awq and compressed-tensors: `bits`, and an
    fp16 scale and a zero point for each group.  mxfp4 (gpt-oss): 4 bits and an 8-bit scale for 32 weights, experts
    only.  bitsandbytes: 8 bits, or 4 with an fp32 scale for 64 weights.
    """
    method = str(quantization.get("quant_method", "")).replace("-", "_")
    if method == "mxfp4":
        return Bits(0.0, 4 + 8 / 32)
    if method in ("fp8", "fbgemm_fp8"):
        block = quantization.get("weight_block_size")
        bits = 8 + (32 / (block[0] * block[1]) if isinstance(block, list) else 0.0)
        return Bits(bits, bits, compute="fp8")
    bits = _integer_bits(method, quantization)
    if bits:
        return Bits(bits, bits)
    return Bits(note=f"quantization method {method or 'unnamed'} is not understood: weights count in full")


def _integer_bits(method: str, quantization: Mapping[str, Any]) -> float:
    if method in ("gptq", "awq"):
        return _grouped(quantization.get("bits", 4), quantization.get("group_size", 128))
    if method == "bitsandbytes":
        return 4 + 32 / 64 if quantization.get("load_in_4bit") or quantization.get("_load_in_4bit") else 8.0
    if method == "compressed_tensors":
        groups = quantization.get("config_groups") or {}
        weights = next((group["weights"] for group in groups.values() if group.get("weights")), None)
        return _grouped(weights["num_bits"], weights.get("group_size")) if weights else 0.0
    return 0.0


def _grouped(bits: int, group: int | None) -> float:
    """Bits a weight with an fp16 scale and a zero point for each group, if there are groups."""
    return bits + ((SCALE_BITS + bits) / group if group and group > 0 else 0.0)
