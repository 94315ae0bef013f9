"""WEKA's kv-cache-tester traces: one agent's session a file (or a line), subagents nested inside.

A subagent's requests count their time from its marker.  Hashes are local to the session
unless the file says global.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.traces.base import Options
from workloads.traces.blocks import prefixes_of
from workloads.traces.records import BadRow, Ragged, each, ids, number, parse
from workloads.traces.rows import Fault, Rows
from workloads.values import shown

if TYPE_CHECKING:
    from workloads.traces.files import TraceFile

DEEPEST = 16
"""Subagents inside subagents; more is a mistake."""


@dataclass
class _Session:
    """What is gathered from the sessions of one file."""

    times: list[float] = field(default_factory=list)
    prompts: list[float] = field(default_factory=list)
    outputs: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    hashes: list[list[tuple[int, int]]] = field(default_factory=list)
    """Ids with the scope they belong to."""
    faults: list[Fault] = field(default_factory=list)


class Weka:
    """One JSON object a file, or one a line."""

    name = "weka"
    about = "WEKA kv-cache-tester: sessions of requests with t (s), in, out and hash_ids; subagents nested"

    def matches(self, file: TraceFile) -> bool:
        """Say whether it begins as a session does."""
        head = file.head[:4096]
        return head.lstrip().startswith("{") and '"block_size"' in head and '"requests"' in file.head

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read all sessions; line numbers are numbers of the request, or of the line where each is a session."""
        gathered = _Session()
        for scope, (line, session) in enumerate(self._sessions(file, gathered.faults), 1):
            size = session.get("block_size")
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                gathered.faults.append((line, f"block_size: must be a whole number of tokens, got {shown(size)}"))
                continue
            scope = 0 if session.get("hash_id_scope") == "global" else scope  # noqa: PLW2901 - scopes 1, 2, ... are local
            self._walk(gathered, session.get("requests"), 0.0, options.block_size or size, scope, line, 0)
        keys = {key: index for index, key in enumerate(dict.fromkeys(key for row in gathered.hashes for key in row))}
        hashes = Ragged(
            np.array([keys[key] for row in gathered.hashes for key in row], np.int64),
            np.cumsum([0, *map(len, gathered.hashes)], dtype=np.int64),
        )
        prompt = np.array(gathered.prompts)
        prefixes, _ = prefixes_of(hashes, prompt, np.array(gathered.sizes, np.float64))
        lines = np.array(gathered.lines, np.int64)
        return Rows(
            np.array(gathered.times),
            prompt,
            np.array(gathered.outputs),
            lambda rows: lines[rows].tolist(),
            gathered.faults,
            prefixes,
        )

    @staticmethod
    def _sessions(file: TraceFile, faults: list[Fault]) -> list[tuple[int, dict[str, Any]]]:
        try:
            sessions = [(1, parse(file.data))]
        except BadRow as error:
            sessions = [*each(file, lambda session: session, faults)]
            if not sessions:
                raise WorkloadError(f"{file.name}: {error}") from None
        return [(line, session) for line, session in sessions if isinstance(session, dict)]

    def _walk(
        self, gathered: _Session, requests: Any, origin: float, size: int, scope: int, line: int, depth: int
    ) -> None:
        """Gather requests, their times counted from `origin`, and those of subagents inside."""
        if not isinstance(requests, list) or depth > DEEPEST:
            gathered.faults.append((line, f"requests: must be a list, got {shown(requests)}"))
            return
        for request in requests:
            try:
                row, hashes = _request(request, origin)
            except BadRow as error:
                gathered.faults.append((line, str(error)))
                continue
            if request.get("type") == "subagent":
                self._walk(gathered, request.get("requests"), row[0], size, scope, line, depth + 1)
                continue
            gathered.times.append(row[0])
            gathered.prompts.append(row[1])
            gathered.outputs.append(row[2])
            gathered.sizes.append(size)
            gathered.lines.append(line)
            gathered.hashes.append([(scope, one) for one in hashes])


def _request(request: Any, origin: float) -> tuple[tuple[float, float, float], list[int]]:
    """Take (time, prompt, output) and block ids out of a request or a subagent's marker."""
    if not isinstance(request, dict):
        raise BadRow(f"not a request: {shown(request)}")
    row = (origin + number(request.get("t"), "t"), number(request.get("in"), "in"), number(request.get("out"), "out"))
    return row, ids(request.get("hash_ids"), "hash_ids")


FORMAT = Weka()
