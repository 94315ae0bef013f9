"""The upper bound: no memory manager could hold these tokens in less room, or move them at less cost.

Token slots are handed out one by one, so no slot that is held is empty and no hole is too small;
sequences share whatever they have in common; and a preempted sequence goes to an unlimited host and
returns at no cost.  Requests are served first come, first served, as with every allocator, so batch
and throughput of other allocators can be given as a percentage of these.  A prefix cache is no part
of the bound: what was used least recently is evicted, as by `paged`, and another order may hit more.

Where layers differ, or have a sliding window, each group of layers keeps exactly what it needs
(`GroupedIdeal`): in pieces of one token if all groups can be cut into equal ones, otherwise in the
smallest pages that suit every group, a few of which are not full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from allocators.answers import Copy, Measure
from allocators.compiled import mypyc_attr
from allocators.errors import AllocatorError
from allocators.freequeue import FreeQueue
from allocators.groups import cut, parse
from allocators.host import HostPool
from allocators.hybrid import HybridAllocator
from allocators.options import BLOCK_SIZE, Option, Value, resolve
from allocators.paged import PagedAllocator
from allocators.pieces import PiecePool
from allocators.prefix import PrefixCache
from allocators.table import Ints


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class EndlessPieces(PiecePool):
    """Pages, without a prefix cache, that double whenever they run out."""

    @property
    def blocks_free(self) -> int:
        """Practically infinitely many."""
        return 1 << 60

    def fits(self, needs: Sequence[int], hits: Sequence[Ints] = ()) -> bool:
        """See `PiecePool.fits`; everything fits."""
        return True

    def take_some(self, group: int, need: int) -> Ints:
        """See `PiecePool.take_some`; there are always enough."""
        while need > len(self.queue) * self.pieces[group].pieces:
            self._double()
        return super().take_some(group, need)

    def _double(self) -> None:
        pages, free = len(self.group) - 1, self.queue.order()
        self.references = np.concatenate([self.references, np.zeros(self.num_blocks, np.int64)])
        self.group = np.concatenate([self.group, np.full(pages, -1, np.int64)])
        self.inside = np.concatenate([self.inside, np.zeros(pages, np.int64)])
        self.queue = FreeQueue(2 * pages)
        self.queue.remove(np.setdiff1d(np.arange(1, pages + 1), free))
        self.num_blocks *= 2
        self.cache = PrefixCache(self.num_blocks)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class EndlessHost(HostPool):
    """Unlimited memory on the host, to and from which blocks move at no cost."""

    def __init__(self, host: HostPool) -> None:
        """Make an empty host like another one."""
        pool, table = host.pool, host.table
        pages = -(-1024 // pool.page_blocks) * pool.page_blocks
        endless = EndlessPieces(pages, pool.page_blocks, pool.pieces, 0)
        super().__init__(endless, len(table.count), table.width, len(host.of_device) - 1)

    def moves(self, group: int, sources: Ints, targets: Ints) -> Sequence[Copy]:
        """See `HostPool.moves`.  None, since a move would take time."""
        return ()


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class IdealAllocator(PagedAllocator):
    """Blocks of one token, and swapping that is always possible and costs nothing."""

    kind = "ideal"
    free_preemption = True
    options = MappingProxyType(
        {
            "block_size": BLOCK_SIZE._replace(default=1, choices=(1,)),
            "prefix_cache": Option(bool, False, "keep tokens for sequences that begin alike", fact="shared_prefixes"),
            "groups": Option(str, "full 1x1", "layers x bytes / window of each group of layers", fact="kv_groups"),
        }
    )

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        max_model_len: int,
        max_rows: int = 256,
        *,
        prefix_cache: bool = False,
        groups: str = "full 1x1",
    ) -> None:
        """Make an empty pool for a model with one group of layers; `from_options` makes one for any.

        Raises:
            AllocatorError: there are several groups, or there is one that slides.

        """
        if _paging(groups):
            raise AllocatorError(f"{groups}: such layers are GroupedIdeal's")
        super().__init__(num_blocks, block_size, max_model_len, max_rows, prefix_cache=prefix_cache)
        self.host = EndlessHost(self.host)

    @classmethod
    def measure(cls, values: Mapping[str, Value]) -> Measure:
        """See `Allocator.measure`."""
        paging = _paging(str(values["groups"]))
        return HybridAllocator.measure({**values, "paging": paging}) if paging else PagedAllocator.measure(values)

    @classmethod
    def from_options(  # type: ignore[override] # what differs by the model is hidden here
        cls,
        *,
        num_blocks: int,
        max_model_len: int,
        max_rows: int = 256,
        facts: Mapping[str, Value] = MappingProxyType({}),
        **options: Value,
    ) -> IdealAllocator | GroupedIdeal:
        """See `Allocator.from_options`: makes a `GroupedIdeal` for layers that differ, or slide."""
        values = resolve(cls.kind, cls.options, options, facts)
        made, cached = (num_blocks, 1, max_model_len, max_rows), bool(values["prefix_cache"])
        groups = str(values["groups"])
        paging, found = _paging(groups), parse(groups)
        if paging and (len(found) > 1 or (found[0].window or 0) < max_model_len):  # else nothing leaves the window
            return GroupedIdeal(*made, paging=paging, prefix_cache=cached, groups=groups)
        return cls(*made, prefix_cache=cached)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class GroupedIdeal(HybridAllocator):
    """Pieces of one token for each group of layers, and swapping that is always possible and costs nothing."""

    kind = "ideal"
    free_preemption = True

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        max_model_len: int,
        max_rows: int,
        *,
        paging: str,
        prefix_cache: bool,
        groups: str,
    ) -> None:
        """Make an empty pool; see `HybridAllocator`."""
        super().__init__(
            num_blocks, block_size, max_model_len, max_rows, paging=paging, prefix_cache=prefix_cache, groups=groups
        )
        self.host = EndlessHost(self.host)


def _paging(groups: str) -> str:
    """Return the way of cutting pages that wastes least, or nothing if a single group of layers keeps all tokens.

    Raises:
        ValueError: the groups cannot be parsed.

    """
    try:
        found = parse(groups)
    except ValueError as error:
        raise ValueError(f"ideal.groups: {error}") from None
    if len(found) == 1 and not found[0].window:
        return ""
    even = cut(found, 1, "even")
    return "even" if even.tokens == 1 and not any(piece.padding for piece in even.attention) else "common-multiple"
