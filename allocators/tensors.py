"""Memory of sequences that are tensors of their own: a K and a V tensor per layer, as in transformers' DynamicCache.

How many bytes of PyTorch's caching allocator (`allocators.cuda_caching`) do such tensors take?
Two answers:

* `Footprints`, in closed form.  What is held beyond the tensors themselves (holes that others have left, ends of
  blocks too short to split off) is on average a share of each tensor's size (`Overhead`).  Shares add up, so a
  step costs a few NumPy calls.
* `PlacedTensors`, passing every tensor through the allocator: exact, and three orders of magnitude slower.

The overheads are fitted on pools that exact placement keeps full (`python -m tests.benchmarks.footprints`),
for many kinds of models and lengths.  On other pools of at least 3 GiB the closed form is on average within 2 %
of what the caching allocator holds, 3 % for tensors of 10 MiB and more, and the number of tokens that fit agrees
within 2 % (`tests/test_growing.py`).  Single instants differ more, as do pools of few segments.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from allocators.compiled import mypyc_attr
from allocators.cuda_caching import (
    MIN_BLOCK,
    MIN_LARGE,
    SMALL_SIZE,
    CudaCachingAllocator,
    OutOfMemory,
    segment_size,
)
from allocators.cuda_expandable import expandable
from allocators.errors import CorruptionError
from allocators.table import Ints


class Overhead(NamedTuple):
    """What tensors take of a full pool on average, as multiples of their size in the pool that they come from."""

    small: float
    """Up to 1 MiB."""
    large: float
    """From there to 10 MiB, cut from common segments ..."""
    rest: int
    """... and bytes more for each, as the rest of a block is not split off."""
    huge: float = 0.0
    """From 10 MiB on, in segments of their own; 0 where they are cut like the others."""


SEGMENTS = Overhead(small=1.036, large=1.078, rest=107_500, huge=1.179)
EXPANDABLE = Overhead(small=1.018, large=1.007, rest=88_200)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Footprints:
    """What the tensors of all rows take on average, overhead included, and one copy.

    `torch.cat` holds a tensor twice while it runs, so there must always be room for one more of
    the largest.  `longest` are the tokens of the longest row, 0 if there is none.
    """

    def __init__(
        self, tensors: int, token_bytes: int, capacity: int, longest: int, *, expandable_segments: bool = False
    ) -> None:
        """Make an empty memory.

        Args:
            tensors: tensors of a sequence, over all layers.
            token_bytes: bytes of one token in one of them.
            capacity: bytes in all.
            longest: tokens of the longest sequence.
            expandable_segments: the overhead is that of expandable segments.

        """
        self.capacity = capacity
        self.sizes: Ints = -(-np.arange(longest + 1) * token_bytes // MIN_BLOCK) * MIN_BLOCK
        """int64[longest + 1]: bytes of one tensor of each length, rounded as the caching allocator does."""
        of = EXPANDABLE if expandable_segments else SEGMENTS
        large = np.maximum(of.large * self.sizes + of.rest, (self.sizes >= MIN_LARGE) * of.huge * self.sizes)
        shares = np.where(self.sizes <= SMALL_SIZE, of.small * self.sizes, large)
        self.footprints: Ints = tensors * np.ceil(shares).astype(np.int64)
        """int64[longest + 1]: bytes that the tensors of a sequence of each length take."""
        self.taken = 0
        """Bytes that the tensors of all rows take."""

    def held(self, longest: int) -> int:
        """Bytes taken, the copy included."""
        return self.taken + self.sizes.item(longest)

    def alone(self, tokens: int, count: int) -> int:
        """Bytes that `count` sequences of `tokens` tokens need in an empty memory."""
        return int(self.footprints[tokens] * count + self.sizes[tokens])

    def more(self, tokens: int, longest: int, count: int) -> int:
        """Bytes that `count` further sequences of `tokens` tokens need."""
        return int(self.footprints[tokens] * count + self.sizes[max(tokens, longest)] - self.sizes[longest])

    def growth(self, before: Ints, targets: Ints, longest: int) -> tuple[Ints, Ints]:
        """Bytes that tensors take, and bytes held, once each row, and those before it, have their target length.

        Returns two int64[n].
        """
        taken = (self.footprints[targets] - self.footprints[before]).cumsum() + self.taken
        most = np.maximum(np.maximum.accumulate(targets), longest)
        return taken, taken + self.sizes[most]

    def foresee(self, some: Ints, steps: int, most: int, longest: int) -> tuple[Ints, Ints]:
        """Bytes that tensors take, and bytes held, after each of the next steps: two int64[steps].

        In each step the rows whose lengths are `some`, of which `most` is the largest, grow by one token.
        """
        sums = np.add.reduce(self.footprints[some[:, None] + np.arange(steps + 1)])
        taken = sums[1:] + (self.taken - sums.item(0))
        return taken, taken + np.maximum(self.sizes[most + 1 : most + 1 + steps], self.sizes[longest])

    def change(self, before: int, after: int) -> None:
        """Enter a row whose length was `before` and is `after`, 0 standing for a closed one."""
        self.taken += self.footprints.item(after) - self.footprints.item(before)

    def difference(self, before: Ints, after: Ints) -> int:
        """Return by how many bytes more the tensors of rows take whose lengths were `before` and are `after`."""
        return int((self.footprints[after] - self.footprints[before]).sum())

    def check(self, lengths: Ints) -> None:
        """Raise `CorruptionError` unless the shares add up, within the capacity."""
        taken = int(self.footprints[lengths].sum())
        if taken != self.taken:
            raise CorruptionError(f"the tensors take {taken} bytes, counted {self.taken}")
        held = self.held(int(lengths.max()))
        if held > self.capacity:
            raise CorruptionError(f"{held} bytes are held of {self.capacity}")


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class PlacedTensors:
    """Every tensor of every row at its address, made and freed in the order of a forward pass."""

    def __init__(self, tensors: int, token_bytes: int, capacity: int, *, expandable_segments: bool) -> None:
        """Make an empty memory; arguments as for `Footprints`."""
        self.device = expandable(capacity) if expandable_segments else CudaCachingAllocator(capacity)
        """The caching allocator, with its statistics."""
        self.overrun = 0
        """Bytes by which the tensors have exceeded the capacity: where PyTorch would have been out of memory."""
        self._tensors = tensors
        self._token_bytes = token_bytes
        self._addresses: dict[int, list[int]] = {}

    def add(self, row: int, tokens: int) -> None:
        """Make the tensors of a sequence."""
        self._addresses[row] = [self._make(tokens) for _ in range(self._tensors)]

    def concatenate(self, rows: list[int], targets: list[int]) -> None:
        """Replace each tensor by a longer one: layer by layer, in each row by row, first K and then V.

        A row that has no tensors yet gets its first ones, likewise one layer after the other.
        """
        pair = 2 if self._tensors % 2 == 0 else 1
        for layer in range(0, self._tensors, pair):
            for row, tokens in zip(rows, targets, strict=True):
                addresses = self._addresses.setdefault(row, [])
                for tensor in range(layer, layer + pair):
                    longer = self._make(tokens)
                    if tensor < len(addresses):
                        self.device.free(addresses[tensor])
                        addresses[tensor] = longer
                    else:
                        addresses.append(longer)

    @property
    def rows(self) -> set[int]:
        """Rows that have tensors."""
        return set(self._addresses)

    def drop(self, row: int) -> None:
        """Free the tensors of a row."""
        for address in self._addresses.pop(row):
            self.device.free(address)

    def _make(self, tokens: int) -> int:
        size = tokens * self._token_bytes
        while isinstance(answer := self.device.malloc(size), OutOfMemory):
            lacking = segment_size(answer.size) - answer.room
            self.overrun += lacking
            self.device.capacity += lacking
        return answer

    def check(self, rows: list[int]) -> None:
        """Raise `CorruptionError` unless the tensors are those of `rows` and the caching allocator is sound."""
        if sorted(self._addresses) != rows:
            raise CorruptionError(f"tensors of rows {sorted(self._addresses)}, open rows {rows}")
        self.device.check()
