"""The identity of a sequence's tokens, as far as a prefix cache needs it.

A prefix cache must know whether two sequences begin with the same tokens, but not what the tokens
are.  So `Content` only provides the *key* of each full block: a 64-bit hash of everything from the
start of the sequence to the end of the block, computed from the key of the block before (as in
vLLM: "hash of the parent block, the block's tokens, extra keys").  There are two kinds of content:

* `Segments`: a list of (id, length) pieces; tokens are equal where ids and offsets are equal.
  A shared system prompt, the history of a session or a branch of a tree of thought is one id, and
  no token is ever generated.  The last piece, the output, is open-ended.
* `Tokens`: real token ids, as an engine has them.

Keys are Python's hashes of tuples of integers, which do not depend on PYTHONHASHSEED.  Within a
segment they need not be chained: the key before the segment and the position in it determine a block's
key, so many are computed at once, or one alone.  All sequences that use one cache must have the same kind of content.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from allocators.compiled import mypyc_attr

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MASK = (1 << 64) - 1
AHEAD = 512
"""Tokens of an output for which keys are computed at a time."""


class Media(NamedTuple):
    """An image or similar input, for which the tokens `[offset, offset + length)` are placeholders."""

    hash: int
    """Its identity: items with equal hashes are equal."""
    offset: int
    """Tokens of the sequence before it."""
    length: int
    """Placeholder tokens."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Content(ABC):
    """The identity of a sequence's tokens, computed block by block and remembered."""

    __slots__ = ("_keys", "root", "sole")

    def __init__(self, root: int = 0, *, sole: bool = False) -> None:
        """Begin the chain of keys with `root` (a salt or LoRA id): contents with different roots never share.

        Args:
            root: of the chain.
            sole: whether it is known that no other content begins with the same tokens.

        """
        self.root = root
        self.sole = sole
        self._keys: dict[int, list[int]] = {}

    @property
    def unheard(self) -> bool:
        """Whether certainly no block has one of its keys: no other content has them, and nobody has asked for any."""
        return self.sole and not self._keys

    @abstractmethod
    def piece(self, start: int, stop: int) -> tuple[int, ...]:
        """Identify the tokens of `[start, stop)`: two tuples are equal if and only if the tokens are."""

    def keys(self, block_size: int, count: int) -> list[int]:
        """Return the keys of at least the first `count` full blocks of `block_size` tokens; none of them is 0.

        The list may be longer than asked for.  It belongs to the content and must not be changed.
        """
        keys = self._keys.setdefault(block_size, [])
        parent = keys[-1] if keys else self.root
        for block in range(len(keys), count):
            start = block * block_size
            parent = hash((parent, self.piece(start, start + block_size))) or 1
            keys.append(parent)
        return keys

    def key(self, block_size: int, index: int) -> int:
        """Return the key of full block number `index`, which is `keys(...)[index]`."""
        return self.keys(block_size, index + 1)[index]

    def _keys_of_first(self, tokens: int) -> dict[int, list[int]]:
        return {block_size: keys[: tokens // block_size] for block_size, keys in self._keys.items()}


GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""Multipliers of SplitMix64 (Steele et al., OOPSLA 2014)."""


def _mixed_one(seed: int, number: int) -> int:
    """Scramble a seed and a number to 64 bits, as `_mixed` does."""
    state = (number + 1) * GOLDEN + seed & MASK
    state = (state ^ state >> 30) * FIRST & MASK
    state = (state ^ state >> 27) * SECOND & MASK
    state ^= state >> 31
    return state - (MASK + 1) if state >> 63 else state or 1


def _mixed(seed: int, start: int, stop: int) -> list[int]:
    """Scramble a seed and each number of `[start, stop)` to 64 bits, with SplitMix64; none becomes 0."""
    state = np.arange(start + 1, stop + 1, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(seed & MASK)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(FIRST)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(SECOND)
    state ^= state >> np.uint64(31)
    state[state == 0] = 1
    keys: list[int] = state.view(np.int64).tolist()
    return keys


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Segments(Content):
    """Content as pieces (id, length) in order, then `tail`, the id of everything after them."""

    __slots__ = ("_alone", "_ids", "_seeds", "_starts")

    def __init__(self, pieces: Iterable[tuple[int, int]], tail: int, root: int = 0, *, sole: bool = False) -> None:
        """Describe a sequence: `pieces` of its prompt, and `tail` for its output; for the others see `Content`."""
        super().__init__(root, sole=sole)
        names, ends = [], [0]
        for name, length in pieces:
            if length > 0:
                names.append(name)
                ends.append(ends[-1] + length)
        self._ids = (*names, tail)
        self._starts = tuple(ends)
        self._seeds: dict[int, list[int]] = {}
        """By block size, what the keys of blocks inside each segment are made from, as far as it is known."""
        self._alone: dict[int, dict[int, int]] = {}
        """By block size and block, the keys that were computed alone."""

    @property
    def unheard(self) -> bool:
        """See `Content.unheard`."""
        return self.sole and not self._seeds and not self._keys

    def piece(self, start: int, stop: int) -> tuple[int, ...]:
        """Identify the range by (segment id, offset inside it, length) of each segment it touches."""
        index = bisect_right(self._starts, start) - 1
        last = len(self._ids) - 1
        parts: list[int] = []
        while start < stop:
            end = stop if index == last else min(stop, self._starts[index + 1])
            parts += (self._ids[index], start - self._starts[index], end - start)
            start = end
            index += 1
        return tuple(parts)

    def keys(self, block_size: int, count: int) -> list[int]:
        """See `Content.keys`.  The keys of all blocks that lie inside one segment are computed together."""
        keys = self._keys.get(block_size)
        if keys is None:
            keys = self._keys[block_size] = []
        elif len(keys) >= count:
            return keys
        last = len(self._ids) - 1
        while (known := len(keys)) < count:
            start = known * block_size
            index = bisect_right(self._starts, start) - 1
            if index == last:  # the open-ended output: the next keys will soon be wanted, too
                inside = max(count, known + AHEAD // block_size)
            else:
                inside = min(count, self._starts[index + 1] // block_size)
            if inside <= known:  # the next block reaches into another segment
                super().keys(block_size, known + 1)
                continue
            first = -(-self._starts[index] // block_size)
            keys += _mixed(self._seed(block_size, index), known - first, inside - first)
        return keys

    def key(self, block_size: int, index: int) -> int:
        """See `Content.key`.  That of a block inside a segment is computed alone."""
        keys = self._keys.get(block_size)
        if keys is not None and index < len(keys):
            return keys[index]
        alone = self._alone.setdefault(block_size, {})
        if (known := alone.get(index)) is not None:
            return known
        start = index * block_size
        segment = bisect_right(self._starts, start) - 1
        if segment < len(self._ids) - 1 and self._starts[segment + 1] < start + block_size:
            return super().key(block_size, index)
        key = _mixed_one(self._seed(block_size, segment), index - -(-self._starts[segment] // block_size))
        alone[index] = key
        return key

    def _seed(self, block_size: int, segment: int) -> int:
        """Return what the keys of blocks inside a segment are made from: the key before them, and where they begin."""
        seeds = self._seeds.setdefault(block_size, [])
        while (index := len(seeds)) <= segment:
            first = -(-self._starts[index] // block_size)
            parent = self.key(block_size, first - 1) if first else self.root
            offset = first * block_size - self._starts[index]
            seeds.append(hash((parent, (self._ids[index], offset, block_size))))
        return seeds[segment]

    def branch(self, tokens: int, tail: int) -> Segments:
        """Return a content with the same first `tokens` tokens, followed by those of `tail`."""
        ends = [*self._starts[1:], tokens]
        pieces = [
            (name, min(end, tokens) - start)
            for name, start, end in zip(self._ids, self._starts, ends, strict=True)
            if start < tokens
        ]
        child = Segments(pieces, tail, self.root)
        child._keys = self._keys_of_first(tokens)
        return child


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Tokens(Content):
    """Content as token ids, extended as the model generates."""

    __slots__ = ("_media", "tokens")

    def __init__(self, tokens: Sequence[int], root: int = 0, media: Sequence[Media] = ()) -> None:
        """Start with a prompt's token ids; each item of `media` becomes part of the keys of the blocks it overlaps."""
        super().__init__(root)
        self.tokens = list(tokens)
        self._media = tuple(media)

    def extend(self, tokens: Iterable[int]) -> None:
        """Append generated tokens."""
        self.tokens.extend(tokens)

    def truncate(self, count: int) -> None:
        """Forget all tokens but the first `count`."""
        del self.tokens[count:]
        self._keys = self._keys_of_first(count)

    def branch(self, tokens: int) -> Tokens:
        """Return a content with the same first `tokens` tokens, which can then be extended differently."""
        child = Tokens(self.tokens[:tokens], self.root, self._media)
        child._keys = self._keys_of_first(tokens)
        return child

    def piece(self, start: int, stop: int) -> tuple[int, ...]:
        """Return the token ids, then (hash, offset relative to `start`) of each media item that the range overlaps.

        Raises:
            ValueError: some of the tokens are not known yet.

        """
        if stop > len(self.tokens):
            known = len(self.tokens)
            raise ValueError(
                f"tokens up to {stop} are asked for, but only {known} are known: extend before a row grows"
            )
        part = tuple(self.tokens[start:stop])
        for item in self._media:
            if item.offset < stop and item.offset + item.length > start:
                part += (item.hash, item.offset - start)
        return part
