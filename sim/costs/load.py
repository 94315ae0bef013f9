"""The load of one step: everything on which its duration depends, as input of the cost model (`sim.costs.model`).

Engines count it from their plans (`sim.engine.executor`); a calibration stores it with each step that it
measures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

Amount: TypeAlias = Any
"""A number; for a leap, an array with one number for each step."""
Maximum: TypeAlias = Callable[[Any, Any], Any]
"""Returns the larger of two amounts: `max`, or for a leap `np.maximum`."""
Route: TypeAlias = Literal["blocks", "tensors", "recompute"]
"""How attention finds K/V: through a block table, in tensors of each sequence, or by recomputing it."""


class Load(NamedTuple):
    """What one step computes and moves.  Tokens are counted once, whatever the number of layers."""

    prefill_tokens: Amount = 0
    """Tokens computed, over all chunks."""
    prefill_pairs: Amount = 0
    """Query-key pairs of the chunks: the sum of n x start + n x (n + 1) / 2."""
    prefill_context: Amount = 0
    """K/V tokens that the chunks read: the sum of start + n."""
    prefill_seqs: Amount = 0
    """Chunks."""
    decode_seqs: Amount = 0
    """Sequences that decode one token."""
    decode_context: Amount = 0
    """K/V tokens to which they attend, their own included."""
    samples: Amount = 0
    """Sequences whose logits are computed."""
    copied_tokens: Amount = 0
    """Token slots copied on the device (torch.cat, copy-on-write, fork)."""
    swapped_bytes: Amount = 0
    """Bytes over PCIe on this GPU, both directions together."""
    transfers: Amount = 0
    """Blocks those bytes are moved in."""
    mapped_pages: Amount = 0
    """Physical pages mapped."""
    unmapped_pages: Amount = 0
    """Physical pages unmapped."""
    mapped_ahead: Amount = 0
    """Those of the mapped pages that were foreseen, so that they could be mapped while the step before ran."""
    unmapped_ahead: Amount = 0
    """Those of the unmapped pages that made room for them."""
    before_ns: Amount = 0
    """Nanoseconds of the step before."""
    behind_ns: Amount = 0
    """Nanoseconds of the step before, if this one prefills and the host prepared it meanwhile."""
    window_pairs: Amount = 0
    """`prefill_pairs` in layers with a sliding window."""
    window_prefill_context: Amount = 0
    """`prefill_context` in layers with a sliding window: the sum of min(start, window - 1) + n."""
    window_decode_context: Amount = 0
    """`decode_context` in layers with a sliding window: the sum of min(context, window)."""
    decode_repeated: Amount = 0
    """The part of `decode_context` in blocks that several of these sequences share: once for each but the first."""
    decode_longest: Amount = 0
    """Of `decode_context`, those of the longest sequence; counted where it makes a difference."""
    prefill_merged: Amount = 0
    """Known tokens whose attention is split and merged (`sim.costs.splitting`); counted where it makes a difference."""
    heat_ns: Amount = 0
    """Level of `Heat` at the start of the step: nanoseconds, from rest, of steps before it that drew too much power."""
