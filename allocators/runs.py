"""Runs of pages: consecutive full blocks of a content, whose keys are computed only when somebody needs them.

The groups of layers of a model keep the same tokens in blocks of their own, so a block's key in a group follows from
the key that stands for its tokens (`allocators.content`).
"""

from __future__ import annotations

from typing import NamedTuple

from allocators.content import Content


def key_in(group: int, key: int) -> int:
    """Return the key of a block in one group of layers, all of which keep the same tokens under keys of their own."""
    return hash((key, group)) or 1 if group else key


def keys_in(group: int, keys: list[int]) -> list[int]:
    """Do `key_in` for each of some keys."""
    return [hash((key, group)) or 1 for key in keys] if group else keys


class Run(NamedTuple):
    """Full blocks (pages) `[start, stop)` of a content, whose keys are computed only when they are needed."""

    content: Content
    size: int
    """Tokens a page."""
    start: int
    """The first page, counted from the beginning of the content."""
    stop: int
    """The page after the last."""
    group: int = 0
    """The group of layers to which they belong (see `keys_in`)."""

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return self.stop - self.start

    @property
    def keys(self) -> list[int]:
        """Their keys."""
        if self.pages == 1:
            return [self.key(0)]
        return keys_in(self.group, self.content.keys(self.size, self.stop)[self.start : self.stop])

    def key(self, place: int) -> int:
        """Return the key of one of them."""
        return key_in(self.group, self.content.key(self.size, self.start + place))

    def common(self, other: Run) -> int:
        """Count the pages that are the same as those of `other`, which begins in the same place; by bisection."""
        most = min(self.pages, other.pages)
        if self.content is other.content:
            return most
        upto = self.start + most
        mine, theirs = self.content.keys(self.size, upto), other.content.keys(self.size, upto)
        alike, unlike, place = self.start, upto + 1, upto
        while unlike - alike > 1:  # a key stands for all before it
            if mine[place - 1] == theirs[place - 1]:
                alike = place
            else:
                unlike = place
            place = (alike + unlike) // 2
        return alike - self.start
