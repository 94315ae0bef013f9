"""Prefix hits of a hybrid allocator: what all groups of layers have of a prompt.

A *prefix hit* is the longest prefix for which all groups have what they need: a group with a window needs only
the last blocks, a recurrent one exactly the state at its end.  Such states are saved as checkpoints, every
`checkpoint` tokens that a sequence computes, if there is free memory for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.answers import MISS, Hit
from allocators.compiled import mypyc_attr
from allocators.errors import AllocatorError
from allocators.groupturns import GroupTurns
from allocators.runs import key_in, keys_in
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocators.content import Content


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class GroupHits(GroupTurns):
    """The part of a hybrid allocator that finds prefix hits, and takes part in them."""

    prefix_cache: bool
    """Whether full blocks, and states, are kept for sequences that begin alike."""

    def lookup(self, content: Content, tokens: int) -> Hit:
        """See `Allocator.lookup`: the longest prefix for which all groups have what they need."""
        length = (tokens - 1) // self.cut.tokens
        if not self.prefix_cache or not length or content.unheard:
            return MISS
        if self.keeper not in self.windows and not self.cache.find(
            key_in(self.keeper, content.key(self.cut.tokens, 0))
        ):
            return MISS  # the usual case, in which no other key need be computed
        known = content.keys(self.cut.tokens, length)[:length]
        self.wake(known)
        keys = {group: keys_in(group, known) for group in range(len(self.pieces))}
        found: dict[int, list[int]] = {}
        agreed = -1
        while agreed != length:
            agreed = length
            for group in self.attention:
                found[group] = self._cached_prefix(group, keys[group][:length])
                length = len(found[group])
            while length and not self._has_states(keys, length):
                length -= 1
        if not length:
            return MISS
        if self._scattered_too_far(found):
            return MISS
        blocks = [
            cell and cell + block
            for place in range(length)
            for group in self.attention
            for cell in [found[group][place]]
            for block in range(self.pieces[group].blocks)
        ]
        return Hit(length * self.cut.tokens, tuple(blocks))

    def _cached_prefix(self, group: int, keys: list[int]) -> list[int]:
        window = self.windows.get(group)
        return self.pool.cache.window(keys, window.reach) if window else self.pool.cache.run(keys)

    def _has_states(self, keys: Mapping[int, list[int]], length: int) -> bool:
        """Whether every recurrent group has the state after `length` blocks."""
        return all(self.pool.cache.find(keys[group][length - 1]) for group in self.states)

    def _scattered_too_far(self, found: Mapping[int, list[int]]) -> bool:
        """Whether holding these pieces might keep a sequence from finishing in a pool of few pages.

        `never` assumes that a sequence alone in the pool fills one page after the other, but a hit may lie in many.
        """
        extra = 0
        for group, cells in found.items():
            held = np.array([cell for cell in cells if cell], np.int64)
            extra += len(np.unique(self.pool.page(held))) - -(-len(held) // self.pieces[group].pieces)
        return extra > 0 and extra + self._ample > len(self.pool.group) - 1

    def of_hit(self, hit: Hit, content: Content) -> tuple[list[Ints], list[int]]:
        """Split a hit into the pieces of each group, 0 where a window has passed, and the checkpoints of states.

        Raises:
            AllocatorError: a block or state of it has been taken since the look-up.

        """
        places = hit.tokens // self.cut.tokens
        cells = np.array(hit.blocks, np.int64).reshape(places, self.stride)
        found = [np.zeros(0, np.int64) for _ in self.states]
        states: list[int] = []
        for group in self.attention:
            column = cells[:, self.first_column[group] - self.columns.lead]
            keys = np.array(keys_in(group, content.keys(self.cut.tokens, places)[:places]), np.int64)
            if (self.pool.cache.key[column[column > 0]] != keys[column > 0]).any():
                raise AllocatorError("the prefix hit is stale: a block of it was taken since the look-up")
            found.append(column)
        for group in self.states:
            states.append(self.pool.cache.find(key_in(group, content.key(self.cut.tokens, places - 1))))
            if not states[-1]:
                raise AllocatorError("the prefix hit is stale: its state was taken since the look-up")
        return found, states

    def take_part(self, content: Content, places: int, hits: list[Ints], states: list[int]) -> None:
        """Take a reference to the pieces of a prefix hit, for a row that is about to be opened."""
        self.meet([content.key(self.cut.tokens, places - 1)])
        for group in self.attention:
            self.pool.share(group, hits[group])
        for group, state in zip(self.states, states, strict=False):
            self.pool.touch(group, state)
