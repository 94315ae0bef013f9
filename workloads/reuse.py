"""How many prompt tokens of a workload would be found in a prefix cache that has room for everything.

This is an upper bound for every allocator: prompts are entered when they arrive.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workloads.requests import Ints, Prefixes, Requests


def ideal_hits(requests: Requests, *, outputs: bool = False) -> Ints:
    """Count each prompt's tokens that earlier prompts began with too: the hits of an infinite cache.

    A prompt shares with earlier ones up to the first token that none of them has there.

    Args:
        requests: in order of arrival.
        outputs: whether answers stay cached too, behind their prompts, so that a later turn hits them
            (each is taken to be complete when the next request arrives).

    Returns:
        int64[n], tokens.

    """
    hits = np.zeros(len(requests), np.int64)
    if requests.prefixes is None:
        return hits
    # A tree of pieces: a child is keyed by (node, id, length); `longest` is how far an id has been seen at a node.
    children: dict[tuple[int, int, int], int] = {}
    longest: dict[tuple[int, int], int] = {}
    answers, lengths = requests.prefixes.outputs.tolist(), requests.output_tokens.tolist()
    for request, pieces in enumerate(_pieces(requests.prefixes)):
        node, hit = 0, 0
        for name, length in pieces:
            seen = longest.get((node, name), 0)
            hit += min(length, seen)  # if some of it is new, so is the node behind it, where nothing has been seen
            if length > seen:
                longest[node, name] = length
            node = children.setdefault((node, name, length), len(children) + 1)
        hits[request] = hit
        if outputs:
            name, length = answers[request], lengths[request]
            longest[node, name] = max(length, longest.get((node, name), 0))
            children.setdefault((node, name, length), len(children) + 1)
    return hits


def _pieces(prefixes: Prefixes) -> Iterator[zip[tuple[int, int]]]:
    """Yield the pieces (id, tokens) of each prompt."""
    ids, lengths, offsets = prefixes.ids.tolist(), prefixes.lengths.tolist(), prefixes.offsets.tolist()
    for start, stop in pairwise(offsets):
        yield zip(ids[start:stop], lengths[start:stop], strict=True)
