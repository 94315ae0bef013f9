"""Named random streams: one seed, one independent stream for each purpose.

A stream is keyed by (seed, name, repeat).  Because the key is a name and not an order of
calls, every allocator sees the same requests (common random numbers), and adding a draw
for a new purpose moves no other draw.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np


def stream(seed: int, name: str, repeat: int = 0) -> np.random.Generator:
    """Return the generator of `name` for replication `repeat`; the same three give the same draws.

    Args:
        seed: the workload's seed, not negative.
        name: the purpose, such as "arrivals".
        repeat: number of the replication, from 0.

    """
    key = int.from_bytes(sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(key, repeat))))
