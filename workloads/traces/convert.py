"""Writing requests as a trace that other tools read: a plain CSV, or Mooncake's JSON lines with block hashes."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from allocators.options import meant
from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workloads.requests import Requests

Target: TypeAlias = Literal["csv", "mooncake"]
MOONCAKE_BLOCK = 512
"""Tokens a hash id of Mooncake's format names."""


def convert(requests: Requests, path: str | Path, target: str) -> list[str]:
    """Write requests to a file, gzip'd if its name ends in .gz.

    Args:
        requests: what to write.
        path: the file; overwritten.
        target: `csv` (arrival_s, prompt_tokens, output_tokens) or `mooncake` (milliseconds, hash ids of 512 tokens).

    Returns:
        What the format could not hold, in words.

    Raises:
        WorkloadError: there is no such target, or the file cannot be written.

    """
    if target not in get_args(Target):
        known = get_args(Target)
        raise WorkloadError(f"cannot convert to {target}{meant(target, known)}; known: {', '.join(known)}")
    lines = _csv(requests) if target == "csv" else _mooncake(requests)
    try:
        # No time stamp inside, so that the same requests give the same bytes.
        raw = "".join(lines).encode()
        Path(path).write_bytes(gzip.compress(raw, mtime=0) if str(path).endswith(".gz") else raw)
    except OSError as error:
        if Path(path).is_file():  # half of a trace looks like a whole one
            Path(path).unlink()
        raise WorkloadError(f"{path}: cannot be written: {error.strerror or error}") from None
    lost = []
    if target == "csv" and requests.prefixes is not None:
        lost.append("what prompts share is not written: csv has no place for it, mooncake has")
    if len(requests.after):
        lost.append("which requests wait for others is not written: they get their nominal times")
    if len(requests.samples):
        lost.append("parallel samples are not written: every request asks for one")
    return lost


def _csv(requests: Requests) -> Iterator[str]:
    yield "arrival_s,prompt_tokens,output_tokens\n"
    for time, prompt, output in zip(
        requests.arrival_s.tolist(), requests.prompt_tokens.tolist(), requests.output_tokens.tolist(), strict=True
    ):
        # repr is the shortest text that reads back as the same float.
        yield f"{time!r},{prompt},{output}\n"


def _mooncake(requests: Requests) -> Iterator[str]:
    hashes = block_hashes(requests, MOONCAKE_BLOCK)
    times = np.rint(requests.arrival_s * 1000).astype(np.int64)
    for time, prompt, output, ids in zip(
        times.tolist(), requests.prompt_tokens.tolist(), requests.output_tokens.tolist(), hashes, strict=True
    ):
        record = {"timestamp": time, "input_length": prompt, "output_length": output, "hash_ids": ids}
        yield json.dumps(record) + "\n"


def block_hashes(requests: Requests, block_size: int) -> Iterator[list[int]]:
    """Yield the ids of each prompt's blocks: equal ids at the end of equal ids mean equal tokens, numbered from 0.

    A last block that is not full has the id of the full block that it begins, where there is one.
    """
    numbers: dict[tuple[int, ...], int] = {}
    if requests.prefixes is None:
        first = 0
        for prompt in requests.prompt_tokens.tolist():
            count = -(-prompt // block_size)
            yield list(range(first, first + count))
            first += count
        return
    names, lengths = requests.prefixes.ids.tolist(), requests.prefixes.lengths.tolist()
    for start, stop in pairwise(requests.prefixes.offsets.tolist()):
        found: list[int] = []
        # A block is the one before it and its parts: (piece, offset in the piece, tokens), the last without tokens.
        parts: list[int] = []
        filled = 0
        for piece in range(start, stop):
            offset = 0
            while offset < lengths[piece]:
                take = min(lengths[piece] - offset, block_size - filled)
                parts += (names[piece], offset, take)
                filled += take
                offset += take
                if filled == block_size:
                    found.append(_number(numbers, found, parts))
                    parts, filled = [], 0
        if parts:
            found.append(_number(numbers, found, parts))
        yield found


def _number(numbers: dict[tuple[int, ...], int], found: list[int], parts: list[int]) -> int:
    """Number a block that follows those found so far."""
    return numbers.setdefault((found[-1] if found else -1, *parts[:-1]), len(numbers))
