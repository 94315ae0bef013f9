"""What prompts have in common: parts drawn from pools.

A system prompt is a pool of one; few-shot prefixes are a pool of a dozen; retrieved documents are a
pool of thousands, from which each prompt draws several.  Popularity follows Zipf's law.  No tokens are
generated: a part is an id and a length (`allocators.content.Segments`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from workloads.distributions import Quantity
from workloads.lengths import tokens
from workloads.requests import Ints
from workloads.spec import NotNegative, Share, Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workloads.requests import Floats


class Part(Spec):
    """One part of a prompt, drawn from a pool of different contents."""

    tokens: Quantity
    """Tokens of each content in the pool."""
    pool: Annotated[int, Field(ge=1, le=10_000_000)] = 1
    """Number of different contents to draw from; 1 means that all prompts have the same."""
    draws: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of different contents in one prompt, in the order in which they are drawn (for RAG, documents retrieved).
    """
    zipf: NotNegative = 0.0
    """How unequal their popularity is: the r-th content is drawn in proportion to r^-zipf; 0 is uniform."""
    share: Share = 1.0
    """Share of the prompts that have this part, 0 to 1."""
    every_turn: bool = False
    """Whether the part is drawn anew for every turn of a session, rather than once at its start."""


def draw_part(part: Part, rng: np.random.Generator, count: int, first_id: int) -> tuple[Ints, Ints]:
    """Draw one part for `count` prompts.

    Returns:
        Content ids and lengths in tokens, int64[count, draws] each; length 0 where a prompt lacks the part.

    """
    sizes, picks, holders = rng.spawn(3)
    pool = tokens(part.tokens.draw(sizes, part.pool))
    which = draw_distinct(picks, count, part)
    lengths = pool[which]
    if part.share < 1:
        lengths[holders.random(count) >= part.share] = 0
    return which + first_id, lengths


def draw_distinct(rng: np.random.Generator, count: int, part: Part) -> Ints:
    """Draw `part.draws` different members of the pool for each prompt, one after the other, by popularity.

    Repeats within a prompt are drawn again, which amounts to drawing without replacement.  If that takes too long
    (because a prompt needs most of a skewed pool), the prompt takes the most popular members that are missing.

    Returns:
        int64[count, draws], or as many columns as the pool has members: numbers from 0.

    """
    take = min(part.draws, part.pool)
    if part.pool == 1:
        return np.zeros((count, take), np.int64)
    weights: Floats = np.arange(1, part.pool + 1, dtype=np.float64) ** -part.zipf
    cumulative = np.cumsum(weights)
    cumulative /= cumulative[-1]  # the last one is then just 1, and what is drawn less
    which: Ints = np.searchsorted(cumulative, rng.random((count, take)), side="right").astype(np.int64)
    for _ in range(64):
        again = _repeats(which)
        if not again.any():
            return which
        which[again] = np.searchsorted(cumulative, rng.random(int(again.sum())), side="right")
    for row in np.flatnonzero(_repeats(which).any(axis=1)):
        kept = list(dict.fromkeys(which[row].tolist()))
        held = set(kept)
        missing = (member for member in range(part.pool) if member not in held)
        which[row] = kept + [next(missing) for _ in range(take - len(kept))]
    return which


def _repeats(which: Ints) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Mark the draws that an earlier draw of the same row has made."""
    order = np.argsort(which, axis=1, kind="stable")
    ordered = np.take_along_axis(which, order, axis=1)
    same = np.zeros(which.shape, bool)
    same[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeats = np.zeros(which.shape, bool)
    np.put_along_axis(repeats, order, same, axis=1)
    return repeats


def draw_parts(parts: Sequence[Part], rng: np.random.Generator, count: int, first_id: int) -> tuple[Ints, Ints, int]:
    """Draw all parts for `count` prompts, in order.

    Returns:
        Ids and lengths, int64[count, k] each, and the first id not used.

    """
    ids, lengths = [np.zeros((count, 0), np.int64)], [np.zeros((count, 0), np.int64)]
    for part, own in zip(parts, rng.spawn(len(parts)), strict=True):
        which, sizes = draw_part(part, own, count, first_id)
        ids.append(which)
        lengths.append(sizes)
        first_id += part.pool
    return np.concatenate(ids, axis=1), np.concatenate(lengths, axis=1), first_id
