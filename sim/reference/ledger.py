"""How every slot is used, counted block by block from the block table.

Nothing here relies on a running sum: for each running sequence it is known which slots of its blocks it
has filled, will fill, or never will, and a shared block counts as for the sequence that uses most of it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from allocators.answers import Reason, Refusal
from allocators.base import Allocator
from allocators.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.reference.requests import Request
    from sim.reference.room import Room, Step


class Share(NamedTuple):
    """What one sequence makes of one physical block, in token slots."""

    owner: Request
    filled: int
    """Hold K/V."""
    live: int
    """... of a request that has not finished."""
    wanted: int
    """Live, or to be filled before the request ends."""
    usable: int
    """All but those that exist only because placement rounds up."""


def shares(room: Room, step: Step | None = None) -> dict[int, list[Share]]:
    """Return, for each physical block that is held, what each holder makes of it; `step` is being run."""
    held: dict[int, list[Share]] = defaultdict(list)
    for request in room.running:
        for place, sequence in enumerate(request.sequences):
            tokens = sequence.tokens
            if step is not None and (request.decoding or place == 0):  # samples to come are empty until they fork
                tokens += step.work.get(request, 0)
            for block, share in _of_sequence(room, request, sequence.row, tokens):
                held[block].append(share)
    return held


def _of_sequence(room: Room, request: Request, row: int, tokens: int) -> Iterator[tuple[int, Share]]:
    allocator = room.allocator
    slots = int(allocator.table.slots[row])
    final = 0 if request in room.finished else request.final
    if allocator.concatenates:  # tensors of its own, which no table lists: one piece as long as the sequence
        live = 0 if request in room.finished else tokens
        yield -row - 1, Share(request, tokens, live, min(final, slots), slots)
    for place, block in enumerate(allocator.table.row(row).tolist()):
        if block:  # 0 where a sliding window has passed
            filled, wanted, usable = (_within(allocator, place, end) for end in (tokens, min(final, slots), slots))
            live = 0 if request in room.finished else filled
            yield block, Share(request, filled, live, wanted, usable)


def _within(allocator: Allocator, place: int, length: int) -> int:
    """Slots that a sequence of `length` tokens fills in the block at `place`; see `allocators.table.Columns`."""
    columns, start, like = allocator.columns, 0, place
    if place >= columns.lead:
        turn, within = divmod(place - columns.lead, columns.stride)
        start, like = turn * columns.place, columns.lead + within
    tokens, slots, before = (int(field[like]) for field in columns[:3])
    return min(max(slots * min(max(length - start, 0), tokens) - before, 0), allocator.block_size)


def ledger(room: Room, step: Step | None = None) -> Ledger:
    """Count the pool while `step` runs, or while nothing does."""
    allocator = room.allocator
    live = reserved = internal = placed = saved = 0
    held = shares(room, step)
    for holders in held.values():
        most = [max(values) for values in zip(*(share[1:] for share in holders), strict=True)]
        filled, alive, wanted, usable = most
        live += alive
        reserved += wanted - alive
        internal += usable - wanted
        placed += usable
        saved += sum(share.filled for share in holders) - filled
    usage = allocator.usage()
    rounding = usage.held - placed
    external = _stranded(allocator, step.refusal if step is not None else None)
    free = allocator.capacity - usage.held - usage.cached - external
    return Ledger(live, reserved, internal, rounding, usage.cached, external, free, saved, usage.swapped)


def _stranded(allocator: Allocator, refusal: Refusal | None) -> int:
    """Free slots in holes too small for the head of the queue, where a hole is what it lacks."""
    if refusal is None or refusal.reason is not Reason.HOLE:
        return 0
    return allocator.stranded(refusal.need)


class Run(NamedTuple):
    """Consecutive physical blocks alike: one row of a snapshot of the block map."""

    block: int
    blocks: int
    request_id: int
    """Lowest of the holders; -1 if the block is only cached."""
    references: int
    """Sequences that hold it; none if it is cached, or padding that placement adds."""
    slack: int
    """Empty slots."""


def block_map(room: Room) -> list[Run]:
    """Describe who holds which block, from block 1 on; free blocks are left out."""
    held = shares(room)
    cached = set(room.allocator.cached_blocks().tolist())
    owners = {sequence.row: request.index for request in room.running for sequence in request.sequences}
    rows, blocks = room.allocator.padding()
    padding = {block: owners[row] for row, block in zip(rows.tolist(), blocks.tolist(), strict=True)}
    runs: list[Run] = []
    for block in range(1, room.allocator.num_blocks + 1):
        holders = held.get(block, [])
        if holders:
            owner = min(share.owner.index for share in holders)
            slack = room.allocator.block_size - max(share.filled for share in holders)
            run = Run(block, 1, owner, len(holders), slack)
        elif block in padding:
            run = Run(block, 1, padding[block], 0, room.allocator.block_size)
        elif block in cached:
            run = Run(block, 1, -1, 0, 0)
        else:
            continue
        before = runs[-1] if runs else None
        if before and before.block + before.blocks == block and before[2:4] == run[2:4]:
            runs[-1] = before._replace(blocks=before.blocks + 1, slack=before.slack + run.slack)
        else:
            runs.append(run)
    return runs
