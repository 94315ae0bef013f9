"""Replays vLLM's KVCacheManager (V1): admit, compute, append, free and reset, block ids included.

vLLM's pool of N blocks includes the null block, so ours has N - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from allocators.answers import MISS, Ask, Refusal
from allocators.content import Media, Tokens
from allocators.paged import PagedAllocator
from sim.replay.recording import Line, Recording, Replay


class BlocksReplay(Replay):
    """Operations of a KVCacheManager against `PagedAllocator`."""

    def __init__(self, recording: Recording) -> None:
        """Make the allocator that the recording configures."""
        super().__init__(recording)
        window = recording.config.get("sliding_window")
        self.allocator = PagedAllocator(
            recording.setting("num_blocks") - 1,
            recording.setting("block_size"),
            longest(recording),
            prefix_cache=bool(recording.config.get("caching")),
            sliding_window=None if window is None else recording.setting("sliding_window"),
        )
        self.rows: dict[str, int] = {}
        self.contents: dict[str, Tokens] = {}
        self.names = Names()

    def do_admit(self, line: Line) -> dict[str, Any]:
        """Look up, then slots for the first `n` uncomputed tokens, or for all."""
        name, allocator = line["id"], self.allocator
        content = Tokens(
            line["prompt_token_ids"],
            self.names.root(line.get("cache_salt"), line.get("lora")),
            [Media(self.names[item["hash"]], item["offset"], item["length"]) for item in line.get("mm") or ()],
        )
        prompt = len(content.tokens)
        hit = allocator.lookup(content, prompt)
        tokens = hit.tokens + min(line.get("n") or prompt, prompt - hit.tokens)
        cached = allocator.pool.cache.key != 0
        grant = allocator.admit(Ask(content, prompt, tokens, hit))
        if isinstance(grant, Refusal):
            return self._answer(None, ok=False)
        self.rows[name], self.contents[name] = grant.row, content
        answer = self._answer(name, ok=True)
        answer["evicted"] = [block for block in answer["blocks"][len(hit.blocks) :] if cached[block]]
        return answer | {"hit": hit.tokens}

    def do_compute(self, line: Line) -> dict[str, Any]:
        """Slots for the next `n` tokens of the prompt."""
        row, known = self.rows[line["id"]], len(self.contents[line["id"]].tokens)
        return self._grow(line["id"], min(int(self.allocator.table.length[row]) + line["n"], known))

    def do_append(self, line: Line) -> dict[str, Any]:
        """Slots for generated tokens, which are forgotten if there are none."""
        name, content = line["id"], self.contents[line["id"]]
        known = len(content.tokens)
        content.extend(line["token_ids"])
        answer = self._grow(name, int(self.allocator.table.length[self.rows[name]]) + len(line["token_ids"]))
        if not answer["ok"]:
            content.truncate(known)
        return answer

    def do_free(self, line: Line) -> dict[str, Any]:
        """Give everything back."""
        del self.contents[line["id"]]
        self.allocator.release(self.rows.pop(line["id"]))
        return self._answer(None, ok=True)

    def do_reset(self, line: Line) -> dict[str, Any]:
        """Drop the prefix cache."""
        return self._answer(None, ok=self.allocator.reset() is None)

    def _grow(self, name: str, length: int) -> dict[str, Any]:
        row, allocator = self.rows[name], self.allocator
        before, cached = int(allocator.table.count[row]), allocator.pool.cache.key != 0
        growth = allocator.grow(np.array([row]), np.array([length]))
        answer = self._answer(name, ok=growth.refusal is None)
        answer["evicted"] = [block for block in answer["blocks"][before:] if cached[block]]
        return answer

    def _answer(self, name: str | None, *, ok: bool) -> dict[str, Any]:
        pool, table = self.allocator.pool, self.allocator.table
        if name is not None and self.rows[name] in self.allocator.apart:
            self.allocator.catch_up(self.rows[name])
        blocks = [] if name is None else table.row(self.rows[name]).tolist()
        return {
            "ok": ok,
            "hit": MISS.tokens,
            "blocks": blocks,
            "ref": pool.references[blocks].tolist(),
            "hashed": (pool.cache.key[blocks] != 0).astype(int).tolist(),
            "free": pool.free,
            "evicted": [],
            "computed": 0 if name is None else int(table.length[self.rows[name]]),
        }


class Names:
    """Gives each name a number, so that keys do not depend on how Python hashes text."""

    def __init__(self) -> None:
        """Know no name."""
        self._numbers: dict[object, int] = {}

    def __getitem__(self, name: object) -> int:
        """Return the name's number, from 1."""
        return self._numbers.setdefault(name, len(self._numbers) + 1)

    def root(self, *names: object) -> int:
        """Return the root of keys in the namespace of some names; 0 if all are absent or empty."""
        return self[names] if any(names) else 0


def longest(recording: Recording) -> int:
    """Tokens of the longest sequence of a recording, for the width of the block table."""
    tokens: dict[object, int] = {}
    for line in recording:
        parts: Sequence[Any] = [*line.get("prompt_token_ids", ()), *line.get("token_ids", ())]
        name = line.get("id")
        tokens[name] = max(tokens.get(name, 0), tokens.get(line.get("parent"), 0)) + len(parts)
    return max(tokens.values(), default=0) or 1
