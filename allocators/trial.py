"""Trials: a copy of a piece pool, on which to see whether rows could grow before any of them does."""

from __future__ import annotations

from copy import copy, deepcopy
from typing import TYPE_CHECKING

from allocators.compiled import mypyc_attr
from allocators.pieces import PiecePool
from allocators.prefix import PrefixCache
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Sequence


def trial(pool: PiecePool) -> PiecePool:
    """Return a copy on which to try out changes; it lists no keys, so look-ups do not work on it."""
    made = copy(pool)
    made.references, made.group, made.inside = pool.references.copy(), pool.group.copy(), pool.inside.copy()
    made.queue, made.cache = deepcopy(pool.queue), _Marks(pool.cache)
    made.blank, made.kept = [blank.copy() for blank in pool.blank], [kept.copy() for kept in pool.kept]
    made.held, made.cached, made.shared = pool.held.copy(), pool.cached.copy(), pool.shared.copy()
    return made


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class _Marks(PrefixCache):
    """A prefix cache that only knows which pieces have keys, for `trial`."""

    def __init__(self, cache: PrefixCache) -> None:
        self.key = cache.key.copy()

    @property
    def unused(self) -> bool:
        return False  # which is not tracked

    def enter(self, keys: Sequence[int], blocks: Ints) -> None:
        self.key[blocks] = keys

    def forget(self, blocks: Ints) -> None:
        self.key[blocks] = 0
