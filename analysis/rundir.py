"""The run directory: the one format that runs write and everything else reads.

    DIR/manifest.json            the resolved workload, seed, versions, pool, wall-clock facts
    DIR/summary.json             {"schema": 1, "runs": [...]}: metrics and ledger of every run
    DIR/<label>/requests.parquet one row a request
    DIR/<label>/steps.parquet    one row a step; rows tile time from 0 to the end, an idle gap is a row
    DIR/<label>/blocks.parquet   snapshots of the block map
    DIR/<label>/events.parquet   requests refused, preempted and brought back: when, why, and for whom
    DIR/<label>/sustained.json   optional: the rate that it sustains, and every rate that was tried
    DIR/<label>/repeat-<k>/...   the same files for replications k = 1, 2, ...
    DIR/report.html

Times are seconds from the start of the workload.  This module holds the column schemas;
`COLUMNS` says what each column means.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

_word = pa.dictionary(pa.int8(), pa.string())

REQUESTS = pa.schema(
    [
        pa.field("request_id", pa.int64(), metadata={"is": "position in the workload, from 0"}),
        pa.field("arrival_s", pa.float64(), metadata={"is": "arrival"}),
        pa.field("prompt_tokens", pa.int32(), metadata={"is": "prompt length"}),
        pa.field("output_tokens", pa.int32(), metadata={"is": "output length wanted"}),
        pa.field("samples", pa.int16(), metadata={"is": "parallel samples or beams"}),
        pa.field("status", _word, metadata={"is": "finished, refused or unfinished"}),
        pa.field("reason", _word, metadata={"is": "why refused, or how the output was cut; else empty"}),
        pa.field("generated_tokens", pa.int32(), metadata={"is": "output tokens produced, of one sample"}),
        pa.field("scheduled_s", pa.float64(), metadata={"is": "start of the first step that ran it; NaN if none"}),
        pa.field("first_token_s", pa.float64(), metadata={"is": "first output token; NaN if none"}),
        pa.field("finish_s", pa.float64(), metadata={"is": "last output token delivered; NaN if unfinished"}),
        pa.field(
            "cached_tokens", pa.int32(), metadata={"is": "prompt tokens found in the prefix cache at first admission"}
        ),
        pa.field("recomputed_tokens", pa.int32(), metadata={"is": "tokens computed again after preemptions"}),
        pa.field("swapped_blocks", pa.int32(), metadata={"is": "blocks moved to the host and back"}),
        pa.field("preemptions", pa.int32(), metadata={"is": "times it lost its memory"}),
        pa.field(
            "prefix_group", pa.int32(), metadata={"is": "the same where prompts begin alike; -1 if no other one does"}
        ),
        pa.field(
            "stall_s",
            pa.list_(pa.float64()),
            metadata={"is": "gaps between its tokens that are not the `gap_s` of their step"},
        ),
    ]
)
STEPS = pa.schema(
    [
        pa.field("step", pa.int64(), metadata={"is": "step number; an idle gap repeats the number before it"}),
        pa.field("start_s", pa.float64(), metadata={"is": "start"}),
        pa.field("duration_s", pa.float64(), metadata={"is": "length; rows tile the time axis"}),
        pa.field("running", pa.int32(), metadata={"is": "sequences holding memory during the step; 0 in an idle gap"}),
        pa.field("waiting", pa.int32(), metadata={"is": "requests queued during the step, preempted ones included"}),
        pa.field("prefill_tokens", pa.int32(), metadata={"is": "prompt tokens computed (recomputation included)"}),
        pa.field("decode_tokens", pa.int32(), metadata={"is": "sequences that decoded one token"}),
        pa.field("gap_s", pa.float64(), metadata={"is": "time since the previous token, of most that decoded"}),
        pa.field("gap_tokens", pa.int32(), metadata={"is": "how many of them; the others are in stall_s"}),
        pa.field("live", pa.int64(), metadata={"is": "ledger, token slots"}),
        pa.field("reserved", pa.int64(), metadata={"is": "ledger, token slots"}),
        pa.field("internal", pa.int64(), metadata={"is": "ledger, token slots"}),
        pa.field("rounding", pa.int64(), metadata={"is": "ledger, token slots"}),
        pa.field("cached", pa.int64(), metadata={"is": "ledger, token slots"}),
        pa.field("external", pa.int64(), metadata={"is": "ledger, token slots"}),
        pa.field("free", pa.int64(), metadata={"is": "ledger, token slots"}),
        pa.field("shared_savings", pa.int64(), metadata={"is": "token slots that sharing avoids"}),
        pa.field("swapped", pa.int64(), metadata={"is": "token slots on the host"}),
        pa.field("largest_hole", pa.int64(), metadata={"is": "token slots in the longest free run"}),
        pa.field(
            "preemptions", pa.int32(), metadata={"is": "sequences that lost their memory when the step was planned"}
        ),
        pa.field("evicted", pa.int32(), metadata={"is": "cached blocks evicted for the step, their room being needed"}),
        pa.field("mapped_pages", pa.int64(), metadata={"is": "physical pages mapped for the step"}),
        pa.field(
            "mapping_hidden_s", pa.float64(), metadata={"is": "driver calls for pages while the step before computed"}
        ),
        pa.field("mapping_exposed_s", pa.float64(), metadata={"is": "driver calls for pages that the step waited for"}),
        pa.field(
            "blocked",
            _word,
            metadata={"is": "what keeps the head of the queue waiting: memory, seats, budget; else empty"},
        ),
    ]
)
BLOCKS = pa.schema(
    [
        pa.field("time_s", pa.float64(), metadata={"is": "instant of the snapshot"}),
        pa.field("block", pa.int32(), metadata={"is": "first physical block of a run of blocks alike"}),
        pa.field("count", pa.int32(), metadata={"is": "blocks in the run"}),
        pa.field("request_id", pa.int64(), metadata={"is": "owner; the lowest id of several; -1 if only cached"}),
        pa.field("references", pa.int32(), metadata={"is": "sequences that hold it; 0 if cached or padding"}),
        pa.field("slack", pa.int32(), metadata={"is": "empty slots in the run"}),
    ]
)
EVENTS = pa.schema(
    [
        pa.field("time_s", pa.float64(), metadata={"is": "instant; rows are in the order of the steps"}),
        pa.field("request_id", pa.int64(), metadata={"is": "whom it happened to"}),
        pa.field("event", _word, metadata={"is": "preempt, resume, recomputed, swap_out, swap_in or refuse"}),
        pa.field("slots", pa.int64(), metadata={"is": "token slots it lost, got back, or would need in the end"}),
        pa.field("cause", pa.int64(), metadata={"is": "request whose growth took its memory; -1 if none"}),
        pa.field("reason", _word, metadata={"is": "why refused, or what that growth lacked; empty if it came back"}),
    ]
)
"""Where events.parquet is missing, reports look for memory events in the block map, to the nearest snapshot."""
LEDGER = ("live", "reserved", "internal", "rounding", "cached", "external", "free")
COLUMNS = {
    name: {field.name: field.metadata[b"is"].decode() for field in schema}
    for name, schema in (("requests", REQUESTS), ("steps", STEPS), ("blocks", BLOCKS), ("events", EVENTS))
}
