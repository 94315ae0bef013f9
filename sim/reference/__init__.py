"""The reference engine: slow and obvious, so that the fast one can be tested against it.

It serves one step at a time and one sequence at a time, with lists and plain integers: no leaps, no
arrays over the batch, no running sums.  Its schedulers are written from their descriptions, the ledger is
counted block by block from the block table in every step, and every method of the allocator is called
for one row.  `sim.engine.loop.Engine` must produce the same four tables to the last bit.

    requests.py   a request and its sequences
    room.py       the queue, the running requests, and their memory
    policies.py   the four schedulers
    ledger.py     how every slot is used, and who owns which block
    records.py    rows, and their conversion to columns
    wording.py    a step in the form that executors expect
    engine.py     the loop
"""

from sim.reference.engine import ReferenceEngine

__all__ = ["ReferenceEngine"]
