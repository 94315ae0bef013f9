"""Replaying: how long a captured step takes of the load that it runs.

What was measured (`sim.costs.captured`) is corrected for decodes that read blocks of another size, for shared blocks
that the cache serves, and for chunks that attend to more than their own tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from sim.costs.attention import Attention
    from sim.costs.captured import CapturedSteps
    from sim.costs.load import Load

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]


class Replay:
    """The captured steps of a model as it serves; without moves of memory, waiting and the power limit."""

    def __init__(self, steps: CapturedSteps, attention: Attention, *, slower: float, cached: float) -> None:
        """Correct what was measured.

        Args:
            steps: what was measured.
            attention: the roofline's, for what chunks attend to before their own tokens.
            slower: factor by which decodes take longer to read K/V than those that were measured.
            cached: share of what is read again that comes from the cache.

        """
        self.steps = steps
        self._attention = attention
        self._slower = slower
        self._cached = cached

    def seconds(self, load: Load) -> float | None:
        """Return the seconds of a step; None if it is not captured."""
        decodes, context, tokens = load.decode_seqs, load.decode_context, load.prefill_tokens
        if load.decode_repeated:
            context -= load.decode_repeated * self._cached
        if not tokens:
            curve = self.steps.decoding(decodes)
            return None if curve is None else curve.at(context, load.decode_longest, self._slower)
        chunks, earlier = max(1, load.prefill_seqs), load.prefill_context - tokens
        before = tokens * earlier / chunks  # pairs with what comes before the chunks; all are taken to be alike
        seconds = self.steps.mixed(
            decodes,
            context,
            tokens,
            chunks,
            pairs=load.prefill_pairs - before,
            merged=load.prefill_merged,
            longest=load.decode_longest,
            slower=self._slower,
        )
        if seconds is not None and earlier:
            seconds += self.steps.behind_s + self._attention.earlier(before, earlier)
        return seconds

    def decodes(self, seqs: int, contexts: Floats, repeated: int, longest: Ints | None) -> Floats | None:
        """Return float64[n], the seconds of each of several steps of decodes alone; None if they are not captured.

        The arguments are those of `CostModel.decode_ns`.
        """
        curve = self.steps.decoding(seqs)
        if curve is None:
            return None
        return curve.at_each(contexts - repeated * self._cached if repeated else contexts, longest, self._slower)
