"""A paged allocator as plainly as it can be said: lists, no arrays, no counters, no hashes.

Blocks are pages.  A page lies on the device, on the host, or on both; sequences are lists of
pages.  The key of a full page is literally every token before its end.  What the real
allocator keeps in counters is counted here from scratch each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

_ages = count()


@dataclass(eq=False)
class Page:
    """K/V of up to a block of tokens, in a device block, a host block or both (0: neither)."""

    device: int = 0
    host: int = 0


@dataclass(eq=False)
class Sequence:
    """Its pages in logical order, None where a window has left one behind, and the tokens they hold."""

    pages: list[Page | None]
    tokens: list[int]
    root: int
    keyed: bool
    """Whether its full pages enter the cache."""


@dataclass
class Model:
    """The pool."""

    num_blocks: int
    size: int
    longest: int
    caching: bool
    window: int | None
    host_blocks: int
    queue: list[int] = field(default_factory=list)
    host_queue: list[int] = field(default_factory=list)
    keys: dict[int, tuple[int, ...]] = field(default_factory=dict)
    ages: dict[int, int] = field(default_factory=dict)
    """When each key was given, for who is the oldest."""
    running: list[Sequence] = field(default_factory=list)
    swapped: list[Sequence] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with every block free."""
        self.caching = self.caching and self.window != 1  # a token that reads itself alone can reuse nothing
        self.queue = list(range(1, self.num_blocks + 1))
        self.host_queue = list(range(1, self.host_blocks + 1))

    # -- what is where ---------------------------------------------------------------------

    def holders(self, page: Page) -> int:
        """Running sequences that hold a page."""
        return sum(page in sequence.pages for sequence in self.running)

    def host_holders(self, page: Page) -> int:
        """Swapped sequences that hold a page."""
        return sum(page in sequence.pages for sequence in self.swapped)

    def blocks(self, sequence: Sequence) -> list[int]:
        """A row of the block table."""
        side = "device" if sequence in self.running else "host"
        return [0 if page is None else getattr(page, side) for page in sequence.pages]

    def pages(self) -> list[Page]:
        """Pages that some running sequence holds."""
        return list({id(page): page for seq in self.running for page in seq.pages if page}.values())

    def fill(self, page: Page) -> int:
        """Tokens in a page that a running sequence holds."""
        sequence = next(sequence for sequence in self.running if page in sequence.pages)
        return min(self.size, len(sequence.tokens) - sequence.pages.index(page) * self.size)

    def usage(self) -> tuple[int, ...]:
        """Held, cached, rounding, saved, dropped, swapped, states."""
        saved = sum((self.holders(page) - 1) * self.fill(page) for page in self.pages())
        dropped = sum(seq.pages.count(None) for seq in self.running) * self.size
        on_host = {page.host for seq in self.swapped for page in seq.pages if page}
        cached = sum(block in self.keys for block in self.queue)
        return (
            len(self.pages()) * self.size,
            cached * self.size,
            0,
            saved,
            dropped,
            len(on_host) * self.size,
            0,
        )

    # -- taking and giving back ------------------------------------------------------------

    def take(self) -> Page:
        """Take the first free block, evicting what it caches."""
        block = self.queue.pop(0)
        self.keys.pop(block, None)
        return Page(block)

    def leave(self, pages: list[Page]) -> None:
        """Put pages that nobody holds any more back in the queue, in the order of their release."""
        front: list[int] = []
        for page in pages:
            if self.holders(page):
                continue
            if page.device in self.keys:
                self.queue.append(page.device)
            else:
                front.append(page.device)
            page.device = 0
        self.queue[:0] = front

    def name(self, sequence: Sequence, before: int) -> None:
        """Give keys to the pages that became full since the sequence had `before` tokens."""
        if not self.caching or not sequence.keyed:
            return
        for index in range(before // self.size, len(sequence.tokens) // self.size):
            page = sequence.pages[index]
            assert page is not None
            self.keys[page.device] = (sequence.root, *sequence.tokens[: (index + 1) * self.size])
            self.ages[page.device] = next(_ages)

    # -- verbs -----------------------------------------------------------------------------

    def lookup(self, tokens: list[int], root: int) -> list[int]:
        """Blocks of the longest cached prefix that does not cover the last token."""
        found: list[int] = []
        for end in range(self.size, len(tokens), self.size):
            same = [block for block, key in self.keys.items() if key == (root, *tokens[:end])]
            found.append(min(same, key=self.ages.__getitem__) if same else 0)
        if not self.caching:
            return []
        if self.window is not None:
            reach = -(-(self.window - 1) // self.size)
            for end in range(len(found), reach - 1, -1):
                if all(found[end - reach : end]):
                    return [0] * (end - reach) + found[end - reach : end]
        return found[: found.index(0)] if 0 in found else found

    def admit(self, tokens: list[int], now: int, root: int, whole: int, spare: int) -> Sequence | None:
        """Admit with the first `now` tokens."""
        hit = self.lookup(tokens, root)
        idle = [block for block in hit if block in self.queue]
        if -(-max(now, whole) // self.size) - len(hit) + len(idle) + spare > len(self.queue):
            return None
        held = {page.device: page for page in self.pages()}
        for block in idle:
            self.queue.remove(block)
        pages = [None if not block else held.get(block) or Page(block) for block in hit]
        sequence = Sequence(pages, tokens[:now], root, keyed=self.caching)
        self.running.append(sequence)
        sequence.pages += [self.take() for _ in range(-(-now // self.size) - len(hit))]
        self.name(sequence, len(hit) * self.size)
        return sequence

    def grow(self, sequence: Sequence, tokens: list[int]) -> list[tuple[int, int]] | None:
        """Append tokens; returns the copies made, or None if refused."""
        length = len(sequence.tokens)
        if self.window is not None and tokens:
            behind = max(0, length - self.window + 1) // self.size
            left = [page for page in sequence.pages[:behind] if page]
            sequence.pages[:behind] = [None] * behind
            self.leave(left[::-1])
        copies = bool(tokens and length % self.size and self.holders(sequence.pages[-1]) > 1)
        more = -(-(length + len(tokens)) // self.size) - len(sequence.pages)
        if length + len(tokens) > self.longest or copies + more > len(self.queue):
            return None
        made = []
        last = sequence.pages[-1]
        if copies:
            sequence.pages[-1] = self.take()
            made = [(last.device, sequence.pages[-1].device)]
        elif tokens and length % self.size and self.host_holders(last):
            # What is on the host stays as it was: from here on it is another page.
            sequence.pages[-1] = Page(last.device)
            last.device = 0
        sequence.pages += [self.take() for _ in range(more)]
        sequence.tokens += tokens
        self.name(sequence, length)
        return made

    def fork(self, sequence: Sequence, *, keyed: bool) -> Sequence:
        """Open a second sequence with the same pages."""
        child = Sequence(list(sequence.pages), list(sequence.tokens), sequence.root, keyed and sequence.keyed)
        self.running.append(child)
        return child

    def release(self, sequence: Sequence) -> None:
        """Close a running sequence."""
        self.running.remove(sequence)
        self.leave([page for page in reversed(sequence.pages) if page])

    def swap_out(self, group: list[Sequence]) -> list[tuple[int, int]] | None:
        """Move sequences to the host; returns the moves, or None if refused."""
        fresh = {id(page) for sequence in group for page in sequence.pages if page and not page.host}
        if len(fresh) > len(self.host_queue):
            return None
        moves = []
        for sequence in group:
            pages = [page for page in sequence.pages if page]
            new = [page for page in pages if not page.host]
            for page in new:
                page.host = self.host_queue.pop(0)
                moves.append((page.device, page.host))
            self.running.remove(sequence)
            self.swapped.append(sequence)
            self.leave(pages[::-1])
        return moves

    def swap_in(self, group: list[Sequence], spare: int) -> list[tuple[int, int]] | None:
        """Move sequences back; returns the moves, or None if refused."""
        fresh = {id(page) for sequence in group for page in sequence.pages if page and not page.device}
        if len(fresh) + spare > len(self.queue):
            return None
        moves = []
        for sequence in group:
            new = [page for page in sequence.pages if page and not page.device]
            for page in new:
                page.device = self.take().device
                moves.append((page.host, page.device))
            self.swapped.remove(sequence)
            self.running.append(sequence)
            for index, page in enumerate(sequence.pages[: len(sequence.tokens) // self.size]):
                if page and self.caching and sequence.keyed and page.device not in self.keys:
                    self.keys[page.device] = (sequence.root, *sequence.tokens[: (index + 1) * self.size])
                    self.ages[page.device] = next(_ages)
            self._leave_host(sequence)
        return moves

    def discard(self, sequence: Sequence) -> None:
        """Close a swapped sequence."""
        self.swapped.remove(sequence)
        self._leave_host(sequence)

    def reset(self) -> bool:
        """Forget every key, unless a block is held."""
        if self.pages():
            return False
        self.keys.clear()
        return True

    def _leave_host(self, sequence: Sequence) -> None:
        gone = [page for page in reversed(sequence.pages) if page and not self.host_holders(page)]
        self.host_queue[:0] = [page.host for page in gone]
        for page in gone:
            page.host = 0
