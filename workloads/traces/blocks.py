"""From a trace's block hashes to the pieces that prompts are made of.

Traces name each block of a prompt (512, 64 or 16 tokens) by an id: equal ids, equal tokens.
A block becomes one piece, whatever block size is simulated later; the last one holds only
the prompt's own remainder, and tokens that no id covers belong to their request alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workloads.requests import Floats, Ints, Prefixes

if TYPE_CHECKING:
    from workloads.traces.records import Ragged

LARGEST_ID = 1 << 53
"""Larger ids are renumbered, which leaves room for the ids that are made here."""


def prefixes_of(hashes: Ragged, prompt: Floats, block_size: Floats) -> tuple[Prefixes | None, Ints]:
    """Turn block ids into prompt pieces.

    Args:
        hashes: block ids of each request, from the start of its prompt.
        prompt: float64[n], prompt tokens; NaN is taken as none.
        block_size: float64[n], tokens a block.

    Returns:
        The pieces (None if no request has an id), and the requests that have more ids than their prompt
        has blocks; of those only as many ids are used as fit.

    """
    tokens = np.where(np.isfinite(prompt) & (prompt > 0), np.minimum(prompt, 2**53), 0)
    tokens = np.rint(tokens).astype(np.int64)
    size = block_size.astype(np.int64)
    given = np.diff(hashes.offsets)
    if not given.any():
        return None, np.zeros(0, np.int64)
    used = np.minimum(given, -(-tokens // size))
    ids = hashes.values
    if ids.min() < 0 or ids.max() >= LARGEST_ID:
        ids = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    fresh = int(ids.max()) + 1
    count = len(tokens)

    rest = tokens - used * size
    pieces = used + (rest > 0)
    offsets = np.concatenate([[0], np.cumsum(pieces)])
    row = np.repeat(np.arange(count), used)
    place = np.arange(len(row)) - np.repeat(np.cumsum(used) - used, used)
    out_ids, out_lengths = np.zeros(offsets[-1], np.int64), np.zeros(offsets[-1], np.int64)
    where = offsets[row] + place
    out_ids[where] = ids[hashes.offsets[row] + place]
    out_lengths[where] = np.minimum(size[row], tokens[row] - place * size[row])
    own = np.flatnonzero(rest > 0)
    out_ids[offsets[own + 1] - 1] = fresh + 2 * own
    out_lengths[offsets[own + 1] - 1] = rest[own]
    return Prefixes(out_ids, out_lengths, offsets, fresh + 2 * np.arange(count) + 1), np.flatnonzero(given > used)
