"""Conversations: ShareGPT's JSON, or the turn lengths measured from it.

Recorded chats have lengths but no times.  Read as first exchanges, they pass the filter of
vLLM's benchmark; read as all turns, each answer is a request whose prompt is everything
said before it, so that turns share their history.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.requests import Ints, Prefixes
from workloads.traces.base import Options
from workloads.traces.columns import read_csv
from workloads.traces.records import BadRow, parse
from workloads.traces.rows import Fault, Rows
from workloads.traces.text import token_counter

if TYPE_CHECKING:
    from workloads.traces.files import TraceFile

ANSWERS = frozenset({"gpt", "chatgpt", "bing", "bard", "assistant", "model", "a"})
"""Speakers whose words are outputs; everybody else's are prompts."""
SHORTEST, LONGEST_PROMPT, LONGEST = 4, 1024, 2048
"""vLLM's filter, tokens: least of a prompt and of an output; most of a prompt; most of both."""


@dataclass(frozen=True)
class Turns:
    """Everything said, conversation after conversation."""

    conversation: Ints
    """int64[n], ascending."""
    answer: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    """bool[n]: whether the model said it."""
    tokens: Ints
    """int64[n]"""
    line: Ints
    """int64[n]: line of the file, or number of the conversation from 1."""


def first_exchanges(turns: Turns) -> tuple[Ints, Ints]:
    """Return the turns (prompt, output) that begin each conversation of two turns or more and pass vLLM's filter."""
    starts = np.flatnonzero(np.diff(turns.conversation, prepend=-1))
    ends = np.append(starts[1:], len(turns.conversation))
    starts = starts[ends - starts >= 2]
    prompt, output = turns.tokens[starts], turns.tokens[starts + 1]
    good = (prompt >= SHORTEST) & (output >= SHORTEST) & (prompt <= LONGEST_PROMPT) & (prompt + output <= LONGEST)
    return starts[good], starts[good] + 1


def every_answer(turns: Turns) -> tuple[Ints, Ints, Prefixes]:
    """Return each answer's turn, its prompt's tokens, and the prompt's pieces: every turn is a content of its own."""
    count = len(turns.tokens)
    starts = np.flatnonzero(np.diff(turns.conversation, prepend=-1))
    start = np.repeat(starts, np.diff(np.append(starts, count)))
    before = np.cumsum(turns.tokens) - turns.tokens
    history = before - before[start]
    answers = np.flatnonzero(turns.answer & (history > 0) & (turns.tokens > 0))
    pieces = answers - start[answers]
    offsets = np.concatenate([[0], np.cumsum(pieces)])
    ids = np.repeat(start[answers] - offsets[:-1], pieces) + np.arange(offsets[-1])
    return answers, history[answers], Prefixes(ids, turns.tokens[ids], offsets, answers)


def rows_of(turns: Turns, options: Options, faults: list[Fault], notes: list[str]) -> Rows:
    """Make requests of conversations, all at once as they have no times."""
    conversations = len(np.unique(turns.conversation))
    notes = [*notes, "conversations have no times: all requests arrive at once unless arrivals are given"]
    prefixes = None
    if options.turns == "first":
        asked, said = first_exchanges(turns)
        prompt, output = turns.tokens[asked], turns.tokens[said]
        notes.append(
            f"{len(said):,} of {conversations:,} conversations pass vLLM's filter (turns: all takes every answer)"
        )
    else:
        said, prompt, prefixes = every_answer(turns)
        output = turns.tokens[said]
    return Rows(
        np.zeros(len(said)),
        prompt.astype(np.float64),
        output.astype(np.float64),
        lambda rows: turns.line[said[rows]].tolist(),
        faults,
        prefixes,
        notes=notes,
    )


class ShareGpt:
    """ShareGPT's JSON: a list of conversations with `from` and `value`."""

    name = "sharegpt"
    about = "ShareGPT JSON: conversations of from and value (text; tokens are counted or estimated), no times"

    def matches(self, file: TraceFile) -> bool:
        """Say whether it is a JSON list whose first item has conversations."""
        head = file.head.lstrip()
        return head.startswith("[") and '"conversations"' in head[:4096]

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read all conversations; a text's length is taken and the text dropped."""
        try:
            chats = parse(file.data)
        except BadRow as error:
            raise WorkloadError(f"{file.name}: {error}") from None
        if not isinstance(chats, list):
            raise WorkloadError(f"{file.name}: must be a list of conversations")
        count, notes = token_counter(options.tokenizer)
        said: list[tuple[int, bool, int]] = []
        faults: list[Fault] = []
        for number, chat in enumerate(chats, 1):
            try:
                turns = [_turn(turn) for turn in _turns(chat)]
            except BadRow as error:
                faults.append((number, f"conversation {number}: {error}"))
                continue
            said += [(number, speaker in ANSWERS, count(text)) for speaker, text in turns]
        table = np.array(said, np.int64).reshape(-1, 3)
        return rows_of(Turns(table[:, 0], table[:, 1] == 1, table[:, 2], table[:, 0]), options, faults, notes)


def _turns(chat: Any) -> list[Any]:
    turns = chat.get("conversations", chat.get("conversation")) if isinstance(chat, dict) else None
    if not isinstance(turns, list):
        raise BadRow("has no list of conversations")
    return turns


def _turn(turn: Any) -> tuple[str, str]:
    if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
        raise BadRow("a turn without a text value")
    return str(turn.get("from")), turn["value"]


class TurnLengths:
    """Lengths of every turn: conv_index, turn_index, role (u, a, s), and tokens."""

    name = "turns"
    about = "turn lengths: conv_index, turn_index, role (u, a, s), gpt2_tokens; no times"

    def matches(self, file: TraceFile) -> bool:
        """Say whether the header has the columns."""
        return {"conv_index", "turn_index", "role", "gpt2_tokens"} <= set(file.header)

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read all turns."""
        columns = read_csv(file, {"conv_index": "number", "role": "text", "gpt2_tokens": "number"})
        good = np.isfinite(columns["conv_index"]) & (columns["gpt2_tokens"] >= 0) & (columns["gpt2_tokens"] < 1 << 31)
        bad = np.flatnonzero(~good)
        faults: list[Fault] = [(line, "conv_index and gpt2_tokens must be counts") for line in columns.lines(bad)]
        keep = np.flatnonzero(good)
        keep = keep[np.argsort(columns["conv_index"][keep], kind="stable")]
        turns = Turns(
            np.unique(columns["conv_index"][keep], return_inverse=True)[1],
            columns["role"][keep] == "a",
            np.rint(columns["gpt2_tokens"][keep]).astype(np.int64),
            keep,
        )
        rows = rows_of(turns, options, [*columns.faults, *faults], [])
        return replace(rows, lines=lambda which: columns.lines(np.array(rows.lines(which), np.int64)))


SHAREGPT = ShareGpt()
TURNS = TurnLengths()
