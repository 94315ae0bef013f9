"""RAGPulse: prompts as components (system prompt, passages, history, web search, question) named by ids.

An id stands for up to 512 tokens of one component.  How many, the trace itself does not
say: the files beside it do (1_sys_prompt.jsonl and so on).  With them prompts share
exactly what they shared; without them they are read as sharing nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.requests import Prefixes
from workloads.traces.base import Options
from workloads.traces.files import TraceFile
from workloads.traces.records import BadRow, each, ids, json_lines, number, parse
from workloads.traces.rows import Fault, Rows

if TYPE_CHECKING:
    from collections.abc import Mapping

PARTS = ("sys_prompt", "passages_ids", "history", "web_search", "user_input")
"""Components of a prompt, in their order."""
BESIDE = ("1_sys_prompt.jsonl", "2_passages.jsonl", "3_history.jsonl", "4_user_input.jsonl", "5_web_search.jsonl")


class RagPulse:
    """The trace file 0_trace.jsonl."""

    name = "ragpulse"
    about = "RAGPulse: timestamp (s, as text), input_length, output_length, hash_ids by component"

    def matches(self, file: TraceFile) -> bool:
        """Say whether the first record's hash_ids are grouped by component."""
        return isinstance(file.first.get("hash_ids"), dict) and "input_length" in file.first

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read all requests, and the ids' lengths from the files beside the trace."""
        found: list[tuple[int, float, float, float]] = []
        components: list[list[int]] = []
        faults: list[Fault] = []
        for line, (row, names) in each(file, _request, faults):
            found.append((line, *row))
            components.append(names)
        table = np.array(found, np.float64).reshape(-1, 4)
        lines = table[:, 0].astype(np.int64)
        lengths, notes = _lengths(file)
        prefixes = _pieces(components, table[:, 2], lengths) if lengths else None
        return Rows(
            table[:, 1],
            table[:, 2],
            table[:, 3],
            lambda rows: lines[rows].tolist(),
            faults,
            prefixes,
            notes=notes,
        )


def _request(record: Any) -> tuple[tuple[float, float, float], list[int]]:
    """Take (timestamp, input length, output length) and the ids of all components out of one record."""
    if not isinstance(record, dict) or not isinstance(groups := record.get("hash_ids"), dict):
        raise BadRow("no hash_ids by component")
    row = [number(record.get(name), name) for name in ("timestamp", "input_length", "output_length")]
    return (row[0], row[1], row[2]), [one for part in PARTS for one in ids(groups.get(part), part)]


def _lengths(file: TraceFile) -> tuple[dict[int, int], list[str]]:
    """Read the tokens of each id from the files beside the trace."""
    lengths: dict[int, int] = {}
    missing = []
    for name in BESIDE:
        path = file.path.with_name(name)
        if not path.is_file():
            missing.append(name)
            continue
        for line, text in json_lines(TraceFile(path)):
            try:
                identity, tokens = parse(text).values()
                lengths[int(identity)] = int(tokens)
            except (ValueError, TypeError, AttributeError, OverflowError):
                missing.append(f"line {line} of {name}")
    if not missing:
        return lengths, []
    if not lengths:
        return {}, [f"prompts are read as sharing nothing: their parts' lengths are in {BESIDE[0]} and so on, not here"]
    return lengths, [f"lengths of some parts are not known: {', '.join(missing[:5])}"]


def _pieces(components: list[list[int]], prompt: np.ndarray, lengths: Mapping[int, int]) -> Prefixes:
    """Cut each prompt into its components, as far as it reaches; the rest is its own."""
    pieces: list[list[tuple[int, int]]] = []
    fresh = max(lengths, default=0) + 1
    for row, names in enumerate(components):
        left = int(prompt[row]) if np.isfinite(prompt[row]) and 0 < prompt[row] < 2**53 else 0
        found: list[tuple[int, int]] = []
        for name in names:
            tokens = min(lengths.get(name, 0), left)
            if tokens > 0:
                found.append((name, tokens))
                left -= tokens
        if left:
            found.append((fresh + 2 * row, left))
        pieces.append(found)
    return Prefixes.of(pieces, fresh + 2 * np.arange(len(components)) + 1)


FORMAT = RagPulse()
