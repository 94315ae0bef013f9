"""The reference engine: slow and obvious, and the judge of the fast one.

It serves one step at a time and one sequence at a time, with lists and plain integers: no leaps, no
arrays over the batch, no running sums.  Policies are written from their descriptions, the ledger is
counted block by block from the block table before every step, and every verb of the allocator is
called for one row.  Whatever `sim.engine.loop.Engine` does faster must produce the same three tables
to the last bit.

    requests.py   a request and its sequences
    room.py       the queue, the running requests, and their memory
    policies.py   the four schedulers, written out
    ledger.py     where every slot is, and who owns which block
    records.py    rows, and their conversion to columns
    wording.py    a step in the terms of executors
    engine.py     the loop
"""

from sim.reference.engine import ReferenceEngine

__all__ = ["ReferenceEngine"]
