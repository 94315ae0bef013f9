"""Fitting what prompts share: a common beginning, and sessions.

A request is taken to continue another one if it shares more with it than most prompts have in common: the
latest of those requests with which it shares most.  Its own part is what it adds to that one's prompt and answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from workloads.requests import Floats, Ints, Prefixes, Requests

MOST_PROMPTS = 0.5
"""A beginning is common if this share of the prompts has it."""


@dataclass(frozen=True)
class Sharing:
    """Who shares what with whom."""

    common: int
    """Tokens that most prompts begin with."""
    common_share: float
    """Share of the prompts that do."""
    parent: Ints
    """int64[n]: the request that each continues, or -1."""
    kept: Floats
    """float64[n]: share of the parent's prompt that each repeats; 1 is all of it and the answer too."""
    own: Ints
    """int64[n]: prompt tokens that are neither common nor said before, at least 1."""

    @property
    def roots(self) -> Ints:
        """Requests that begin a session (or are one)."""
        return np.flatnonzero(self.parent < 0)

    @property
    def later(self) -> Ints:
        """Requests that continue one."""
        return np.flatnonzero(self.parent >= 0)


def fit_sharing(requests: Requests) -> Sharing:
    """Find the common beginning and the sessions of requests in order of arrival."""
    count = len(requests)
    prompt, output = requests.prompt_tokens, requests.output_tokens
    if requests.prefixes is None:
        return Sharing(0, 0.0, np.full(count, -1), np.ones(count), prompt)
    paths, tokens_at = tree(requests.prefixes)
    common, has = _common(paths, tokens_at, count)
    parent, kept = np.full(count, -1), np.ones(count)
    said = np.where(has, common, 0)
    owner: dict[int, int] = {}
    for request, path in enumerate(paths):
        deepest = next((node for node in reversed(path) if node in owner), 0)
        if tokens_at[deepest] > common:
            before = parent[request] = owner[deepest]
            # A trace's last block is seldom full, and then has another id when the session goes on.  Who has no
            # room for the whole prompt and its answer repeats its beginning only, however few blocks it is.
            whole = deepest in paths[before][-2:] and prompt[request] >= prompt[before] + output[before]
            kept[request] = 1.0 if whole else tokens_at[deepest] / prompt[before]
            said[request] = prompt[before] + output[before] if whole else tokens_at[deepest]
        for node in path:
            owner[node] = request
    return Sharing(common, float(has.mean()), parent, kept, np.maximum(prompt - said, 1))


def tree(prefixes: Prefixes) -> tuple[list[list[int]], list[int]]:
    """Return the nodes of each prompt in the tree of pieces, and each node's depth in tokens; 0 is the root."""
    names, lengths = prefixes.ids.tolist(), prefixes.lengths.tolist()
    children: dict[tuple[int, int, int], int] = {}
    depth = [0]
    paths: list[list[int]] = []
    for start, stop in pairwise(prefixes.offsets.tolist()):
        node, path = 0, []
        for piece in range(start, stop):
            key = (node, names[piece], lengths[piece])
            if key not in children:
                children[key] = len(depth)
                depth.append(depth[node] + lengths[piece])
            node = children[key]
            path.append(node)
        paths.append(path)
    return paths, depth


def _common(
    paths: list[list[int]], depth: list[int], count: int
) -> tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """Return the tokens of the longest beginning that most prompts have, and which ones have it."""
    visits = np.zeros(len(depth), np.int64)
    for path in paths:
        visits[path] += 1
    usual = [node for node in range(1, len(depth)) if visits[node] >= max(2, MOST_PROMPTS * count)]
    if not usual:
        return 0, np.zeros(count, bool)
    last = max(usual, key=lambda node: depth[node])
    return depth[last], np.array([last in path for path in paths])
