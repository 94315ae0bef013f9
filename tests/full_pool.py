"""A pool of growing tensors that PyTorch's caching allocator itself keeps full, to judge the closed form by.

A request is let in when all its tensors find memory, every step makes each tensor a token longer, and where
memory runs out the newest request loses its tensors: the placement decides, nothing is estimated.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from allocators.cuda_caching import CudaCachingAllocator, OutOfMemory
from allocators.cuda_expandable import expandable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocators.table import Ints


class Case(NamedTuple):
    """A model's tensors, a pool, and requests of uniformly drawn lengths."""

    tensors: int
    token_bytes: int
    gib: float
    prompt: tuple[int, int]
    output: tuple[int, int]
    most: int = 256
    """Requests at once."""

    @property
    def capacity(self) -> int:
        """Bytes."""
        return int(self.gib * (1 << 30))

    @property
    def longest(self) -> int:
        """Tokens of the longest request."""
        return self.prompt[1] + self.output[1]


class Requests:
    """Endless requests of (prompt, output) tokens."""

    def __init__(self, case: Case, seed: int) -> None:
        self._case, self._draw = case, np.random.default_rng(seed)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while True:
            yield int(self._draw.integers(*self._case.prompt)), int(self._draw.integers(*self._case.output))


class FullPool:
    """Every tensor at its address."""

    def __init__(self, case: Case, seed: int, *, expandable_segments: bool) -> None:
        self.case = case
        self.device = expandable(case.capacity) if expandable_segments else CudaCachingAllocator(case.capacity)
        self.lengths: dict[int, int] = {}
        """Tokens by request, in the order of admission."""
        self._tensors: dict[int, list[int]] = {}
        self._final: dict[int, int] = {}
        self._requests = iter(Requests(case, seed))
        self._next = next(self._requests)
        self._ids = count()

    @property
    def held(self) -> int:
        """Bytes that the device cannot be given back."""
        return self.device.reserved - self.device.releasable()

    def step(self) -> Ints:
        """Admit, grow, preempt and finish; return int64[n], the lengths of those that ran to its end."""
        while len(self.lengths) < self.case.most and self._admit(*self._next):
            self._next = next(self._requests)
        for layer in range(0, self.case.tensors, 2):
            for request in list(self.lengths):
                for tensor in (layer, layer + 1):
                    self._concatenate(request, tensor)
        for request in self.lengths:
            self.lengths[request] += 1
        lengths = np.array(list(self.lengths.values()), np.int64)
        for request in [request for request, length in self.lengths.items() if length >= self._final[request]]:
            self._drop(request)
        return lengths

    def _admit(self, prompt: int, output: int) -> bool:
        addresses: list[int] = []
        for _ in range(self.case.tensors):
            address = self.device.malloc(prompt * self.case.token_bytes)
            if isinstance(address, OutOfMemory):
                for made in addresses:
                    self.device.free(made)
                return False
            addresses.append(address)
        request = next(self._ids)
        self._tensors[request], self.lengths[request] = addresses, prompt
        self._final[request] = prompt + output
        return True

    def _concatenate(self, request: int, tensor: int) -> None:
        while request in self.lengths:
            address = self.device.malloc((self.lengths[request] + 1) * self.case.token_bytes)
            if not isinstance(address, OutOfMemory):
                self.device.free(self._tensors[request][tensor])
                self._tensors[request][tensor] = address
                return
            self._drop(next(reversed(self.lengths)))

    def _drop(self, request: int) -> None:
        for address in self._tensors.pop(request):
            self.device.free(address)
        del self.lengths[request]


def states(pool: FullPool, steps: int, warm: int) -> Iterator[tuple[Ints, int]]:
    """Yield (lengths, bytes held) after each of `steps` steps but the first `warm`.

    Where a request has just finished, its tensors are in neither.
    """
    for step in range(steps):
        pool.step()
        if step >= warm and pool.lengths:
            yield np.array(list(pool.lengths.values()), np.int64), pool.held
