"""AIPerf's datasets of text: its `mooncake_trace` with texts instead of lengths, `single_turn` and `multi_turn`.

Each line is a request, or a conversation whose later turns repeat what was said before them
and follow their forerunner's end after a delay.  Texts are counted and dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.requests import LONGEST, Prefixes
from workloads.traces.records import BadRow, json_lines, number, parse
from workloads.traces.rows import Fault, Rows
from workloads.traces.text import DEFAULT_OUTPUT, token_counter
from workloads.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workloads.traces.base import Options
    from workloads.traces.files import TraceFile

INPUTS = ("text_input", "messages", "payload", "turns", "text", "texts")
"""Fields that hold what is asked; a line has one of them."""
OUTPUTS = ("output_length", "max_completion_tokens", "max_tokens")
"""Fields, of a line or its payload, that say how long the answer is."""


@dataclass
class _Found:
    """What is gathered from the lines of one file: one row per request."""

    lines: list[int] = field(default_factory=list)
    arrival: list[float] = field(default_factory=list)
    """Seconds; of a turn that waits for the one before it, nominal."""
    outputs: list[float] = field(default_factory=list)
    pieces: list[list[tuple[int, int]]] = field(default_factory=list)
    """Contents (id, tokens) of each prompt; row r's own text is 2 r, its answer 2 r + 1."""
    after: list[int] = field(default_factory=list)
    delay: list[float] = field(default_factory=list)
    unsaid: int = 0
    """Requests that do not say how long their answer is."""

    def add(self, line: int, tokens: int, turn: dict[str, Any], before: int | None) -> None:
        """Gather one turn; `before` is the row of the turn that it follows."""
        row = len(self.lines)
        time, delay, output = (number(turn.get(name), name) for name in ("timestamp", "delay", "output_length"))
        linked = before is not None and not np.isfinite(time)
        self.unsaid += bool(np.isnan(output))
        output = DEFAULT_OUTPUT if np.isnan(output) else output
        if not 0 <= output <= LONGEST or delay < 0:
            raise BadRow(f"output_length and delay cannot be negative or endless: {output:g}, {delay:g}")
        history = [] if before is None else [*self.pieces[before], (2 * before + 1, int(self.outputs[before]))]
        wait = 0.0 if np.isnan(delay) else delay / 1e3
        start = (self.arrival[before] if before is not None else 0.0) + wait
        self.lines.append(line)
        self.arrival.append(start if np.isnan(time) else time / 1e3)
        self.outputs.append(output)
        self.pieces.append([*history, (2 * row, tokens)])
        self.after.append(before if before is not None and linked else -1)
        self.delay.append(wait if linked else 0.0)

    def rows(self, faults: list[Fault], notes: list[str]) -> Rows:
        """Make columns of what was gathered."""
        lines, outputs = np.array(self.lines, np.int64), np.array(self.outputs, np.float64)
        if self.unsaid:
            notes = [*notes, f"{self.unsaid:,} requests name no output_length: taken as {DEFAULT_OUTPUT}"]
        return Rows(
            np.array(self.arrival, np.float64),
            np.array([sum(tokens for _, tokens in pieces) for pieces in self.pieces], np.float64),
            outputs,
            lambda rows: lines[rows].tolist(),
            faults,
            Prefixes.of(self.pieces, 2 * np.arange(len(lines)) + 1),
            np.array(self.after, np.int64),
            np.array(self.delay, np.float64),
            notes,
        )


class AiperfText:
    """Lines of text_input, messages, payload, text, texts or turns."""

    name = "aiperf-text"
    about = "AIPerf datasets of text (tokens are counted or estimated): mooncake_trace, single_turn, multi_turn; ms"

    def matches(self, file: TraceFile) -> bool:
        """Say whether the first record holds text as AIPerf's do."""
        return any(name in file.first for name in INPUTS) and "conversations" not in file.first

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read all lines; a text's length is taken and the text dropped."""
        count, notes = token_counter(options.tokenizer)
        found = _Found()
        faults: list[Fault] = []
        for line, text in json_lines(file):
            try:
                turns = [(sum(map(count, _texts(turn))), _settings(turn)) for turn in _turns(parse(text))]
                before = None
                for tokens, settings in turns:
                    found.add(line, tokens, settings, before)
                    before = len(found.lines) - 1
            except BadRow as error:
                faults.append((line, str(error)))
                file.give_up(faults)
        return found.rows(faults, notes)


def _turns(record: Any) -> list[dict[str, Any]]:
    """Return the turns of a line: itself, or those that it lists."""
    if not isinstance(record, dict):
        raise BadRow(f"not a JSON object: {shown(record)}")
    turns = record.get("turns", [record])
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise BadRow(f"turns: not a list of turns: {shown(turns)}")
    return turns


def _settings(turn: dict[str, Any]) -> dict[str, Any]:
    """Return what a turn says besides its text, the length of the answer under one name."""
    payload = turn.get("payload")
    asked = {**(payload if isinstance(payload, dict) else {}), **turn}
    output = next((asked[name] for name in OUTPUTS if asked.get(name) is not None), None)
    return {"timestamp": turn.get("timestamp"), "delay": turn.get("delay"), "output_length": output}


def _texts(turn: dict[str, Any]) -> Iterator[str]:
    """Yield the texts that a turn sends."""
    content = turn.get("payload", turn)
    if not isinstance(content, dict):
        raise BadRow(f"payload: not an object: {shown(content)}")
    for name in ("text_input", "prompt", "text", "texts", "messages"):
        if content.get(name) is not None:
            yield from _strings(content[name], name)
            return
    raise BadRow(f"none of {', '.join(INPUTS)}")


def _strings(value: Any, name: str, depth: int = 0) -> Iterator[str]:
    """Yield the text of a string, a message, a content part, or a list of these; images and the like have none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth < 4:
        for one in value:
            yield from _strings(one, name, depth + 1)
    elif isinstance(value, dict) and depth < 4:
        for inner in ("content", "contents", "text"):
            if value.get(inner) is not None:
                yield from _strings(value[inner], name, depth + 1)
    else:
        raise BadRow(f"{name}: not text: {shown(value)}")


FORMAT = AiperfText()
