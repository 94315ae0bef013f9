"""Every scheduler on cases small enough to be worked out by hand.

A step takes one millisecond.  Most cases serve three requests from a pool of 4 blocks of 4
slots: A (prompt 6, output 4: fills 9 slots), B (3, 4: 6 slots) and C (2, 2: 3 slots).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim.limits import Limits
from tests.engine.harness import Clock, Memory, Setup, ask, audit
from workloads.requests import Prefixes, Requests

ABC = ask((0, 6, 4), (0, 3, 4), (0, 2, 2))
LEDGER = ("live", "reserved", "internal", "free")


LIMITS = Limits(max_num_seqs=3, max_num_batched_tokens=8, max_model_len=12, chunked_prefill=False)
POOL = Setup(limits=LIMITS, slots=16, options={"block_size": 4}, clock=Clock(), instants=0)


def run(setup: Setup, requests: Requests, engine: str) -> Memory:
    outcome, sink = setup.run(requests, reference=engine == "reference", leaps=engine == "leaping")
    audit(setup, outcome, sink, len(requests))
    return sink


def rows(sink: Memory, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in sink.rows("steps")]


def ms(sink: Memory, name: str) -> list[Any]:
    return [value if value == "nan" else round(value * 1e3, 6) for value in sink.tables["requests"][name]]


@pytest.fixture(params=["reference", "stepping", "leaping"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_orca_runs_all_that_fit_and_preempts_the_newest(engine: str) -> None:
    sink = run(replace(POOL, scheduler="orca"), ABC, engine)
    assert rows(sink, "running", "waiting", "prefill_tokens", "decode_tokens", "preemptions", *LEDGER) == [
        (3, 0, 11, 0, 0, 11, 4, 1, 0),  # A 2 blocks, B 1, C 1, of whose 4 slots it fills 3
        (3, 0, 0, 3, 0, 14, 1, 1, 0),
        (2, 0, 0, 2, 0, 13, 1, 2, 0),  # C has left a block, which B's fifth token takes
        (1, 1, 0, 1, 1, 9, 0, 3, 4),  # A's ninth token takes a block of B
        (1, 0, 6, 0, 0, 6, 0, 2, 8),  # B computes its prompt and three output tokens, five of them again
    ]
    assert ms(sink, "first_token_s") == [1, 1, 1]
    assert ms(sink, "finish_s") == [4, 5, 2]
    table = sink.tables["requests"]
    assert table["preemptions"] == [0, 1, 0]
    assert table["recomputed_tokens"] == [0, 5, 0]
    assert table["stall_s"] == [[], [0.002], []]


def test_who_was_preempted_goes_before_those_that_wait(engine: str) -> None:
    sink = run(replace(POOL, scheduler="orca"), ask((0, 6, 4), (0, 3, 4), (0, 2, 2), (2.5, 9, 1)), engine)
    assert ms(sink, "finish_s") == [4, 5, 2, 6], "the last, which came before B was preempted, needs 3 of 4 blocks"


def test_events_say_who_lost_memory_to_whom_and_why(engine: str) -> None:
    requests = ask((0, 6, 4), (0, 3, 4), (0, 2, 2), (2.5, 12, 1))
    lacked = "too few free blocks"
    for swap in (False, True):
        options = {"block_size": 4, "host_blocks": 4 * swap}
        sink = run(replace(POOL, scheduler="orca", swap=swap, options=options), requests, engine)
        assert [tuple(row.values()) for row in sink.rows("events")] == [
            (0.0025, 3, "refuse", 12, -1, "longer than max_model_len"),
            (0.003, 1, "swap_out" if swap else "preempt", 8, 0, lacked),  # A's ninth token takes a block of B
            (0.004, 1, "swap_in" if swap else "resume", 8, -1, ""),
            *([] if swap else [(0.005, 1, "recomputed", 8, -1, "")]),
        ]


def test_static_takes_the_memory_of_early_finishers_first(engine: str) -> None:
    requests = ask((0, 6, 4), (0, 3, 4), (0, 2, 2), (0.5, 1, 1))
    sink = run(replace(POOL, scheduler="static"), requests, engine)
    assert rows(sink, "running", "waiting", "prefill_tokens", "decode_tokens", "preemptions", "blocked", *LEDGER) == [
        (3, 0, 11, 0, 0, "", 11, 4, 1, 0),
        (3, 1, 0, 3, 0, "order", 14, 1, 1, 0),  # the fourth waits for the batch
        (2, 1, 0, 2, 0, "order", 13, 1, 2, 0),  # C lingered, until B needed its block
        (1, 2, 0, 1, 1, "", 9, 0, 3, 4),  # nobody lingers, so B loses its memory
        (2, 0, 7, 0, 0, "", 7, 0, 5, 4),  # a new batch
    ]
    assert ms(sink, "finish_s") == [4, 5, 2, 5]


def test_static_keeps_seat_and_memory_of_a_finished_request_until_its_batch_ends(engine: str) -> None:
    requests = ask((0, 3, 2), (0, 2, 4), (0.5, 4, 1))
    sink = run(replace(POOL, scheduler="static", slots=32), requests, engine)
    assert rows(sink, "running", "waiting", "decode_tokens", "blocked", *LEDGER) == [
        (2, 0, 0, "", 5, 3, 0, 24),
        (2, 1, 2, "order", 7, 1, 0, 24),
        (2, 1, 1, "order", 4, 0, 4, 24),  # what the first has written will not be read again
        (2, 1, 1, "order", 5, 0, 7, 20),
        (1, 0, 0, "", 4, 0, 0, 28),
    ]
    assert ms(sink, "finish_s") == [2, 4, 5]


def test_vllm_v0_prefills_before_it_decodes(engine: str) -> None:
    sink = run(replace(POOL, scheduler="vllm-v0"), ABC, engine)
    assert rows(sink, "waiting", "prefill_tokens", "decode_tokens", "preemptions", "blocked", *LEDGER) == [
        (2, 6, 0, 0, "budget", 6, 2, 0, 8),  # B's prompt does not fit into the 2 tokens left
        (0, 5, 0, 0, "", 11, 4, 1, 0),  # A stands still
        (0, 0, 3, 0, "", 14, 1, 1, 0),
        (0, 0, 2, 0, "", 13, 1, 2, 0),
        (1, 0, 1, 1, "", 9, 0, 3, 4),
        (0, 6, 0, 0, "", 6, 0, 2, 8),
    ]
    assert ms(sink, "first_token_s") == [1, 2, 2]
    assert ms(sink, "finish_s") == [5, 6, 3]
    assert rows(sink, "gap_s", "gap_tokens")[2] == (0.001, 2)  # B and C; A's gap is a stall
    assert sink.tables["requests"]["stall_s"] == [[0.002], [0.002], []]


def test_vllm_v0_swaps_out_the_newest_and_brings_it_back(engine: str) -> None:
    setup = replace(POOL, scheduler="vllm-v0", swap=True, options={"block_size": 4, "host_blocks": 4})
    sink = run(setup, ABC, engine)
    assert rows(sink, "waiting", "prefill_tokens", "decode_tokens", "preemptions", "swapped", *LEDGER)[4:] == [
        (1, 0, 1, 1, 8, 9, 0, 3, 4),
        (0, 0, 1, 0, 0, 6, 0, 2, 8),
    ]
    assert ms(sink, "finish_s") == [5, 6, 3]
    assert sink.tables["requests"]["swapped_blocks"] == [0, 4, 0]
    assert sink.tables["requests"]["recomputed_tokens"] == [0, 0, 0]
    assert rows(sink, "gap_s")[5] == (0.002,)


def test_vllm_v1_spends_a_budget_on_decodes_then_chunks_then_the_queue(engine: str) -> None:
    setup = replace(POOL, limits=replace(LIMITS, chunked_prefill=True))
    sink = run(setup, ABC, engine)
    assert rows(sink, "waiting", "prefill_tokens", "decode_tokens", "preemptions", "blocked", *LEDGER) == [
        (1, 8, 0, 0, "budget", 8, 4, 0, 4),  # all of A, two tokens of B
        (0, 3, 1, 0, "", 12, 3, 1, 0),  # A decodes, B's last prompt token, all of C
        (0, 0, 3, 0, "", 15, 0, 1, 0),
        (1, 0, 1, 1, "", 9, 0, 3, 4),  # A takes the block that C left, so B, the newest, gives up its own
        (0, 5, 0, 0, "", 5, 1, 2, 8),
        (0, 0, 1, 0, "", 6, 0, 2, 8),
    ]
    assert ms(sink, "scheduled_s") == [0, 0, 1]
    assert ms(sink, "first_token_s") == [1, 2, 2]
    assert ms(sink, "finish_s") == [4, 6, 3]
    table = sink.tables["requests"]
    assert table["recomputed_tokens"] == [0, 4, 0]
    assert table["stall_s"] == [[], [0.002], []]


def test_vllm_v1_preempts_from_the_tail_and_the_queue_keeps_its_order(engine: str) -> None:
    """A's third chunk needs a block that only the newest has; then B, now the newest, cannot grow either."""
    setup = replace(
        POOL,
        slots=8,
        options={"block_size": 2},
        limits=replace(LIMITS, chunked_prefill=True, full_prompt_gate=False, long_prefill_token_threshold=2),
    )
    sink = run(setup, ask((0, 6, 1), (0, 1, 4), (0, 1, 4)), engine)
    assert rows(sink, "running", "waiting", "prefill_tokens", "decode_tokens", "preemptions", "free")[:4] == [
        (3, 0, 4, 0, 0, 2),
        (3, 0, 2, 2, 0, 0),
        (1, 2, 2, 0, 2, 2),
        (2, 0, 4, 0, 0, 4),  # B and C come back, each with two of its three tokens: its cap
    ]
    assert sink.tables["requests"]["preemptions"][0] == 0
    scheduled = sink.tables["requests"]["finish_s"]
    assert scheduled[0] < scheduled[1] <= scheduled[2]


def test_vllm_v1_without_chunks_lets_a_long_prompt_wait(engine: str) -> None:
    sink = run(replace(POOL, slots=32), ask((0, 6, 1), (0, 4, 1), (0, 2, 1)), engine)
    assert rows(sink, "waiting", "prefill_tokens", "blocked") == [(2, 6, "budget"), (0, 6, "")]


def test_the_gate_keeps_a_prompt_out_that_cannot_be_finished(engine: str) -> None:
    """Three of four blocks are held when B asks for two: with the gate it waits, without it a chunk goes in."""
    limits = replace(LIMITS, chunked_prefill=True, max_num_batched_tokens=10, long_prefill_token_threshold=4)
    gated = replace(POOL, limits=limits)
    requests = ask((0, 9, 3), (0.5, 8, 1))
    assert rows(run(gated, requests, engine), "waiting", "prefill_tokens", "blocked")[:3] == [
        (0, 9, ""),
        (1, 0, "memory"),
        (1, 0, "memory"),
    ]
    sink = run(replace(gated, limits=replace(limits, full_prompt_gate=False)), requests, engine)
    assert rows(sink, "waiting", "prefill_tokens", "decode_tokens", "preemptions") == [
        (0, 9, 0, 0),
        (0, 4, 1, 0),
        (1, 0, 1, 1),  # B's second chunk lacks a block, so B gives up its first
        (0, 8, 0, 0),  # alone, it has no cap
    ]
    assert sink.tables["requests"]["recomputed_tokens"] == [0, 4]


def test_what_ends_in_one_step_leaves_in_running_order_whether_it_decodes_or_not(engine: str) -> None:
    """The last chunk of A and the last decode of B end both: C takes the block that was given back last, B's."""
    limits = replace(LIMITS, chunked_prefill=True, long_prefill_token_threshold=4)
    sink = run(replace(POOL, limits=limits, instants=16), ask((0, 9, 1), (0, 2, 3), (4, 4, 3)), engine)
    assert ms(sink, "finish_s") == [3, 3, 7]
    (place,) = {row["block"] for row in sink.rows("blocks") if row["request_id"] == 1}
    assert next(row["block"] for row in sink.rows("blocks") if row["request_id"] == 2) == place


def test_the_watermark_holds_back_admission_while_something_runs(engine: str) -> None:
    setup = replace(POOL, scheduler="orca", limits=replace(LIMITS, watermark=0.4))
    sink = run(setup, ask((0, 8, 3), (0, 4, 1)), engine)
    assert rows(sink, "running", "waiting", "blocked", "free")[0] == (1, 1, "memory", 8)  # int(0.4 x 5) blocks stay
    assert ms(sink, "scheduled_s") == [0, 3]


def test_a_hole_too_small_is_external_fragmentation(engine: str) -> None:
    """Buddy runs of 4 and 1 leave holes of 1 and 2; the third request reserves 4."""
    options = {"reserve": "oracle", "placement": "buddy"}
    setup = replace(POOL, scheduler="orca", kind="contiguous", slots=8, options=options, instants=16)
    sink = run(setup, ask((0, 2, 2), (0, 1, 1), (0, 2, 3)), engine)
    assert rows(sink, "running", "blocked", "rounding", "external", "largest_hole", *LEDGER)[:2] == [
        (2, "memory", 1, 3, 2, 3, 1, 0, 0),
        (2, "", 1, 0, 0, 5, 2, 0, 0),
    ]
    padding = [row for row in sink.rows("blocks") if row["references"] == 0]
    assert [(row["block"], row["count"], row["request_id"], row["slack"]) for row in padding[:1]] == [(4, 1, 0, 1)]


def test_a_prefix_is_shared_and_computed_once(engine: str) -> None:
    """Nine equal prompt tokens: two full blocks are found, the last token is always computed."""
    prefixes = Prefixes(np.array([1, 1]), np.array([9, 9]), np.arange(3), np.array([10, 11]))
    requests = Requests(np.array([0.0, 0.0005]), np.array([9, 9]), np.array([3, 2]), prefixes=prefixes)
    sink = run(
        replace(POOL, scheduler="orca", slots=32, options={"block_size": 4, "prefix_cache": True}), requests, engine
    )
    assert rows(sink, "prefill_tokens", "decode_tokens", "shared_savings", "cached", *LEDGER) == [
        (9, 0, 0, 0, 9, 2, 1, 20),
        (1, 1, 8, 0, 11, 2, 3, 16),
        (0, 2, 8, 0, 13, 0, 3, 16),
    ]
    assert sink.tables["requests"]["cached_tokens"] == [0, 8]
    assert sink.tables["requests"]["prefix_group"] == [0, 0]


def test_a_cached_block_is_evicted_when_its_room_is_needed(engine: str) -> None:
    """The first leaves its two full blocks in the cache; the second takes both, the later one as it decodes."""
    requests = ask((0, 9, 1), (5, 12, 2))
    prefixes = Prefixes(np.array([1, 2]), np.array([9, 12]), np.arange(3), np.array([10, 11]))
    setup = replace(
        POOL,
        scheduler="orca",
        slots=16,
        limits=replace(LIMITS, max_model_len=16),
        options={"block_size": 4, "prefix_cache": True},
    )
    sink = run(setup, replace(requests, prefixes=prefixes), engine)
    assert rows(sink, "prefill_tokens", "decode_tokens", "evicted", "cached", *LEDGER) == [
        (9, 0, 0, 0, 9, 0, 3, 4),
        (0, 0, 0, 8, 0, 0, 0, 8),
        (12, 0, 1, 4, 12, 0, 0, 0),
        (0, 1, 1, 0, 13, 0, 3, 0),
    ]


def test_samples_share_the_prompt_and_copy_a_half_full_block_once(engine: str) -> None:
    """Five prompt tokens, two samples: both write into the second block, so the first to write copies its one token."""
    setup = replace(POOL, scheduler="orca", clock=Clock(copied=1000))
    sink = run(setup, ask((0, 5, 3, 2)), engine)
    assert rows(sink, "running", "duration_s", "prefill_tokens", "decode_tokens", "shared_savings", *LEDGER) == [
        (2, 0.001, 5, 0, 0, 5, 2, 1, 8),
        (2, 0.001001, 0, 2, 4, 8, 2, 2, 4),
        (2, 0.001, 0, 2, 4, 10, 0, 2, 4),
    ]


def test_only_what_sequences_share_that_decode_in_a_step_is_read_again(engine: str) -> None:
    """A and B decode when C, which begins like them, computes its last three tokens in two steps: the budget is 4."""
    pieces = np.array([1, 1, 1, 2]), np.array([9, 9, 9, 2]), np.array([0, 1, 2, 4])
    prefixes = Prefixes(*pieces, outputs=np.array([10, 11, 12]))
    requests = Requests(np.array([0, 0.0025, 0.0035]), np.array([9, 9, 11]), np.array([7, 6, 4]), prefixes=prefixes)
    limits = Limits(max_num_seqs=3, max_num_batched_tokens=4, max_model_len=16)
    options = {"block_size": 4, "prefix_cache": True}
    sink = run(Setup(limits=limits, slots=64, options=options, clock=Clock(again=1000)), requests, engine)
    assert rows(sink, "prefill_tokens", "decode_tokens", "shared_savings", "duration_s")[3:9] == [
        (1, 1, 8, 0.001),  # B attends to what A decodes from, but does not decode
        (2, 2, 16, 0.000992),
        (1, 2, 16, 0.000992),
        (0, 3, 16, 0.000984),
        (0, 3, 16, 0.000984),
        (0, 3, 16, 0.000984),
    ]


def test_samples_with_rooms_of_their_own_copy_the_prompt(engine: str) -> None:
    setup = replace(POOL, scheduler="orca", kind="preallocated", slots=24, options={}, clock=Clock(copied=1000))
    sink = run(setup, ask((0, 5, 3, 2)), engine)
    assert rows(sink, "duration_s", "prefill_tokens", "decode_tokens", *LEDGER) == [
        (0.001, 5, 0, 5, 9, 10, 0),
        (0.001005, 0, 2, 12, 2, 10, 0),
        (0.001, 0, 2, 14, 0, 10, 0),
    ]


def test_growing_by_concatenation_copies_everything_at_every_step(engine: str) -> None:
    setup = replace(POOL, scheduler="orca", kind="growing", options={}, slots=64, clock=Clock(copied=1000))
    sink = run(setup, ask((0, 5, 3), (0, 2, 3)), engine)
    assert rows(sink, "duration_s", "live", "reserved", "internal") == [
        (0.001, 7, 0, 0),
        (0.001007, 9, 0, 0),
        (0.001009, 11, 0, 0),
    ]


def test_a_request_that_follows_another_arrives_some_time_after_its_end(engine: str) -> None:
    requests = Requests(
        np.zeros(3),
        np.array([4, 2, 2]),
        np.array([3, 1, 1]),
        after=np.array([-1, 0, -1]),
        delay_s=np.array([0.0, 0.0025, 0.0]),
    )
    sink = run(replace(POOL, scheduler="orca"), requests, engine)
    assert ms(sink, "arrival_s") == [0, 5.5, 0]
    assert ms(sink, "finish_s") == [3, 6.5, 1]
    assert rows(sink, "start_s", "running", "waiting")[3:] == [(0.003, 0, 0), (0.0055, 1, 0)]
