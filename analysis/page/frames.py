"""Snapshots of a small block map, whole, and what happened between one and the next in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from analysis.observed import Columns

NOBODY, CACHED = -2, -1


@dataclass
class Frame:
    """One snapshot."""

    time_s: float
    owner: list[int]
    """Of each block from 1: request id, CACHED or NOBODY."""
    references: list[int]
    """Sequences that hold each block; none if it is cached, or padding that placement adds to its owner's."""
    filled: list[int]
    """Slots of each block that hold K/V."""
    held: dict[int, list[int]]
    """Physical blocks by request."""
    states: dict[int, str]
    """running, waiting, preempted or finished, by request that has arrived."""
    said: list[str] = field(default_factory=list)
    """What happened since the frame before."""


def frames(blocks: Columns, requests: Columns, steps: Columns, count: int, size: int) -> list[Frame]:
    """Expand every snapshot and describe every change.

    Args:
        blocks: columns of blocks.parquet.
        requests: columns of requests.parquet, row i being request i.
        steps: columns of steps.parquet, for what is free and the largest hole.
        count: blocks of the pool.
        size: token slots a block; single slots are called slots.

    """
    times = np.asarray(blocks["time_s"], np.float64)
    unit = "slot" if size == 1 else "block"
    drawn: list[Frame] = []
    lost: set[int] = set()
    for instant in np.unique(times).tolist():
        frame = _snapshot(blocks, np.flatnonzero(times == instant), count, size)
        frame.time_s = instant
        before = drawn[-1] if drawn else Frame(0.0, [NOBODY] * count, [0] * count, [0] * count, {}, {})
        lost = {request for request in lost | _left(before, frame, requests) if request not in frame.held}
        frame.states = dict(_states(frame, requests, lost))
        frame.said = [*_story(before, frame, requests, unit), *_queue(drawn, frame, requests, steps)]
        drawn.append(frame)
    return drawn


def row_at(steps: Columns, time_s: float) -> int:
    """Row of the step that runs at an instant (the one that begins there, if one does)."""
    return max(int(np.searchsorted(steps["start_s"], time_s + 1e-9, side="right")) - 1, 0)


def _snapshot(blocks: Columns, rows: np.ndarray[tuple[int], np.dtype[np.int64]], count: int, size: int) -> Frame:
    frame = Frame(0.0, [NOBODY] * count, [0] * count, [0] * count, {}, {})
    names = ("block", "count", "request_id", "references", "slack")
    columns = (np.asarray(blocks[name])[rows].tolist() for name in names)
    for first, length, request, references, slack in zip(*columns, strict=True):
        for place in range(length):
            block = first + place
            frame.owner[block - 1] = request
            frame.references[block - 1] = references
            frame.filled[block - 1] = min(max(length * size - slack - place * size, 0), size)
            if request >= 0 and references:
                frame.held.setdefault(request, []).append(block)
    return frame


def _left(before: Frame, frame: Frame, requests: Columns) -> set[int]:
    """Requests that lost all their blocks without having finished."""
    gone = [request for request in before.held if request not in frame.held]
    return {request for request in gone if not _over(requests, request, frame)}


def _over(requests: Columns, request: int, frame: Frame) -> bool:
    return bool(requests["finish_s"][request] <= frame.time_s + 1e-9)


def _states(frame: Frame, requests: Columns, lost: set[int]) -> Iterator[tuple[int, str]]:
    for request, arrival in enumerate(np.asarray(requests["arrival_s"]).tolist()):
        if arrival > frame.time_s + 1e-9:
            return
        if request in frame.held:
            yield request, "running"
        elif _over(requests, request, frame):
            yield request, "finished"
        else:
            yield request, "preempted" if request in lost else "waiting"


def _story(before: Frame, frame: Frame, requests: Columns, unit: str) -> Iterator[str]:
    """Sentences on the memory that changed hands, what was given back first."""
    for request in sorted(before.held.keys() - frame.held.keys()):
        yield _given_back(before, frame, request, before.held[request], unit)
    for request, held in frame.held.items():
        yield from _growth(before, frame, request, held, requests, unit)
    references = list(enumerate(zip(before.references, frame.references, strict=True), 1))
    if more := [block for block, (old, new) in references if new > max(old, 1)]:
        most = max(frame.references[block - 1] for block in more)
        yield f"{some(more, unit).capitalize()} {'is' if len(more) == 1 else 'are'} shared by {most} sequences."
    owners = list(enumerate(zip(before.owner, frame.owner, strict=True), 1))
    if kept := [block for block, (old, new) in owners if new == CACHED != old]:
        stay = "stays" if len(kept) == 1 else "stay"
        yield f"{some(kept, unit).capitalize()} {stay} cached for prompts that begin alike."


def _given_back(before: Frame, frame: Frame, request: int, held: list[int], unit: str) -> str:
    """Say why a request holds nothing any more; blocks that it shared stay with whoever shared them."""
    passed = [block for block in held if before.references[block - 1] > 1 and frame.owner[block - 1] >= 0]
    back = [block for block in held if block not in passed]
    left = f"; {some(passed, unit)} {'stays' if len(passed) == 1 else 'stay'} with the others" if passed else ""
    if frame.states[request] == "finished":
        return f"Request {request} is done and gives back {some(back, unit)}{left}."
    return f"No room to grow: request {request}, the newest, is preempted: {some(back, unit)} lost{left}."


def _growth(before: Frame, frame: Frame, request: int, held: list[int], requests: Columns, unit: str) -> Iterator[str]:
    had = before.held.get(request, [])
    # a shared block is shown with its oldest owner; it is not new to the one it passes to
    new = [block for block in held if block not in had and before.references[block - 1] < 2]
    written = [
        block
        for block in had
        if before.references[block - 1] > max(frame.references[block - 1], 1) and frame.owner[block - 1] == request
    ]
    if not had and before.states.get(request) == "preempted":
        how = "copied back from the host" if requests["swapped_blocks"][request] else "all its tokens computed again"
        yield f"Request {request} comes back, {how}, in {some(held, unit)}."
    elif (not had and request not in before.states) or before.states.get(request) == "waiting":
        cached = int(requests["cached_tokens"][request])
        hit = f" {cached} of its tokens are found in the cache." if cached else ""
        yield f"Request {request} ({wish(requests, request)}) is admitted and takes {some(new or held, unit)}.{hit}"
    elif new and written:
        yield (
            f"Copy on write: sequences of request {request} write into shared {some(written, unit)}, "
            f"so it is copied to {some(new, unit)}."
        )
    elif new:
        yield f"Request {request} grows into {some(new, unit)}."


def _queue(drawn: list[Frame], frame: Frame, requests: Columns, steps: Columns) -> Iterator[str]:
    """Sentences on those who arrive, and on the head of the queue as long as memory keeps it there."""
    known = drawn[-1].states if drawn else {}
    for request, state in frame.states.items():
        if state == "waiting" and request not in known:
            yield f"Request {request} arrives ({wish(requests, request)})."
    head = next((request for request, state in frame.states.items() if state == "waiting"), None)
    row = row_at(steps, frame.time_s)
    if head is None or head not in known or steps["blocked"][row] != "memory":
        return
    free, hole = int(steps["free"][row]) + int(steps["external"][row]), int(steps["largest_hole"][row])
    holes = f", but the largest hole has {hole}" if hole < free else ""
    told = f"Request {head} waits for memory: {free} slots are free{holes}."
    if not any(told in earlier.said for earlier in drawn):
        yield told


def wish(requests: Columns, request: int) -> str:
    """Lengths of a request in words."""
    return f"{requests['prompt_tokens'][request]} prompt and {requests['output_tokens'][request]} output tokens"


def some(blocks: list[int], unit: str) -> str:
    """Name blocks, runs of them as ranges."""
    parts: list[str] = []
    ordered = sorted(blocks)
    start = 0
    for place in range(1, len(ordered) + 1):
        if place == len(ordered) or ordered[place] != ordered[place - 1] + 1:
            first, last = ordered[start], ordered[place - 1]
            parts.append(str(first) if first == last else f"{first} {'and' if last == first + 1 else 'to'} {last}")
            start = place
    return f"{unit}{'' if len(ordered) == 1 else 's'} {', '.join(parts)}" if ordered else f"no {unit}"
