"""Telling applications apart: requests whose prompts begin with one of several common texts.

Each application of an engine has a system prompt and tools of its own, and mostly its own lengths, conversations
and rate, too.  In the tree of prompts its beginning is a node from which many conversations part ways; those of one
conversation do not, as each of its turns goes on where the one before ended.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from workloads.fit_sharing import tree

if TYPE_CHECKING:
    from workloads.requests import Ints, Prefixes, Requests

WAYS = 10
"""Different ways in which prompts go on after the beginning of an application, at least."""
LEAST, LEAST_SHARE = 200, 0.1
"""Requests of an application, and its share of all, at least: fewer are too few to fit a generator to."""
OTHERS = "others"
"""What requests are called that are of no application."""


def applications(requests: Requests) -> dict[str, Ints]:
    """Return by name the places of the requests of each application, that with most first, and of the others.

    Where there is one application only, or none, all requests are one.
    """
    count = len(requests)
    if requests.prefixes is None:
        return {_name(1): np.arange(count)}
    begun, depth = _beginnings(requests.prefixes)
    members: dict[int, list[int]] = defaultdict(list)
    for request, path in enumerate(begun):
        members[path[-1]].append(request)
    least = max(LEAST, LEAST_SHARE * count)
    for node in sorted({node for path in begun for node in path}, key=lambda node: -depth[node]):
        if node and len(members[node]) < least:  # they count for what their beginning begins with
            for request in members.pop(node):
                begun[request].pop()
                members[begun[request][-1]].append(request)
    others = members.pop(0, [])
    found = sorted(members.values(), key=len, reverse=True)
    if found and len(others) < least:
        found[0], others = found[0] + others, []
    named = {_name(number): some for number, some in enumerate(found, start=1)} | ({OTHERS: others} if others else {})
    return {name: np.sort(np.array(some, np.int64)) for name, some in named.items()}


def _name(number: int) -> str:
    return f"application {number}"


def _beginnings(prefixes: Prefixes) -> tuple[list[list[int]], list[int]]:
    """Return, of each prompt, the nodes of the tree that may be an application's beginning, and each node's tokens.

    The first is the root, with which all begin.
    """
    paths, depth = tree(prefixes)
    ways: list[set[int]] = [set() for _ in depth]
    for request, path in enumerate(paths):
        for node, after in zip(path, [*path[1:], -1 - request], strict=True):
            ways[node].add(after)
    return [[0, *(node for node in path if len(ways[node]) >= WAYS)] for path in paths], depth
