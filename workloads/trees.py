"""Trees of thought: many short requests that share long prefixes.

From each state several thoughts are sampled; all thoughts of a level are evaluated, the best are
kept as states, and the next level starts from them (Yao et al. 2023, breadth first).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from workloads.distributions import Quantity
from workloads.requests import Floats, Ints, Prefixes
from workloads.sharing import draw_parts
from workloads.spec import Spec
from workloads.units import Scene, Units, demand_few


class Level(NamedTuple):
    """One level of all trees; arrays are [trees, thoughts] or [trees, thoughts, pieces]."""

    ids: Ints
    """Content ids of each thought's prompt."""
    sizes: Ints
    """... and their lengths in tokens."""
    begun_s: Floats
    """When the level starts, from the start of the tree, at the nominal pace."""
    after: Ints
    """The thought of the level before that it waits for; -1 in the first level."""
    pause_s: Floats
    """Time between that thought's end and this level."""


class Tree(Spec):
    """A tree of thoughts, breadth first: from each kept state several thoughts, of all of them the best are kept."""

    kind: Literal["tree"]
    depth: Annotated[int, Field(ge=1, le=100)]
    """Number of levels of the tree."""
    branches: Annotated[int, Field(ge=1, le=1000)]
    """Number of thoughts sampled from each kept state; they share its whole prompt."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of states kept after each level (picked at random here, by a judge in reality)."""
    think_s: Quantity = Field(default=0.0, validate_default=True)
    """Seconds that judging a level takes."""
    loop: Literal["closed", "open"] = "closed"
    """`closed`: a level starts when the longest thought of the level before ends; `open`: at its nominal time."""

    @property
    def size(self) -> int:
        """Requests in one tree."""
        kept, size = 1, 0
        for _ in range(self.depth):
            size += kept * self.branches
            kept = min(self.keep, kept * self.branches)
        return size

    def units_for(self, count: int) -> int:
        """Return how many trees make `count` requests."""
        return math.ceil(count / self.size)

    def lay_out(self, scene: Scene, units: int) -> Units:
        """Lay out `units` trees, each level by level."""
        size, tree = self.size, np.arange(units)
        demand_few(units * size, "requests.session")
        ids, sizes, free = draw_parts(scene.parts, scene.streams("prefixes"), units, 0)
        question, output = (
            side.reshape(units, size) for side in scene.lengths.draw(scene.streams("lengths"), units * size)
        )
        outputs = (free + units + np.arange(units * size)).reshape(units, size)
        think = self.think_s.draw(scene.streams("think"), units * self.depth).reshape(units, self.depth)
        judge = scene.streams("judge")
        # Pieces of the states that thoughts start from: [trees, states, pieces].
        state_ids = np.column_stack([ids, free + tree])[:, None, :]
        state_sizes = np.column_stack([sizes, question[:, 0]])[:, None, :]
        levels: list[Level] = []
        start, begun, slowest = 0, np.zeros(units), np.full(units, -1)
        for depth in range(self.depth):
            parents = np.repeat(np.arange(state_ids.shape[1]), self.branches)
            nodes = len(parents)
            pause = think[:, depth] if depth else np.zeros(units)
            begun = begun + pause
            level = Level(
                state_ids[:, parents],
                state_sizes[:, parents],
                *(np.repeat(column[:, None], nodes, axis=1) for column in (begun, slowest, pause)),
            )
            levels.append(level)
            here = output[:, start : start + nodes]
            slowest = tree * size + start + here.argmax(axis=1)
            begun = begun + here.max(axis=1) * scene.token_s
            kept = np.sort(np.argsort(judge.random((units, nodes)), axis=1)[:, : self.keep], axis=1)
            rows, thoughts = tree[:, None], start + kept
            state_ids = np.concatenate([level.ids[rows, kept], outputs[rows, thoughts][:, :, None]], axis=2)
            state_sizes = np.concatenate([level.sizes[rows, kept], output[rows, thoughts][:, :, None]], axis=2)
            start += nodes
        after = np.concatenate([level.after for level in levels], axis=1).ravel()
        pieces = np.concatenate([np.full(level.ids.shape[1], level.ids.shape[2]) for level in levels])
        return Units(
            np.repeat(tree, size),
            np.concatenate([level.begun_s for level in levels], axis=1).ravel(),
            np.concatenate([level.sizes.sum(axis=2) for level in levels], axis=1).ravel(),
            output.ravel(),
            np.full(len(after), -1) if self.loop == "open" else after,
            np.concatenate([level.pause_s for level in levels], axis=1).ravel(),
            Prefixes(
                np.concatenate([level.ids.reshape(units, -1) for level in levels], axis=1).ravel(),
                np.concatenate([level.sizes.reshape(units, -1) for level in levels], axis=1).ravel(),
                np.concatenate([[0], np.cumsum(np.tile(pieces, units))]),
                outputs.ravel(),
            ),
        )
