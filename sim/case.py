"""A case: one allocator of a workload, with the scheduler, limits and pool that it is run under."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from allocators.answers import Ask
from allocators.compiled import is_a
from allocators.content import Segments
from allocators.options import resolve
from allocators.registry import create, find, measure
from allocators.reserving import RunAllocator
from sim.engine.intake import never_runs
from sim.engine.jobs import Job
from sim.errors import UserError
from sim.schedulers import Scheduler, find_scheduler

if TYPE_CHECKING:
    from allocators.base import Allocator
    from allocators.options import Value
    from sim.limits import Limits
    from sim.pool import Pool
    from workloads.allocator import AllocatorSpec
    from workloads.requests import Requests


MOST_ENTRIES = 1 << 44
"""Entries of a table, of some bytes each, that no machine has memory for."""


class Case(NamedTuple):
    """One allocator under the workload's scheduler, with the pool it gets."""

    label: str
    spec: AllocatorSpec
    scheduler: str
    preemption: str
    limits: Limits
    pool: Pool
    facts: dict[str, Value]

    def allocator(self, *, shared_prefixes: bool = False) -> Allocator:
        """Make a fresh allocator for requests of which some begin alike, or none do.

        Raises:
            UserError: its tables do not fit in this machine's memory.

        """
        options, facts = self.spec.options, self.facts | {"shared_prefixes": shared_prefixes}
        table = self.limits.max_num_seqs * (self.limits.max_model_len // self.pool.block_size)
        host = int(resolve(self.spec.kind, find(self.spec.kind).options, options, facts).get("host_blocks") or 0)
        if max(self.pool.num_blocks, table, host) > MOST_ENTRIES:
            raise self._too_large(table, host)
        try:
            return create(
                self.spec.kind,
                num_blocks=self.pool.num_blocks,
                max_model_len=self.limits.max_model_len,
                max_rows=self.limits.max_num_seqs,
                facts=facts,
                **options,
            )
        except MemoryError as error:
            raise self._too_large(table, host) from error

    def _too_large(self, table: int, host: int) -> UserError:
        """Make the error of tables that do not fit: of all sequences, of the pool, or of blocks on the host."""
        blocks, asks = self.pool.num_blocks, "device"
        if max(table, host) > blocks:
            asks = "allocators" if host > table and "host_blocks" in self.spec.options else "engine"
        away = f", {host:,} on the host" if host > blocks else ""
        return UserError(
            f"{asks}: {self.label}: this machine has no memory for the tables of {blocks:,} blocks{away} "
            f"and {self.limits.max_num_seqs:,} sequences of up to {self.limits.max_model_len:,} tokens"
        )

    def reserves_longest(self) -> bool:
        """Whether every sequence gets room for `max_model_len` tokens when it is admitted, however short it is."""
        longest, kind, options = self.limits.max_model_len, self.spec.kind, self.spec.options
        page = measure(kind, options, self.facts).multiple
        one = create(kind, num_blocks=page, max_model_len=longest, max_rows=1, facts=self.facts, **options)
        return is_a(one, RunAllocator) and not one.oracle and one.reservation(1, None) >= longest

    def longest_at_once(self) -> int | None:
        """Count the sequences of `max_model_len` that fit in the empty pool together; None if any number does."""
        allocator, length = self.allocator(), self.limits.max_model_len
        ask = Ask(Segments((), 0), prompt=1, tokens=1, output=max(1, length - 1) if allocator.oracle else None)

        def too_many(samples: int) -> bool:
            return allocator.never(ask._replace(samples=samples), length) is not None

        most = allocator.capacity + 1  # each needs a slot, unless there are none
        return None if not too_many(most) else bisect_left(range(most), x=True, key=too_many) - 1

    def refusals(self, requests: Requests) -> Counter[str]:
        """Count the requests that could never run, by reason, as the engine refuses them when they arrive."""
        allocator, scheduler = self.allocator(shared_prefixes=requests.prefixes is not None), self.make_scheduler()
        samples = requests.samples if len(requests.samples) else np.ones_like(requests.prompt_tokens)
        sizes = np.stack([requests.prompt_tokens, requests.output_tokens, samples])
        found: Counter[str] = Counter()
        kinds, counts = np.unique(sizes, axis=1, return_counts=True)  # equal ones are asked for once
        for (prompt, output, many), count in zip(kinds.T.tolist(), counts.tolist(), strict=True):
            if reason := never_runs(Job(0, 0, prompt, output, many, Segments((), 0)), scheduler, allocator):
                found[reason] += count
        return found

    def make_scheduler(self) -> Scheduler:
        """Make a fresh scheduler."""
        return find_scheduler(self.scheduler)(self.limits)
