"""Replays vLLM 0.6.6's block manager: allocate, fork, append with copy-on-write, swap, free.

Block ids are compared up to renaming: at every instant, the blocks of the recorded sequences must
correspond one to one to ours, so that sharing is the same too.

0.6.6 counts the blocks that an operation *touches*, which may be more than it takes.  If its answer follows
from this count and differs from the exact one, it is listed as explained, not as a difference, and the
decision of the engine is carried out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from allocators.answers import Ask, Refusal, Swap
from allocators.content import Segments
from allocators.paged import PagedAllocator
from allocators.table import BlockTable
from sim.replay.blocks import longest
from sim.replay.recording import Line, Recording, Replay

DEFAULT_WATERMARK = 0.01
"""Fraction of the pool that 0.6.6 leaves free on admission unless told otherwise."""


class LegacyReplay(Replay):
    """Operations of 0.6.6's SelfAttnBlockSpaceManager against `PagedAllocator`."""

    def __init__(self, recording: Recording) -> None:
        """Make the allocator that the recording configures."""
        super().__init__(recording)
        blocks = recording.setting("num_blocks")
        self.allocator = PagedAllocator(
            blocks,
            recording.setting("block_size"),
            longest(recording),
            host_blocks=int(recording.config.get("num_cpu_blocks", 0)),
        )
        self.watermark = int(float(recording.config.get("watermark", DEFAULT_WATERMARK)) * blocks)
        self.rows: dict[int, int] = {}
        self.swapped: dict[int, int] = {}
        self.recorded: dict[int, list[int]] = {}
        """Block ids of each sequence as the recording last named them; on the host they count from the pool's end."""

    def do_allocate(self, line: Line) -> dict[str, Any]:
        """Admit a prompt, leaving the watermark free."""
        prompt = len(line["prompt_token_ids"])
        ask = Ask(Segments([], tail=0), prompt, prompt, spare=self.watermark)
        if self.allocator.never(ask, prompt) is not None:
            return self._answer(line, ok=False) | {"status": "NEVER"}
        grant = self.allocator.admit(ask)
        if isinstance(grant, Refusal):
            return self._answer(line, ok=False) | {"status": "LATER"}
        self.rows[line["id"]] = grant.row
        return self._answer(line, ok=True) | {"status": "OK"}

    def do_fork(self, line: Line) -> dict[str, Any]:
        """Share all blocks of the parent."""
        self.rows[line["id"]] = self.allocator.fork(self.rows[line["parent"]]).row
        return self._answer(line, ok=True)

    def do_append(self, line: Line) -> dict[str, Any]:
        """Slots for generated tokens; a shared last block is copied."""
        allocator, row, tokens = self.allocator, self.rows[line["id"]], len(line["token_ids"])
        length = int(allocator.table.length[row])
        rows, lengths = np.array([row]), np.array([length + tokens])
        can = allocator.can_grow(rows, lengths)
        size = allocator.block_size
        touched = 1 - (size - length % size - tokens) // size
        if can and not line["r"]["ok"] and touched > allocator.pool.free:
            where = f"{self.recording.path}:{self.recording.line}: append to sequence {line['id']}"
            self.report.explained.append(
                f"{where}: refused, as 0.6.6 counts its own half-full last block among the {touched} to be taken "
                f"of {allocator.pool.free} free; none need be taken for that one"
            )
            return self._answer(line, ok=False) | {"can_append": False}
        growth = allocator.grow(rows, lengths)
        copies = [list(copy) for copy in growth.copies]
        answer = self._answer(line, ok=growth.refusal is None)
        return answer | {"can_append": can, "cow": alike(line["r"].get("cow"), copies)}

    def do_free(self, line: Line) -> dict[str, Any]:
        """Give everything back, wherever it is."""
        name = line["id"]
        self.recorded.pop(name, None)
        if name in self.swapped:
            self.allocator.discard(self.swapped.pop(name))
        else:
            self.allocator.release(self.rows.pop(name))
        return self._answer(line, ok=True)

    def do_swap_out(self, line: Line) -> dict[str, Any]:
        """Move a sequence to the host."""
        return self._swap(line, self.allocator.swap_out(self.rows[line["id"]]), self.rows, self.swapped)

    def do_swap_in(self, line: Line) -> dict[str, Any]:
        """Move a sequence back, leaving the watermark free."""
        swap = self.allocator.swap_in(self.swapped[line["id"]], self.watermark)
        status = "LATER" if isinstance(swap, Refusal) else "OK"
        return self._swap(line, swap, self.swapped, self.rows) | {"status": status}

    def _swap(self, line: Line, swap: Swap | Refusal, here: dict[int, int], there: dict[int, int]) -> dict[str, Any]:
        if isinstance(swap, Refusal):
            return self._answer(line, ok=False)
        del here[line["id"]]
        there[line["id"]] = swap.row
        answer = self._answer(line, ok=True)
        moves = [list(move) for move in swap.moves]
        return answer | {"map": alike(line["r"].get("map"), moves)}

    def _answer(self, line: Line, *, ok: bool) -> dict[str, Any]:
        """What every answer may hold; block ids as the recording names them, if they correspond to ours."""
        allocator, name = self.allocator, line["id"]
        answer: dict[str, Any] = {"ok": ok, "free": allocator.pool.free, "free_cpu": allocator.host.pool.blocks_free}
        if name in self.rows or name in self.swapped:
            table, row = self._where(name)
            answer |= {"on": "gpu" if name in self.rows else "cpu", "len": int(table.length[row])}
            self.recorded[name] = line["r"].get("blocks", [])
            answer["blocks"] = self.recorded[name] if self._correspond() else table.row(row).tolist()
        return answer

    def _where(self, name: int) -> tuple[BlockTable, int]:
        if name in self.rows:
            return self.allocator.table, self.rows[name]
        return self.allocator.host.table, self.swapped[name]

    def _correspond(self) -> bool:
        """Whether the blocks of all sequences, recorded and ours, correspond one to one."""
        pairs = set()
        for name, recorded in self.recorded.items():
            table, row = self._where(name)
            ours = table.row(row).tolist()
            if len(ours) != len(recorded):
                return False
            pairs |= {(block, (name in self.rows, our)) for block, our in zip(recorded, ours, strict=True)}
        return len(pairs) == len({block for block, _ in pairs}) == len({our for _, our in pairs})


def alike(recorded: Sequence[object] | None, ours: Sequence[object]) -> Sequence[object]:
    """Return `recorded` if there are as many of `ours`, which have other names, else `ours`."""
    return recorded if recorded is not None and len(recorded) == len(ours) else ours
