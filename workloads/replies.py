"""Requests that may each continue an earlier one: the form in which the sharing in a trace is fitted.

A trace shows a window of time: sessions have begun before it and continue after it, so turns per session
and pauses cannot be estimated from it without bias.  What can be estimated is how often a request continues
an earlier one, and how many requests lie between them, which is what matters to a cache.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from workloads.distributions import Quantity
from workloads.lengths import Lengths, tokens
from workloads.requests import Prefixes
from workloads.sharing import draw_parts
from workloads.spec import Count, Share, Spec
from workloads.units import Scene, Units


class Replies(Spec):
    """Each request, with some probability, repeats an earlier one's prompt and answer and adds to them."""

    kind: Literal["replies"]
    share: Share
    """Share of the requests, 0 to 1, that continue an earlier one (where there is one so far back)."""
    back: Quantity
    """How many requests back the continued one is, rounded, at least 1."""
    kept: Quantity = Field(default=1.0, validate_default=True)
    """Share of the earlier prompt that is repeated; from 1 on, all of it and its answer too."""
    later: Lengths | None = None
    """Tokens that such a request adds to the prompt and gets as output; like those of the others if not given."""
    max_tokens: Count | None = None
    """Tokens of prompt and output beyond which a request starts anew; the engine's max_model_len if not given."""
    outgrown: ClassVar[str] = "requests start a new conversation: the old one would become longer than"
    loop: Literal["open"] = "open"
    """`open`: requests come at their own times, whatever the engine does."""

    def units_for(self, count: int) -> int:
        """Return how many units make `count` requests."""
        return count

    def lay_out(self, scene: Scene, units: int) -> Units:
        """Lay out `units` requests in order of arrival."""
        own, output = scene.lengths.draw(scene.streams("lengths"), units)
        more = (own, output) if self.later is None else self.later.draw(scene.streams("later lengths"), units)
        ids, sizes, free = draw_parts(scene.parts, scene.streams("prefixes"), units, 0)
        parent = np.arange(units) - tokens(self.back.draw(scene.streams("back"), units))
        parent[scene.streams("continues").random(units) >= self.share] = -1
        kept = self.kept.draw(scene.streams("kept"), units).tolist()
        limit = self.max_tokens or scene.max_model_len or np.iinfo(np.int64).max
        head_ids, head_sizes = ids.tolist(), sizes.tolist()
        first, later = (own.tolist(), output.tolist()), (more[0].tolist(), more[1].tolist())
        prompts: list[int] = []
        answers: list[int] = []
        pieces: list[list[tuple[int, int]]] = []
        outgrown = np.zeros(units, np.bool_)
        for request, before in enumerate(parent.tolist()):
            said: list[tuple[int, int]] = []
            if before >= 0:
                said = [*pieces[before], (free + 2 * before + 1, answers[before])]
                if kept[request] < 1:
                    said = _first(said, round(kept[request] * prompts[before]))
                said = [*said, (free + 2 * request, later[0][request])]
                outgrown[request] = sum(size for _, size in said) + later[1][request] > limit
            if not said or outgrown[request]:
                head = zip(head_ids[request], head_sizes[request], strict=True)
                said = [*head, (free + 2 * request, first[0][request])]
                answers.append(first[1][request])
            else:
                answers.append(later[1][request])
            pieces.append(said)
            prompts.append(sum(size for _, size in said))
        where, rest = np.arange(units), np.zeros(units)
        return Units(
            where,
            rest,
            np.array(prompts, np.int64),
            np.array(answers, np.int64),
            np.full(units, -1),
            rest,
            Prefixes.of(pieces, free + 2 * where + 1),
            outgrown,
        )


def _first(pieces: list[tuple[int, int]], tokens: int) -> list[tuple[int, int]]:
    """Return the pieces that cover the first `tokens` tokens."""
    found = []
    for name, size in pieces:
        if tokens <= 0:
            break
        found.append((name, min(size, tokens)))
        tokens -= size
    return found
