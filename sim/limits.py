"""The limits of an engine, whatever its scheduler: sequences at once, tokens per step, longest context."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What the engine allows; names and defaults are vLLM's."""

    max_num_seqs: int = 256
    """Sequences running at once."""
    max_num_batched_tokens: int = 2048
    """Tokens computed a step."""
    max_model_len: int = 2048
    """Longest sequence."""
    chunked_prefill: bool = True
    """Whether a prompt may be computed over several steps (vllm-v1)."""
    long_prefill_token_threshold: int = 0
    """Most prompt tokens of one request a step while others wait or run; 0 for no such cap (vllm-v1)."""
    full_prompt_gate: bool = True
    """Whether all known tokens must fit before the first chunk is admitted (vllm-v1)."""
    watermark: float = 0.0
    """Fraction of the pool that admission leaves free."""
