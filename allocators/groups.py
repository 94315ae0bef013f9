"""Groups of layers that keep the same tokens, and how the pages of one pool are cut for all groups.

In a hybrid model layers differ: some attend to all tokens, some to a window, some keep a state of
fixed size.  Layers that keep the same form a *group*, with a block table of its own; all groups
take memory from one pool.  A *piece* is what a group takes at a time: a block of tokens over its
layers, or one state.  Groups have pieces of different sizes, and there are three ways to handle that:

* `uniform`: a page holds one piece of any group and is as large as the largest; smaller pieces
  are padded.  Blocks of attention are first enlarged, in whole blocks, until one is as large as
  a state.
* `even`: the same, but layers of one kind are first divided into groups of as many layers as
  the rarest kind has, so that there is less to pad (vLLM, docs/design/hybrid_kv_cache_manager).
* `common-multiple`: a page is as large as the least common multiple of all pieces and is cut
  into pieces of one group at a time (Jenga, arXiv 2503.18292, section 4.1).

The ledger counts the pool in the largest unit of which a token of every group, a state and a page
are whole multiples.  So a slot here is a part of a token: a token takes `Cut.token_slots` of them.
"""

from __future__ import annotations

import re
from math import gcd, lcm
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGINGS = ("uniform", "even", "common-multiple")
_GROUP = re.compile(r"\s*(full|sliding|latent|state)\s+(\d+)x(\d+)(?:/(\d+))?\s*")


class Group(NamedTuple):
    """Layers that keep the same tokens, or a state."""

    kind: str
    """`full`, `sliding` or `latent` attention, or `state`."""
    layers: int
    layer_bytes: int
    """One token's K/V in one layer; for a state, one sequence's state in one layer."""
    window: int | None = None
    """Tokens that a token attends to, itself included; None for all."""

    @property
    def size(self) -> int:
        """Bytes of one token, or of one sequence's state, over all layers."""
        return self.layers * self.layer_bytes

    def __str__(self) -> str:
        """Spell the group as `parse` reads it."""
        return f"{self.kind} {self.layers}x{self.layer_bytes}" + (f"/{self.window}" if self.window else "")


class Piece(NamedTuple):
    """What one group takes of the pool at a time."""

    group: Group
    tokens: int
    """Tokens a piece holds; 0 for a state."""
    slots: int
    """Slots of the ledger that one token takes in this group; for a state, that the state takes."""
    blocks: int
    """Blocks a piece is made of."""
    pieces: int
    """Pieces a page is cut into."""
    padding: int
    """Slots of a piece that are never used."""

    @property
    def full(self) -> int:
        """Slots that are used once the piece is full."""
        return self.slots * max(1, self.tokens)


class Cut(NamedTuple):
    """How the pool is cut."""

    slot_bytes: int
    """Bytes of a slot of the ledger."""
    block_slots: int
    """Slots a block."""
    page_blocks: int
    """Blocks a page."""
    tokens: int
    """Tokens a piece of attention holds."""
    states: tuple[Piece, ...]
    """The pieces of recurrent groups, in the order of the groups."""
    attention: tuple[Piece, ...]
    """The pieces of attention groups, in the order of the groups."""

    @property
    def token_slots(self) -> int:
        """Slots that one token takes over all groups."""
        return sum(piece.slots for piece in self.attention)

    @property
    def state_slots(self) -> int:
        """Slots that the states of one sequence take."""
        return sum(piece.slots for piece in self.states)


def parse(text: str) -> tuple[Group, ...]:
    """Read groups such as `full 8x8192, sliding 40x8192/1024, state 28x311296`: layers x bytes / window.

    Raises:
        ValueError: what is wrong, in a few words.

    """
    groups = []
    for part in text.split(","):
        found = _GROUP.fullmatch(part)
        if not found:
            raise ValueError(f"{part.strip()!r} is not like full 8x8192, sliding 40x8192/1024 or state 28x311296")
        kind, layers, size, window = found.groups()
        if not int(layers) or not int(size):
            raise ValueError(f"{part.strip()!r}: layers and bytes are at least 1")
        if int(window or 0) < 2 if kind == "sliding" else window:
            raise ValueError(f"{part.strip()!r}: a window, of at least 2 tokens, is what sliding attention has")
        groups.append(Group(kind, int(layers), int(size), int(window) if window else None))
    if all(group.kind == "state" for group in groups):
        raise ValueError("no group is attention: there are no tokens to keep")
    return tuple(groups)


def cut(groups: Sequence[Group], block_size: int, paging: str) -> Cut:
    """Work out the pages of a pool.

    Args:
        groups: of the model, at least one of attention.
        block_size: tokens a block of attention holds, at least.
        paging: one of `PAGINGS`.

    """
    groups = _evened(groups) if paging == "even" else groups
    states = [group for group in groups if group.kind == "state"]
    attention = [group for group in groups if group.kind != "state"]
    tokens = block_size
    if paging != "common-multiple":
        state, token = max((group.size for group in states), default=0), max(group.size for group in attention)
        tokens = block_size * max(1, -(-state // (token * block_size)))
    sizes = [group.size * (1 if group.kind == "state" else tokens) for group in [*states, *attention]]
    slot = gcd(*(group.size for group in groups))
    page, block = (lcm(*sizes), gcd(*sizes)) if paging == "common-multiple" else (max(sizes), max(sizes))
    pieces = [
        Piece(
            group,
            tokens=0 if group.kind == "state" else tokens,
            slots=group.size // slot,
            blocks=-(-size // block),
            pieces=page // (-(-size // block) * block),
            padding=-size % block // slot,
        )
        for group, size in zip([*states, *attention], sizes, strict=True)
    ]
    return Cut(slot, block // slot, page // block, tokens, tuple(pieces[: len(states)]), tuple(pieces[len(states) :]))


def _evened(groups: Sequence[Group]) -> list[Group]:
    """Divide each group into groups of as many layers as the smallest has; the last of each may have fewer."""
    most = min(group.layers for group in groups)
    return [
        group._replace(layers=min(most, group.layers - first))
        for group in groups
        for first in range(0, group.layers, most)
    ]
