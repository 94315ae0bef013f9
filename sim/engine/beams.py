"""Beam search, as far as it concerns memory: which beams survive each step.

A step of beam search keeps the best `width` of all continuations of `width` beams.  Which beam a
survivor continues depends on the model's logits; here the parent of each survivor is drawn uniformly
and independently.  A beam that no survivor continues is dropped, and one that is continued more than
once forks.  Two beams then have a common ancestor about `width` steps back, which gives about the
sharing that the PagedAttention paper measured (figure 15b).
"""

from __future__ import annotations

_MASK = (1 << 64) - 1


def parents(seed: int, request: int, position: int, width: int) -> list[int]:
    """Draw the parent of each of `width` beams of a request at its `position`-th output token.

    The draw depends on its arguments alone, so every allocator and scheduler sees the same beams.
    """
    state = _mix(_mix(_mix(seed) ^ request) ^ position)
    chosen = []
    for _ in range(width):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        chosen.append(_mix(state) * width >> 64)
    return sorted(chosen)


def _mix(value: int) -> int:
    """Scramble 64 bits (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    value &= _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31
