"""Chats and agent loops: sessions of turns.

The prompt of a later turn is everything before it and something new: a message of the user, or the
result of a tool.  A turn starts some time after the previous one has been answered, while the user
thinks or the tool works.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from workloads.distributions import Quantity
from workloads.lengths import Lengths, tokens
from workloads.requests import Ints, Prefixes
from workloads.sharing import draw_parts
from workloads.spec import Count, Spec
from workloads.units import Scene, Units, demand_few


class Turns(Spec):
    """A chat or an agent loop: every turn's prompt is all that was said before, and something new."""

    kind: Literal["turns"]
    turns: Quantity
    """Number of turns in a session, rounded, at least 1."""
    think_s: Quantity = Field(default=0.0, validate_default=True)
    """Seconds between an answer and the next turn: a person's thinking, a tool's work."""
    later: Lengths | None = None
    """Tokens that later turns add to the prompt and get as output; like those of the first turn if not given."""
    loop: Literal["closed", "open"] = "closed"
    """`closed`: the next turn waits for the answer; `open`: it comes at its nominal time, answer or not."""
    max_tokens: Count | None = None
    """Tokens of prompt and output beyond which a session has no further turn; the engine's max_model_len if not given.
    """
    outgrown: ClassVar[str] = "sessions end early: the next turn would make them longer than"

    def lay_out(self, scene: Scene, units: int) -> Units:
        """Lay out `units` sessions."""
        turns = tokens(self.turns.draw(scene.streams("turns"), units))
        demand_few(int(turns.sum()), "requests.session.turns")
        starts = np.cumsum(turns) - turns
        unit = np.repeat(np.arange(units), turns)
        turn = np.arange(len(unit)) - starts[unit]
        own, output = scene.lengths.draw(scene.streams("lengths"), len(unit))
        if self.later is not None:
            more = self.later.draw(scene.streams("later lengths"), len(unit))
            own, output = np.where(turn == 0, own, more[0]), np.where(turn == 0, output, more[1])
        once = draw_parts([part for part in scene.parts if not part.every_turn], scene.streams("prefixes"), units, 0)
        each = draw_parts(
            [part for part in scene.parts if part.every_turn], scene.streams("turn prefixes"), len(unit), once[2]
        )
        said = each[1].sum(axis=1) + own + output
        history = np.cumsum(said) - said
        prompt = once[1].sum(axis=1)[unit] + history - history[starts[unit]] + said - output

        limit = self.max_tokens or scene.max_model_len
        if limit is not None:
            over = np.where((prompt + output > limit) & (turn > 0), turn, np.iinfo(np.int64).max)
            end = np.minimum.reduceat(over, starts)[unit]
        else:
            end = turns[unit]
        keep = turn < end

        think = self.think_s.draw(scene.streams("think"), len(unit))
        pause = np.concatenate([[0.0], output[:-1] * scene.token_s + think[1:]])
        elapsed = np.cumsum(pause)
        offset = (elapsed - elapsed[starts[unit]])[keep]
        last = ((turn + 1 == end) & (end < turns[unit]))[keep]
        own_ids = (each[2] + 2 * np.arange(len(unit)))[keep]
        own, output, unit, turn, think = own[keep], output[keep], unit[keep], turn[keep], think[keep]
        where = np.arange(len(unit))
        return Units(
            unit,
            offset,
            prompt[keep],
            output,
            np.where((turn == 0) | (self.loop == "open"), -1, where - 1),
            np.where(turn == 0, 0.0, think),
            _tape(once, (each[0][keep], each[1][keep]), own, output, own_ids, unit, turn),
            last,
        )

    def units_for(self, count: int) -> int:
        """Return how many sessions make `count` requests, at a guess."""
        return max(1, count // 8)


def _tape(
    once: tuple[Ints, Ints, int],
    each: tuple[Ints, Ints],
    own: Ints,
    output: Ints,
    own_ids: Ints,
    unit: Ints,
    turn: Ints,
) -> Prefixes:
    """Write down each session's pieces in order; a turn's prompt is the tape from its start to the turn's own words."""
    head, parts = once[0].shape[1], each[0].shape[1]
    width = parts + 2
    units, count = len(once[0]), len(unit)
    base = np.arange(units) * head + np.flatnonzero(turn == 0) * width
    ids, sizes = np.zeros(units * head + count * width, np.int64), np.zeros(units * head + count * width, np.int64)
    lead = base[:, None] + np.arange(head)
    ids[lead], sizes[lead] = once[0], once[1]
    place = base[unit] + head + turn * width
    body = place[:, None] + np.arange(width)
    ids[body] = np.column_stack([each[0], own_ids, own_ids + 1])
    sizes[body] = np.column_stack([each[1], own, output])
    offsets = np.concatenate([[0], np.cumsum(head + turn * width + parts + 1)])
    where = np.repeat(base[unit] - offsets[:-1], np.diff(offsets)) + np.arange(offsets[-1])
    return Prefixes(ids[where], sizes[where], offsets, own_ids + 1)
