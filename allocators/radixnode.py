"""A node of the radix tree, with the run of pages on the edge that leads to it (`allocators.radix`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocators.compiled import mypyc_attr
from allocators.content import Segments
from allocators.runs import Run
from allocators.table import Ints

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING = Run(Segments((), 0), 1, 0, 0)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Node:
    """A run of pages that begins where its parent's ends."""

    __slots__ = ("blocks", "children", "growing", "key", "locks", "parent", "run", "used")

    def __init__(self, run: Run, blocks: Ints, parent: Node | None, used: int) -> None:
        """Make an unlocked node without children."""
        self.run = run
        self.key = run.key(0) if run.pages else 0
        """Key of its first page; 0 for the root."""
        self.blocks = blocks
        """int64[run.pages]: physical ids of the pages."""
        self.parent = parent
        """None for the root, and for a node that was evicted."""
        self.children: dict[int, Node] = {}
        """By the key of their first page."""
        self.locks = 0
        """How many paths in use go through it."""
        self.used = used
        """Time of last use, in uses of the tree."""
        self.growing = False
        """Whether it is the end of a sequence that may still grow and has never had a child: then it grows with it."""

    def __lt__(self, other: Node) -> bool:
        """Compare nodes in a heap of (time of use, node); needed only formally, as no two leaves have equal times."""
        return self.run.pages < other.run.pages

    def ancestry(self) -> Iterator[Node]:
        """Go from this node up to the root, which is left out."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent

    def path(self) -> list[int]:
        """Return the blocks from the root to the node's end."""
        return [block for node in [*self.ancestry()][::-1] for block in node.blocks.tolist()]
