"""The run directory: the one format that runs write and everything else reads.

    DIR/manifest.json            the resolved workload, seed, versions, pool, wall-clock facts, SHA-256 of the results
    DIR/summary.json             {"schema": 1, "runs": [...]}: metrics and ledger of every run
    DIR/<label>/requests.parquet one row a request
    DIR/<label>/steps.parquet    one row a step; rows tile time from 0 to the end, an idle gap is a row
    DIR/<label>/blocks.parquet   snapshots of the block map
    DIR/<label>/events.parquet   requests refused, preempted and brought back: when, why, and for whom
    DIR/<label>/sustained.json   optional: the rate that it sustains, and every rate that was tried
    DIR/<label>/repeat-<k>/...   the same files for replications k = 1, 2, ...
    DIR/report.html

Times are seconds from the start of the workload.  This module holds the column schemas, in which
each column says what it means (`meaning`).
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from analysis.observed import CAUSES, LEDGER_WORDS

WALL_CLOCK = ("started", "wall_s")
"""What a manifest says of the run itself; all else in a directory depends on the workload alone, to the byte."""

_word = pa.dictionary(pa.int8(), pa.string())


def _field(name: str, kind: pa.DataType, what: str) -> pa.Field:
    """Make a column that is never null: so nothing is written, or read, to say which rows are."""
    return pa.field(name, kind, nullable=False, metadata={"is": what})


REQUESTS = pa.schema(
    [
        _field("request_id", pa.int64(), "position in the workload, from 0"),
        _field("arrival_s", pa.float64(), "arrival"),
        _field("prompt_tokens", pa.int32(), "prompt length"),
        _field("output_tokens", pa.int32(), "output length wanted"),
        _field("samples", pa.int16(), "parallel samples or beams"),
        _field("status", _word, "finished, refused or unfinished"),
        _field("reason", _word, "why refused, or how the output was cut; else empty"),
        _field("generated_tokens", pa.int32(), "output tokens produced, of one sample"),
        _field("scheduled_s", pa.float64(), "start of the first step that ran it; NaN if none"),
        _field("first_token_s", pa.float64(), "first output token; NaN if none"),
        _field("finish_s", pa.float64(), "last output token delivered; NaN if unfinished"),
        _field("cached_tokens", pa.int32(), "prompt tokens found in the prefix cache at first admission"),
        _field("recomputed_tokens", pa.int32(), "tokens prefilled again after preemptions"),
        _field("swapped_blocks", pa.int32(), "blocks moved to the host and back"),
        _field("preemptions", pa.int32(), "times it lost its memory"),
        _field("prefix_group", pa.int32(), "the same where prompts begin alike; -1 if no other one does"),
        _field(
            "stall_s",
            pa.list_(pa.float64()),
            "gaps between its tokens that are not the `gap_s` of their step",
        ),
    ]
)
STEPS = pa.schema(
    [
        _field("step", pa.int64(), "step number; an idle gap repeats the number before it"),
        _field("start_s", pa.float64(), "start"),
        _field("duration_s", pa.float64(), "length; rows tile the time axis"),
        _field(
            "running",
            pa.int32(),
            "sequences admitted and not preempted, those of an unended static batch included; 0 in an idle gap",
        ),
        _field("waiting", pa.int32(), "requests queued as the step starts, preempted ones included"),
        _field("prefill_tokens", pa.int32(), "prompt tokens computed (recomputation included)"),
        _field("decode_tokens", pa.int32(), "sequences that decoded one token"),
        _field("gap_s", pa.float64(), "time since the previous token, of most that decoded"),
        _field("gap_tokens", pa.int32(), "how many of them; the others are in stall_s"),
        *(_field(share, pa.int64(), f"token slots: {words}") for share, words in LEDGER_WORDS.items()),
        _field("shared_savings", pa.int64(), "token slots that sharing avoids"),
        _field("swapped", pa.int64(), "token slots on the host"),
        _field("largest_hole", pa.int64(), "token slots in the longest free run"),
        _field("preemptions", pa.int32(), "requests that lost their memory when the step was planned"),
        _field("evicted", pa.int32(), "cached blocks evicted for the step, their room being needed"),
        _field("mapped_pages", pa.int64(), "physical pages mapped for the step"),
        _field("mapping_hidden_s", pa.float64(), "driver calls for pages while the step before computed"),
        _field("mapping_exposed_s", pa.float64(), "driver calls for pages that the step waited for"),
        _field(
            "blocked",
            _word,
            "what keeps the head of the queue waiting: memory, seats, budget, or order (its turn, behind preempted "
            "requests or a static batch); else empty",
        ),
    ]
)
BLOCKS = pa.schema(
    [
        _field("time_s", pa.float64(), "instant of the snapshot"),
        _field("block", pa.int32(), "first physical block of a run of blocks alike"),
        _field("count", pa.int32(), "blocks in the run"),
        _field("request_id", pa.int64(), "owner; the lowest id of several; -1 if only cached"),
        _field("references", pa.int32(), "sequences that hold it; 0 if cached or padding"),
        _field("slack", pa.int32(), "empty slots in the run"),
    ]
)
EVENTS = pa.schema(
    [
        _field("time_s", pa.float64(), "instant; rows are in the order of the steps"),
        _field("request_id", pa.int64(), "whom it happened to"),
        _field("event", _word, "preempt, resume, recomputed, swap_out, swap_in or refuse"),
        _field("slots", pa.int64(), "token slots it lost, got back, or would need in the end"),
        _field("cause", pa.int64(), "request whose growth took its memory; -1 if none"),
        _field("reason", _word, "why refused, or what that growth lacked; empty if it came back"),
    ]
)
"""Where events.parquet is missing, reports look for memory events in the block map, to the nearest snapshot."""
WORDS = {
    "status": ("finished", "refused", "unfinished"),
    "blocked": ("", *CAUSES),
    "event": ("preempt", "resume", "recomputed", "swap_out", "swap_in", "refuse"),
}
"""What columns of words may say; a reason may be any."""
LARGEST = 2**31 - 1
"""Of all integers: pages keep 32 bits of each."""
TABLES = {"requests": REQUESTS, "steps": STEPS, "blocks": BLOCKS, "events": EVENTS}
EACH = ".NAME"
"""What the name of a column ends with that there is one of for each part of a mix."""
MORE = {
    "requests": pa.schema([_field("part", _word, "part of a mix that it belongs to; only if there is one")]),
    "steps": pa.schema([_field(f"gap_tokens{EACH}", pa.int32(), "how many of `gap_tokens` are of one part of a mix")]),
}
"""Columns that only some runs have."""


def layout(table: str, present: Iterable[str]) -> pa.Schema:
    """Return the columns of a table: those that all runs have, and of the others those that are `present`."""
    fields = list(TABLES[table])
    for field in MORE.get(table, ()):
        head = field.name.removesuffix("NAME")
        each = field.name.endswith(EACH)
        fields += [field.with_name(name) for name in present if (name.startswith(head) if each else name == head)]
    return pa.schema(fields)


def meaning(field: pa.Field) -> str:
    """Say what a column is."""
    return str(field.metadata[b"is"].decode())
