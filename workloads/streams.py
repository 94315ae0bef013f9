"""Named random streams: one seed, one independent stream for each purpose.

A stream is keyed by (seed, name, repeat).  Because the key is a name and not an order of
calls, every allocator sees the same requests (common random numbers), and adding a draw
for a new purpose moves no other draw.
"""

from __future__ import annotations

from hashlib import sha256

from numpy.random import PCG64, Generator, SeedSequence  # NumPy loads them late: an interrupt then would be lost


def stream(seed: int, name: str, repeat: int = 0) -> Generator:
    """Return the generator of `name` for replication `repeat`; the same three give the same draws.

    Args:
        seed: the workload's seed, not negative.
        name: the purpose, such as "arrivals".
        repeat: number of the replication, from 0.

    """
    key = int.from_bytes(sha256(name.encode()).digest()[:8], "little")
    return Generator(PCG64(SeedSequence(seed, spawn_key=(key, repeat))))
