"""Virtual ranges: where each group of physical pages is mapped, and how many calls to the driver that has taken.

A group is unmapped, or in the range of a row, which has reached it or has it ahead, or in an idle range, which belonged
to a sequence that has ended.  When a row needs a group that it does not have ahead, one that is unmapped is mapped; if
there is none, one is unmapped first, from an idle range or else from what another row has ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from allocators.answers import NO_MAPPINGS, Mappings
from allocators.compiled import mypyc_attr
from allocators.errors import CorruptionError


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Ranges:
    """Groups 1 to `groups`, by where they are mapped.  Those that rows have reached are listed in the block table."""

    def __init__(self, groups: int, pages: int, *, deferred: bool, overlap: bool) -> None:
        """Map nothing yet.

        Args:
            groups: that can be mapped.
            pages: of a group, each of which takes a call.
            deferred: whether a range keeps its groups when its sequence ends.
            overlap: whether groups that decodes reach are mapped while the step before runs.

        """
        self.groups, self._pages, self._deferred, self._overlap = groups, pages, deferred, overlap
        self.unmapped = list(range(groups, 0, -1))
        """Groups that are not mapped anywhere; the last is taken next."""
        self.ahead: dict[int, list[int]] = {}
        """By row: groups in its range that it has not reached yet, if there are any; the last is reached next."""
        self.idle: list[list[int]] = []
        """The groups of ranges without a sequence, the oldest range first; its last group lies lowest in the range."""
        self.calls = NO_MAPPINGS
        """Calls so far."""

    def open(self, row: int, need: int) -> None:
        """Give a row the smallest idle range of at least `need` groups, else the largest; the newest of equal ones."""
        idle = self.idle
        if idle:
            best = min(reversed(range(len(idle))), key=lambda at: (len(idle[at]) < need, abs(len(idle[at]) - need)))
            self.ahead[row] = idle.pop(best)

    def reach(self, row: int, count: int, *, decoding: bool) -> list[int]:
        """Let a row reach `count` further groups, and return them.

        Args:
            row: of the table.
            count: groups; so many must be free of what rows have reached.
            decoding: whether they could be mapped while the step before ran, because the row decodes.

        """
        reached = [self._next_ahead(row) for _ in range(min(count, len(self.ahead.get(row, ()))))]
        if count > len(reached):
            missing = count - len(reached)
            short = max(0, missing - len(self.unmapped))
            for _ in range(short):
                self._unmap()
            self._count(missing, short, ahead=decoding and self._overlap)
            reached += [self.unmapped.pop() for _ in range(missing)]
        return reached

    def reach_one_each(self, rows: Sequence[int]) -> list[int]:
        """Let rows that decode reach one further group each, and return these."""
        reached: list[int] = []
        mapped = unmapped = 0
        for row in rows:
            if row in self.ahead:
                reached.append(self._next_ahead(row))
                continue
            mapped += 1
            if not self.unmapped:
                unmapped += 1
                self._unmap()
            reached.append(self.unmapped.pop())
        if mapped:
            self._count(mapped, unmapped, ahead=self._overlap)
        return reached

    def foresee(self, rows: Sequence[int]) -> Mappings | None:
        """Return the calls that `reach_one_each` would make; None if ranges in use would have to give up groups."""
        groups = 0
        for row in rows:
            groups += row not in self.ahead
        if not groups:
            return NO_MAPPINGS
        short = max(0, groups - len(self.unmapped))
        if short and short > sum(map(len, self.idle)):
            return None
        mapped, unmapped = groups * self._pages, short * self._pages
        return Mappings(mapped, unmapped, mapped * self._overlap, unmapped * self._overlap)

    def close(self, row: int, reached: list[int]) -> None:
        """Take back the range of a row that has reached these groups, in order: it stays as it is, or is unmapped."""
        groups = self.ahead.pop(row, []) + reached[::-1]
        if self._deferred:
            self.idle.append(groups)
        else:
            self.unmapped += groups
            self._count(0, len(groups), ahead=self._overlap)

    def _next_ahead(self, row: int) -> int:
        """Take the group that a row reaches next, if it is in its range already."""
        there = self.ahead[row]
        group = there.pop()
        if not there:
            del self.ahead[row]
        return group

    def _unmap(self) -> None:
        """Unmap a group: at the end of the oldest idle range, else of the oldest one that has any ahead."""
        if self.idle:
            source = self.idle[0]
            self.unmapped.append(source.pop(0))
            if not source:
                del self.idle[0]
            return
        row, source = next(iter(self.ahead.items()))
        self.unmapped.append(source.pop(0))
        if not source:
            del self.ahead[row]

    def _count(self, mapped: int, unmapped: int, *, ahead: bool) -> None:
        """Count the pages of groups that are mapped and unmapped, possibly ahead of the step that needs them."""
        so_far, mapped, unmapped = self.calls, mapped * self._pages, unmapped * self._pages
        self.calls = Mappings(
            so_far.mapped + mapped,
            so_far.unmapped + unmapped,
            so_far.mapped_ahead + mapped * ahead,
            so_far.unmapped_ahead + unmapped * ahead,
        )

    def check(self, reached: Iterable[list[int]]) -> None:
        """Raise `CorruptionError` unless every group is in one place and the calls are those that this has taken.

        Args:
            reached: by row, the groups that it has reached.

        """
        places = [self.unmapped, *self.ahead.values(), *self.idle, *reached]
        if sorted(group for place in places for group in place) != list(range(1, self.groups + 1)):
            raise CorruptionError("page groups are lost, or in two places")
        if not all(self.idle) or not all(self.ahead.values()):
            raise CorruptionError("a range is listed for groups that it does not have")
        mapped = (self.groups - len(self.unmapped)) * self._pages
        if mapped != self.calls.mapped - self.calls.unmapped:
            raise CorruptionError(f"{mapped} pages are mapped, {self.calls} counted")
