"""What a plan moves before its step: blocks copied, swapped out and swapped in, sequences forked."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import torch

from sim.engine.plan import MoveKind

if TYPE_CHECKING:
    from sim.decode.batch import Batch
    from sim.decode.store import KVStore
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving


class PagedMemory:
    """The moves of a plan, done on a `KVStore`."""

    def __init__(self, store: KVStore) -> None:
        """Move K/V within `store`."""
        self._store = store

    def move(self, plan: Plan, serving: Serving) -> None:
        """Do what the plan says, in its order; moves of one kind that follow one another are done at once."""
        verbs = {MoveKind.COPY: self._store.copy, MoveKind.OUT: self._store.swap_out, MoveKind.IN: self._store.swap_in}
        for kind, moves in groupby(plan.moves, key=lambda move: move.kind):
            verbs[kind]((source, target) for _, source, target in moves)

    def fork(self, batch: Batch) -> None:
        """Copy the tokens of a sequence's first row to the rows of its other samples."""
        size = self._store.block_size
        for fork in batch.forks:
            places = torch.arange(fork.tokens, device=batch.table.device)
            source, target = (
                batch.table[row, places // size].to(torch.int64) * size + places % size
                for row in (fork.source_row, fork.target_row)
            )
            self._store.copy_slots(source, target)
