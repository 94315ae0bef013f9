"""Putting the requests of several parts into one order of arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from workloads.requests import Prefixes, Requests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workloads.requests import Floats, Ints

    Numbers = TypeVar("Numbers", Ints, Floats)


def merge(parts: Mapping[str, Requests]) -> Requests:
    """Merge the requests of parts by arrival; of those that arrive at once, the earlier part's come first.

    Within a part the order stays, so that each still follows an earlier one.  No content of a part is in another.

    Args:
        parts: at least one, by name.

    """
    made = list(parts.values())
    sizes = [len(one) for one in made]
    starts = (np.cumsum(sizes) - sizes).tolist()
    arrival = np.concatenate([one.arrival_s for one in made])
    order = np.argsort(arrival, kind="stable")
    place = np.empty(len(order) + 1, np.int64)
    place[order] = np.arange(len(order))
    place[-1] = -1  # of the request that one which follows none does follow
    linked = any(len(one.after) for one in made)
    sampled = any(len(one.samples) for one in made)
    prefixes = _joined(made)
    return Requests(
        arrival_s=arrival[order],
        prompt_tokens=np.concatenate([one.prompt_tokens for one in made])[order],
        output_tokens=np.concatenate([one.output_tokens for one in made])[order],
        samples=np.concatenate([_or(one.samples, 1, len(one)) for one in made])[order] if sampled else made[0].samples,
        beam=any(one.beam for one in made),
        prefixes=None if prefixes is None else prefixes.take(order),
        after=place[_links(made, starts)[order]] if linked else made[0].after,
        delay_s=np.concatenate([_or(one.delay_s, 0, len(one)) for one in made])[order] if linked else made[0].delay_s,
        part=np.repeat(np.arange(len(made), dtype=np.int8), sizes)[order],
        parts=tuple(parts),
        notes=[f"{name}: {note}" for name, one in parts.items() for note in one.notes],
    )


def _or(column: Numbers, value: float, count: int) -> Numbers:
    """Return a column, or if it is empty what that stands for."""
    return column if len(column) else np.full(count, value, column.dtype)


def _links(made: Sequence[Requests], starts: Sequence[int]) -> Ints:
    """Return of each request, part after part, the one that it follows, counted likewise; -1 if none."""
    links = [_or(one.after, -1, len(one)) for one in made]
    return np.concatenate([np.where(link < 0, -1, link + start) for link, start in zip(links, starts, strict=True)])


def _joined(made: Sequence[Requests]) -> Prefixes | None:
    """Return what all prompts are made of, part after part, with ids of its own for each part; None if none says."""
    if all(one.prefixes is None for one in made):
        return None
    ids, lengths, counts, outputs, free = [], [], [], [], 0
    for one in filter(len, made):
        pieces = one.prefixes or _alone(one)
        least = min(int(pieces.ids.min()), int(pieces.outputs.min()))
        ids.append(pieces.ids + (free - least))
        outputs.append(pieces.outputs + (free - least))
        lengths.append(pieces.lengths)
        counts.append(np.diff(pieces.offsets))
        free = 1 + max(int(ids[-1].max()), int(outputs[-1].max()))
    return Prefixes(
        np.concatenate(ids),
        np.concatenate(lengths),
        np.concatenate([[0], np.cumsum(np.concatenate(counts))]),
        np.concatenate(outputs),
    )


def _alone(one: Requests) -> Prefixes:
    """Say of prompts that have nothing in common what they are made of: a content each."""
    own = np.arange(len(one))
    return Prefixes(2 * own, one.prompt_tokens, np.arange(len(one) + 1), 2 * own + 1)
