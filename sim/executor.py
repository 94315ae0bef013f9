"""Executors: what runs a plan.  In simulation a cost model says how long a step takes.

The engine knows an executor by two verbs.  `run` carries a plan out and says how long it
took.  `foresee` says how long each of the next pure-decode steps would take, so that the
engine may leap over them; an executor that must really run each step cannot say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sim.cost import CostModel, Load

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sim.plan import Plan
    from sim.serving import Serving


class Executor(Protocol):
    """Runs plans."""

    def run(self, plan: Plan, serving: Serving) -> int:
        """Carry out one step and return its duration in nanoseconds, at least 1."""

    def foresee(self, sequences: int, contexts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Nanoseconds of each step in which `sequences` decode over `contexts` tokens in all; None if unknown."""


class Simulated:
    """An executor that asks the cost model."""

    def __init__(self, cost: CostModel, *, recomputes: bool = False, block_tokens: int = 1) -> None:
        """Time steps with `cost`; `recomputes` says that nothing is cached and every token is computed each step."""
        self._cost = cost
        self._recomputes = recomputes
        self._block_tokens = block_tokens

    def run(self, plan: Plan, serving: Serving) -> int:
        """Say how long the plan takes."""
        return self._cost.step_ns(self._load(plan, serving))

    def foresee(self, sequences: int, contexts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Say how long pure-decode steps take; recomputing ones are not leapt over."""
        return None if self._recomputes else self._cost.decode_ns(sequences, contexts)

    def _load(self, plan: Plan, serving: Serving) -> Load:
        tokens = pairs = context = samples = 0
        for job, start, count in plan.chunks:
            done = start + count
            tokens += done if self._recomputes else count
            pairs += done * (done + 1) // 2 if self._recomputes else count * start + count * (count + 1) // 2
            context += done
            samples += done == job.known
        decodes, attended = plan.decodes, 0
        if decodes:
            decoding = serving.decoding
            whole = decodes == len(decoding)
            lengths = decoding.column(decoding.LENGTH)[:decodes]
            attended = (serving.context if whole else int(lengths.sum())) + decodes
            if self._recomputes:
                tokens += attended
                pairs += (int(lengths @ lengths) + 3 * (attended - decodes)) // 2 + decodes
                context += attended
                samples += decodes
                decodes = attended = 0
        return Load(
            prefill_tokens=tokens,
            prefill_pairs=pairs,
            prefill_context=context,
            decode_seqs=decodes,
            decode_context=attended,
            samples=samples + decodes,
            copied_tokens=plan.copied_tokens,
            swapped_tokens=plan.swapped_blocks * self._block_tokens,
        )
