"""The limits of an engine, which apply to all schedulers: sequences at once, tokens per step, longest context."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits; names and defaults are vLLM's."""

    max_num_seqs: int = 256
    """Most sequences running at once."""
    max_num_batched_tokens: int = 2048
    """Most tokens computed in a step."""
    max_model_len: int = 2048
    """Length of the longest sequence, in tokens."""
    chunked_prefill: bool = True
    """Whether a prompt may be computed over several steps (vllm-v1)."""
    long_prefill_token_threshold: int = 0
    """Most prompt tokens of one request per step while others wait or run; 0 for no such limit (vllm-v1)."""
    full_prompt_gate: bool = True
    """Whether there must be room for all tokens so far before the first chunk is admitted (vllm-v1)."""
    watermark: float = 0.0
    """Fraction of the pool that admission leaves free.  It is the engine's, not an allocator's: schedulers ask any
    allocator for it, as `Ask.spare`.
    """
