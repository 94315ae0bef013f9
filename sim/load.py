"""The load of one step: everything that its duration depends on, as the cost model (`sim.cost`) takes it.

Engines count it from their plans (`sim.engine.executor`); a calibration stores it with each step that it
measures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

Amount: TypeAlias = Any
"""A number, or in a leap an array with one for each step."""
Maximum: TypeAlias = Callable[[Any, Any], Any]
"""The larger of two amounts: `max`, or in a leap `np.maximum`."""


class Load(NamedTuple):
    """What one step computes and moves.  Tokens are counted once, whatever the number of layers."""

    prefill_tokens: Amount = 0
    """Known tokens computed, over all chunks."""
    prefill_pairs: Amount = 0
    """Query-key pairs of the chunks: sum of n x start + n x (n + 1) / 2."""
    prefill_context: Amount = 0
    """K/V tokens the chunks read: sum of start + n."""
    prefill_seqs: Amount = 0
    """Chunks."""
    decode_seqs: Amount = 0
    """Sequences that decode one token."""
    decode_context: Amount = 0
    """K/V tokens they attend to, their own included."""
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
    """Of those mapped, the ones that were foreseen and could be mapped while the step before ran."""
    unmapped_ahead: Amount = 0
    """Of those unmapped, the ones that made way for them."""
    before_ns: Amount = 0
    """Nanoseconds of the step before."""
    behind_ns: Amount = 0
    """Nanoseconds of the step before, if it ran decodes alone and this one prefills."""
    window_pairs: Amount = 0
    """`prefill_pairs` as sliding-window layers see them."""
    window_prefill_context: Amount = 0
    """`prefill_context` as sliding-window layers see it."""
    window_decode_context: Amount = 0
    """`decode_context` as sliding-window layers see it: sum of min(context, window)."""
    decode_repeated: Amount = 0
    """Of `decode_context`, those in blocks that several of these sequences list: once for each of them but one."""
    prefill_merged: Amount = 0
    """Known tokens whose attention is split and merged (`sim.splitting`); counted where it makes a difference."""
    heat_ns: Amount = 0
    """Nanoseconds by which steps that prefill and are bound by compute have lasted longer than others just before."""
