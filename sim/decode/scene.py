"""Scenes: single steps to be set up and timed on a stage (`sim.decode.stage`), and how often each is repeated."""

from __future__ import annotations

from typing import NamedTuple


class Scene(NamedTuple):
    """One kind of step."""

    name: str
    decodes: tuple[int, ...] = ()
    """Tokens in the cache of each sequence that decodes."""
    chunks: tuple[tuple[int, int], ...] = ()
    """(tokens in the cache, tokens to compute) of each prefill."""
    behind: int = 0
    """Steps of the same decodes alone that come before each repeat, as most prefills do in service: the host is at
    work on it behind the last of them, and a GPU's clock does not fall as it does under one prefill after another."""
    row: int = 1
    """How often the step itself is run in a row; the last one counts.  A GPU's clock may fall meanwhile, so that there
    is a pause before each row."""
    out: int = 0
    """Blocks swapped out before the step."""
    back: int = 0
    """Blocks swapped in."""
    alike: int = 1
    """How many of the sequences that decode, all of one length, are samples of one request ..."""
    shared: int = 0
    """... and hold the same blocks for so many tokens of its prompt."""

    @property
    def longer(self) -> int:
        """Tokens by which the sequences that decode have grown in the end, at most."""
        return (Patience().warmup + Patience().most) * len(self.order)

    @property
    def order(self) -> str:
        """The steps of one repeat, of which the last counts: `p` for one with the chunks, `d` for decodes alone."""
        return "d" * self.behind + ("p" if self.chunks else "d") * self.row

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of every sequence at the start of the step, those to be computed included."""
        return (*self.decodes, *(start + tokens for start, tokens in self.chunks))


class Patience(NamedTuple):
    """How often a step is repeated."""

    warmup: int = 3
    most: int = 15
    seconds: float = 1.0
    """After which no further repeat is made, if there are at least `least`."""
    least: int = 3
