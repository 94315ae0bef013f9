"""The moves of a plan, made before its step: blocks copied, swapped out and swapped in, sequences forked."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import torch

from sim.engine.plan import MoveKind

if TYPE_CHECKING:
    from sim.decode.batch import Batch
    from sim.decode.store import BlockStore, KVStore
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving


class BlockMemory:
    """The moves of a plan, done on blocks that forks share."""

    def __init__(self, store: BlockStore) -> None:
        """Move blocks within `store`."""
        self._blocks = store

    def move(self, plan: Plan, serving: Serving) -> None:
        """Do what the plan says, in its order; moves of one kind that follow one another are done at once."""
        store = self._blocks
        verbs = {MoveKind.COPY: store.copy, MoveKind.OUT: store.swap_out, MoveKind.IN: store.swap_in}
        for kind, moves in groupby(plan.moves, key=lambda move: move.kind):
            verbs[kind]((source, target) for _, source, target in moves)

    def fork(self, batch: Batch) -> None:
        """Do nothing: no sequence begins as a copy of another."""


class PagedMemory(BlockMemory):
    """The same on a `KVStore`, with copies of sequences for allocators that cannot share."""

    def __init__(self, store: KVStore) -> None:
        """Move K/V within `store`."""
        super().__init__(store)
        self._store = store

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
