"""Executors: what runs a plan.  In a simulation, a cost model computes how long each step takes.

The engine calls two methods.  `run` carries out a plan and returns how long it took.  `foresee`
returns how long each of the next pure-decode steps will take, so that the engine can leap over
them; an executor that really has to run each step cannot foresee any.

Durations are whole nanoseconds, not seconds: their sums are exact, so that a leap ends at the very
instant at which its steps would, one by one.  What else is known of a step is noted on its plan.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from allocators.answers import Mappings
from allocators.compiled import mypyc_attr
from allocators.table import Ints
from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.engine.plan import Chunk, MoveKind
from sim.engine.remembered import Remembered
from sim.engine.timeline import Foresight

if TYPE_CHECKING:
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving


@mypyc_attr(allow_interpreted_subclasses=True)
class Executor(ABC):
    """Runs plans."""

    @abstractmethod
    def run(self, plan: Plan, serving: Serving) -> int:
        """Carry out one step and return its duration in nanoseconds, at least 1."""

    def foresee(self, serving: Serving, steps: int, now: int) -> Foresight | None:
        """Return how long the next `steps` pure-decode steps take, of which the first starts at `now` (nanoseconds).

        None, as here, if that cannot be known, if every step is to be run, or if the host waits for the end of such
        steps (`Plan.waited`).
        """
        return None


class Simulated(Executor):
    """An executor that computes durations with the cost model."""

    def __init__(self, cost: CostModel, *, recomputes: bool = False, block_bytes: int = 0) -> None:
        """Time steps with `cost`.

        Args:
            cost: the cost model.
            recomputes: whether nothing is cached, so that every step computes all tokens so far.
            block_bytes: bytes that swapping one block moves.

        """
        self._cost = cost
        self._remembered, self._copying = Remembered(cost), Remembered(cost, copied=True)
        self._recomputes = recomputes
        self._block_bytes = block_bytes
        self._window = cost.geometry.window
        self._spares = cost.spares
        self._splitting, self._spreads = cost.splitting, cost.spreads
        self._limited, self._heat = cost.throttles, cost.heat()
        self._hosted = cost.hosted and not recomputes  # whose steps are all launched, and last as long as that takes

    def run(self, plan: Plan, serving: Serving) -> int:
        """See `Executor.run`.  Sets `hidden` and `exposed` of the plan."""
        load = self.load(plan, serving)
        if plan.mappings.mapped or plan.mappings.unmapped:
            plan.hidden, plan.exposed = self._cost.moves.mapping_ns(load)
        if heat := self._heat.at(plan.start):
            load = load._replace(heat_ns=heat)
        duration = self._cost.step_ns(load)
        if self._hosted:
            plan.waited = self._cost.launches(load)
            duration += self._cost.unhidden_ns(load) if plan.unhidden else 0
        if self._limited and self._cost.heats(load):
            self._heat.add(plan.start, duration)
        return duration

    def load(self, plan: Plan, serving: Serving) -> Load:
        """Return the load of a plan: what it computes and moves."""
        decodes, decoding = plan.decodes, serving.decoding
        if self._recomputes or self._window or decodes < len(decoding.members):
            load = self._prefill(plan, decodes) if plan.chunks else Load(samples=decodes)
            load = self._with_decodes(load, serving, decodes, 1) if decodes else load
        elif plan.chunks:
            load = self._prefill(plan, decodes, decodes, serving.context + decodes)
        else:
            load = Load(0, 0, 0, 0, decodes, serving.context + decodes, decodes)
        if self._spares and decodes and (repeated := serving.repeated(decodes)):
            load = load._replace(decode_repeated=repeated)
        if self._spreads and decodes:
            load = load._replace(decode_longest=decoding.longest(decodes) + 1)
        if plan.moves or plan.copied_tokens or plan.swapped_blocks:
            load = load._replace(
                copied_tokens=plan.copied_tokens,
                swapped_bytes=plan.swapped_blocks * self._block_bytes,
                transfers=sum(move.kind is not MoveKind.COPY for move in plan.moves),
            )
        if plan.mappings.mapped or plan.mappings.unmapped:
            load = _with_calls(load, plan.mappings, plan.before)
        return load

    def foresee(self, serving: Serving, steps: int, now: int) -> Foresight:
        """See `Executor.foresee`."""
        hides, unhidden = self._cost.moves.hidden_ns, self._cost.unhidden_ns(Load()) if self._hosted else 0
        waits = partial(self._waits, serving, now)
        warm = partial(self._warm, serving, now) if self._heat.at(now) else None
        return Foresight(self._durations(serving, steps), hides, unhidden, waits, warm)

    def _waits(
        self, serving: Serving, now: int, step: int, start: int, calls: Mappings, before: int
    ) -> tuple[int, int, int]:
        """See `Foresight.waits`."""
        load = self._ahead(_with_calls(Load(heat_ns=self._heat.at(now + start)), calls, before), serving, step)
        return *self._cost.moves.mapping_ns(load), self._cost.step_ns(load)

    def _warm(self, serving: Serving, now: int, step: int, start: int) -> int | None:
        """See `Foresight.warm`."""
        heat = self._heat.at(now + start)
        return self._cost.step_ns(self._ahead(Load(heat_ns=heat), serving, step)) if heat else None

    def _ahead(self, load: Load, serving: Serving, step: int) -> Load:
        """Add all decodes of step number `step` from now."""
        count = len(serving.decoding)
        load = self._with_decodes(load._replace(samples=count), serving, count, step)
        if self._spares:
            load = load._replace(decode_repeated=serving.repeated(count))
        if self._spreads:
            load = load._replace(decode_longest=serving.decoding.longest(count) + step)
        return load

    def _durations(self, serving: Serving, steps: int) -> Ints:
        count, known = len(serving.decoding), serving.context
        repeated = serving.repeated(count) if self._spares else 0  # none of these steps writes into a shared block
        copied = serving.allocator.concatenates
        if not (self._recomputes or self._window):
            if not (repeated or self._spreads):
                return (self._copying if copied else self._remembered).steps(count, known, steps)
            contexts = np.arange(known + count, known + count * steps + 1, count, dtype=np.float64)
            longest = serving.decoding.longest(count) + np.arange(1, steps + 1) if self._spreads else None
            return self._cost.decode_ns(count, contexts, repeated, longest=longest, copied=copied)
        ahead = np.arange(1, steps + 1)
        load = self._with_decodes(Load(samples=count, decode_repeated=repeated), serving, count, ahead)
        if copied:
            return self._cost.leap_ns(load, copied_tokens=known + count * (ahead - 1))
        return self._cost.leap_ns(load)

    def _prefill(self, plan: Plan, decodes: int, seqs: int = 0, attended: int = 0) -> Load:
        """Return the load of a plan's chunks, with the logits of `decodes` sequences and of prompts that end.

        Args:
            plan: the plan.
            decodes: sequences that decode, which need logits.
            seqs: sequences to count as decodes; 0 if they are added later (`_with_decodes`).
            attended: tokens to which these attend.

        """
        chunks: list[Chunk] = plan.chunks
        if self._recomputes:
            chunks = [Chunk(job, 0, start + tokens) for job, start, tokens in chunks]
        samples, computed, pairs, context = decodes, 0, 0, 0
        for job, start, tokens in chunks:
            end = start + tokens
            samples += job.prompt + job.generated == end
            computed += tokens
            pairs += tokens * start + tokens * (tokens + 1) // 2
            context += end
        load = Load(computed, pairs, context, len(chunks), seqs, attended, samples, behind_ns=plan.behind)
        if self._splitting is not None:
            merged = self._splitting.merged((tokens, start) for _, start, tokens in chunks)
            load = load._replace(prefill_merged=merged)
        window = self._window
        if window is None:
            return load
        seen = read = 0
        for _, start, tokens in chunks:
            end = start + tokens
            seen += _window_pairs(end, min(end, window), window) - _window_pairs(start, min(start, window), window)
            read += min(end, window - 1 + tokens)
        return load._replace(window_pairs=seen, window_prefill_context=read)

    def _with_decodes(self, load: Load, serving: Serving, count: int, ahead: Any) -> Load:
        """Add the first `count` decoding sequences to a load.

        Args:
            load: everything else.
            serving: what is served.
            count: sequences that decode.
            ahead: the number of the step, from 1, or an array of such numbers.

        """
        decoding, known = serving.decoding, serving.context
        if self._recomputes or self._window or count < len(decoding):
            lengths = decoding.column(decoding.LENGTH)[:count]
            known = int(lengths.sum())
        context = known + count * ahead
        seen: Any = 0
        if self._window is not None:
            tokens = lengths[:, None] + np.atleast_1d(ahead)
            inside = np.minimum(tokens, self._window)
            pairs = (_window_pairs(tokens, inside, self._window) if self._recomputes else inside).sum(axis=0)
            seen = int(pairs[0]) if isinstance(ahead, int) else pairs
        if self._recomputes:  # all n tokens of each sequence are computed again: n (n + 1) / 2 query-key pairs
            squares = int(lengths @ lengths) + 2 * ahead * known + ahead * ahead * count
            return load._replace(
                prefill_tokens=load.prefill_tokens + context,
                prefill_pairs=load.prefill_pairs + (squares + context) // 2,
                prefill_context=load.prefill_context + context,
                prefill_seqs=load.prefill_seqs + count,
                window_pairs=load.window_pairs + seen,
                window_prefill_context=load.window_prefill_context + (context if self._window is not None else 0),
            )
        return load._replace(decode_seqs=count, decode_context=context, window_decode_context=seen)


def _with_calls(load: Load, calls: Mappings, before: int) -> Load:
    """Add calls for pages, and the nanoseconds of the step before."""
    return load._replace(
        mapped_pages=calls.mapped,
        unmapped_pages=calls.unmapped,
        mapped_ahead=calls.mapped_ahead,
        unmapped_ahead=calls.unmapped_ahead,
        before_ns=before,
    )


def _window_pairs(tokens: Any, inside: Any, window: int) -> Any:
    """Query-key pairs of the first `tokens` tokens if each sees the last `window`; the first `inside` see all."""
    return inside * (inside + 1) // 2 + (tokens - inside) * window
