"""Every metric against a case small enough to compute by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from analysis.metrics import PER_REQUEST, formulas, good, itl_s, missed
from analysis.observed import Observed, plain
from analysis.rundir import REQUESTS, STEPS
from analysis.summary import summarise

RUN = {
    "label": "a",
    "kind": "paged",
    "scheduler": "s",
    "repeat": 0,
    "capacity": 100,
    "block_size": 10,
    "block_bytes": 40,
}
Case = tuple[dict[str, Any], dict[str, Any]]
NAN = float("nan")


def words(*values: str) -> npt.NDArray[Any]:
    return np.array(values, dtype=object)


@pytest.fixture
def case() -> Case:
    """Three requests on 10 s: one runs 0-6 s, one waits, is preempted and ends unfinished, one is refused."""
    requests = {
        "request_id": np.arange(3),
        "arrival_s": np.array([0.0, 1.0, 2.0]),
        "prompt_tokens": np.array([10, 20, 500]),
        "output_tokens": np.array([3, 4, 5]),
        "samples": np.array([1, 1, 1]),
        "status": words("finished", "unfinished", "refused"),
        "reason": words("", "", "larger than the whole pool"),
        "generated_tokens": np.array([3, 2, 0]),
        "scheduled_s": np.array([0.0, 4.0, NAN]),
        "first_token_s": np.array([2.0, 6.0, NAN]),
        "finish_s": np.array([6.0, NAN, NAN]),
        "cached_tokens": np.array([5, 0, 0]),
        "recomputed_tokens": np.array([0, 21, 0]),
        "swapped_blocks": np.array([0, 2, 0]),
        "preemptions": np.array([0, 1, 0]),
        "prefix_group": np.array([-1, -1, -1]),
        "stall_s": np.array([4.0]),
        "stall_count": np.array([0, 1, 0]),
    }
    steps = {
        "step": np.array([0, 1, 2, 3]),
        "start_s": np.array([0.0, 2.0, 4.0, 6.0]),
        "duration_s": np.array([2.0, 2.0, 2.0, 4.0]),
        "running": np.array([1, 1, 2, 1]),
        "waiting": np.array([0, 1, 0, 0]),
        "prefill_tokens": np.array([5, 0, 20, 21]),
        "decode_tokens": np.array([0, 1, 1, 0]),
        "gap_s": np.array([0.0, 2.0, 2.0, 0.0]),
        "gap_tokens": np.array([0, 1, 1, 0]),
        "live": np.array([10, 11, 32, 21]),
        "reserved": np.array([2, 1, 3, 1]),
        "internal": np.array([8, 8, 2, 8]),
        "rounding": np.array([0, 0, 3, 0]),
        "cached": np.array([0, 10, 10, 10]),
        "external": np.array([0, 10, 0, 0]),
        "free": np.array([80, 60, 50, 60]),
        "shared_savings": np.array([0, 0, 5, 0]),
        "swapped": np.array([0, 0, 0, 20]),
        "largest_hole": np.array([80, 35, 25, 60]),
        "preemptions": np.array([0, 0, 0, 1]),
        "evicted": np.array([0, 0, 0, 0]),
        "mapped_pages": np.array([20, 0, 10, 10]),
        "mapping_hidden_s": np.array([0.0, 0.0, 0.1, 0.3]),
        "mapping_exposed_s": np.array([0.4, 0.0, 0.0, 0.2]),
        "blocked": words("", "memory", "", ""),
    }
    return requests, steps


@pytest.fixture
def entry(case: Case) -> dict[str, Any]:
    return summarise(*case, RUN, {"ttft_s": 2.5, "tpot_s": 2.0})


def test_cases_have_the_columns_of_the_schema(case: Case) -> None:
    requests, steps = case
    assert set(requests) - {"stall_count"} == set(REQUESTS.names)
    assert set(steps) == set(STEPS.names)


def test_per_request_metrics(entry: dict[str, Any]) -> None:
    metrics = entry["metrics"]
    assert metrics["ttft_s"]["mean"] == pytest.approx((2 + 5) / 2)
    assert metrics["ttft_s"]["n"] == 2
    assert metrics["e2e_s"] == {"mean": 6.0, "p50": 6.0, "p90": 6.0, "p95": 6.0, "p99": 6.0, "max": 6.0, "n": 1} | {
        "ci95": {name: [None, None] for name in ("mean", "p50", "p90", "p95", "p99")}
    }
    assert metrics["tpot_s"]["mean"] == pytest.approx((6 - 2) / (3 - 1))
    assert metrics["queue_s"]["mean"] == pytest.approx((0 + 3) / 2)
    assert metrics["normalized_latency_s"]["mean"] == pytest.approx(6 / 3)


def test_gaps_count_steps_by_their_tokens_and_every_stall(entry: dict[str, Any]) -> None:
    assert entry["metrics"]["itl_s"]["n"] == 3
    assert entry["metrics"]["itl_s"]["mean"] == pytest.approx((2 + 2 + 4) / 3)
    assert entry["metrics"]["itl_s"]["max"] == 4.0


def test_rates_divide_by_the_whole_run(entry: dict[str, Any]) -> None:
    metrics = entry["metrics"]
    assert entry["duration_s"] == 10.0
    assert metrics["throughput_rps"] == pytest.approx(1 / 10)
    assert metrics["output_tps"] == pytest.approx((3 + 2) / 10)
    assert metrics["total_tps"] == pytest.approx((3 + 2 + 10 + 20) / 10)
    assert metrics["goodput_rps"] == pytest.approx(1 / 10)


def test_every_sample_s_output_counts(case: Case) -> None:
    requests, steps = case
    requests["samples"][0] = 4
    metrics = summarise(requests, steps, RUN)["metrics"]
    assert metrics["output_tps"] == pytest.approx((4 * 3 + 2) / 10)
    assert metrics["total_tps"] == pytest.approx((4 * 3 + 2 + 10 + 20) / 10)


def test_what_a_request_misses_is_told_by_limit(case: Case) -> None:
    requests, steps = case
    slo = {"ttft_s": 1.9, "tpot_s": 2.1, "itl_s": 2.1, "e2e_s": None}
    seen = Observed(requests, steps, RUN["capacity"], slo)
    over = {name: int(those.sum()) for name, those in missed(seen)}
    assert set(over) == {"unfinished", "ttft_s", "tpot_s", "itl_s"}
    assert over["unfinished"] == int((requests["status"] != "finished").sum()) > 0
    assert over["ttft_s"] > 0
    assert int(good(seen).sum()) == len(requests["status"]) - int(np.any([those for _, those in missed(seen)], 0).sum())


def test_goodput_needs_every_limit(case: Case) -> None:
    for slo, count in (({"ttft_s": 1.9}, 0), ({"tpot_s": 2.1}, 1), ({"itl_s": 1.9}, 0), ({"itl_s": 2.1}, 1)):
        assert summarise(*case, RUN, slo)["metrics"]["goodput_rps"] == pytest.approx(count / 10), slo
    assert summarise(*case, RUN, {})["metrics"]["goodput_rps"] is None


def test_a_cost_needs_a_price(case: Case) -> None:
    assert summarise(*case, RUN)["metrics"]["cost_per_million_output_tokens"] is None
    priced = summarise(*case, {**RUN, "price_per_hour": 3.6})["metrics"]
    assert priced["cost_per_million_output_tokens"] == pytest.approx(1e6 * 3.6 / 3600 / (5 / 10))  # 0.001 a second
    none = {**case[0], "generated_tokens": np.zeros(3, np.int64)}
    assert summarise(none, case[1], {**RUN, "price_per_hour": 3.6})["metrics"]["cost_per_million_output_tokens"] is None


def test_a_stall_breaks_an_itl_limit(case: Case) -> None:
    requests, steps = case
    requests["status"][1] = "finished"
    requests["finish_s"][1] = 10.0
    assert summarise(requests, steps, RUN, {"itl_s": 3.0})["metrics"]["goodput_rps"] == pytest.approx(1 / 10)
    assert summarise(requests, steps, RUN, {"itl_s": 5.0})["metrics"]["goodput_rps"] == pytest.approx(2 / 10)


def test_batch_and_memory_are_weighted_by_time(entry: dict[str, Any]) -> None:
    metrics = entry["metrics"]
    assert metrics["batch_size"] == {"mean": pytest.approx((2 + 2 + 4 + 4) / 10), "peak": 2}
    assert metrics["waiting"] == {"mean": pytest.approx(0.2), "peak": 1}
    held = (20 * 2 + 20 * 2 + 40 * 2 + 30 * 4) / 10
    live = (10 * 2 + 11 * 2 + 32 * 2 + 21 * 4) / 10
    assert metrics["kv_usage"]["mean"] == pytest.approx(held / 100)
    assert metrics["kv_usage"]["peak"] == pytest.approx(0.4)
    assert metrics["kv_efficiency"] == pytest.approx(live / held)


def test_counts(entry: dict[str, Any]) -> None:
    metrics = entry["metrics"]
    assert (metrics["preemptions"], metrics["recomputed_tokens"], metrics["swapped_blocks"]) == (1, 21, 2)
    assert metrics["prefix_hit_rate"] == pytest.approx(5 / 30)
    assert metrics["blocked_by"] == {"memory": pytest.approx(0.2)}
    assert metrics["mapped_pages"] == 40
    assert metrics["mapping_hidden_s"] == pytest.approx(0.4)
    assert metrics["mapping_exposed_s"] == pytest.approx(0.6)
    assert entry["requests"] == {
        "total": 3,
        "offered_rps": pytest.approx(1.0),
        "finished": 1,
        "cut": 0,
        "refused": 1,
        "unfinished": 1,
        "refusals": {"larger than the whole pool": 1},
    }


def test_an_output_that_was_cut_is_counted(case: Case) -> None:
    requests, steps = case
    requests["reason"][0] = "output cut at the model's context"
    assert summarise(requests, steps, RUN)["requests"]["cut"] == 1
    requests["arrival_s"][:] = 2.0
    assert summarise(requests, steps, RUN)["requests"]["offered_rps"] is None


def test_external_fragmentation_looks_at_all_that_is_free(entry: dict[str, Any]) -> None:
    index = (0 * 2 + (1 - 35 / 70) * 2 + (1 - 25 / 50) * 2 + 0 * 4) / 10
    assert entry["metrics"]["fragmentation_external_index"] == pytest.approx(index)


def test_external_fragmentation_is_weighted_by_the_time_in_which_something_is_free(case: Case) -> None:
    requests, steps = case
    steps["free"][0] = steps["largest_hole"][0] = 0
    index = ((1 - 35 / 70) * 2 + (1 - 25 / 50) * 2 + 0 * 4) / (2 + 2 + 4)
    assert summarise(requests, steps, RUN)["metrics"]["fragmentation_external_index"] == pytest.approx(index)


def test_the_steady_window_ends_with_the_last_arrival(case: Case) -> None:
    """Without a warm-up, as the batch is the same throughout; the last request arrives at 5 s."""
    requests, steps = case
    requests["arrival_s"] = np.array([0.0, 1.0, 5.0])
    requests["finish_s"] = np.array([4.9, 5.0, 9.0])
    steps["running"][:] = 2
    window = summarise(requests, steps, RUN)["steady"]
    assert (window["from_s"], window["until_s"]) == (0.0, 5.0)
    assert window["throughput_rps"] == pytest.approx(1 / 5)
    assert window["ledger"]["live"] == pytest.approx((10 * 2 + 11 * 2 + 32 * 1) / 5)


def test_in_a_closed_loop_the_last_in_the_file_need_not_be_the_last_to_arrive(case: Case) -> None:
    requests, steps = case
    requests["arrival_s"] = np.array([0.0, 5.0, 3.0])
    found = summarise(requests, steps, RUN)
    assert found["requests"]["offered_rps"] == pytest.approx(2 / 5)
    assert found["steady"]["until_s"] == 5.0


def test_ledger_sums_to_the_capacity(entry: dict[str, Any]) -> None:
    mean = entry["ledger"]["mean"]
    assert sum(mean[name] for name in mean if name not in ("shared_savings", "swapped")) == pytest.approx(100)
    assert entry["ledger"]["peak"]["live"] == 32
    assert entry["ledger"]["byte_seconds"]["live"] == pytest.approx(mean["live"] * 10 * 4)


def test_nothing_finished_gives_null_and_valid_json(case: Case) -> None:
    requests, steps = case
    requests["status"][:] = "unfinished"
    requests["finish_s"][:] = NAN
    requests["first_token_s"][:] = NAN
    entry = summarise(requests, steps, RUN)
    assert entry["metrics"]["ttft_s"]["p50"] is None
    assert entry["metrics"]["ttft_s"]["n"] == 0
    json.dumps(entry, allow_nan=False)


def test_an_empty_run_is_valid(case: Case) -> None:
    requests, steps = ({name: column[:0] for name, column in columns.items()} for columns in case)
    entry = summarise(requests, steps, RUN)
    assert entry["metrics"]["throughput_rps"] is None
    json.dumps(entry, allow_nan=False)


def test_engine_columns_become_arrays() -> None:
    columns = plain(
        {
            "status": (np.array([1, 0], np.int8), ("finished", "refused")),
            "stall_s": (np.array([0, 2, 2]), np.array([0.5, 0.25])),
            "step": np.array([7]),
        }
    )
    assert columns["status"].tolist() == ["refused", "finished"]
    assert columns["stall_s"].tolist() == [0.5, 0.25]
    assert columns["stall_count"].tolist() == [2, 0]
    assert columns["step"].tolist() == [7]


def test_every_metric_states_its_formula() -> None:
    said = formulas()
    assert {metric.__name__ for metric in PER_REQUEST} | {itl_s.__name__} <= set(said)
    assert all(len(text) > 10 for text in said.values())


def test_a_million_requests_are_summed_up_like_few(case: Case) -> None:
    requests, steps = case
    rng = np.random.default_rng(0)
    many = {name: np.resize(column, 1_000_000) for name, column in requests.items() if not name.startswith("stall")}
    many |= {"stall_s": np.zeros(0), "stall_count": np.zeros(1_000_000, np.int64)}
    many["arrival_s"] = np.sort(rng.uniform(0, 5e4, 1_000_000))
    for name in ("scheduled_s", "first_token_s", "finish_s"):
        many[name] = many["arrival_s"] + rng.exponential(1.0, 1_000_000)
    long = {name: np.resize(column, 2_000_000) for name, column in steps.items()}
    long["start_s"] = np.append(0, np.cumsum(long["duration_s"])[:-1])
    entry = summarise(many, long, RUN, {"ttft_s": 1.0})
    assert entry["requests"]["total"] == 1_000_000
    first = many["first_token_s"] - many["arrival_s"]
    assert entry["metrics"]["ttft_s"]["mean"] == pytest.approx(first.mean())
    assert entry["metrics"]["ttft_s"]["p99"] == pytest.approx(np.percentile(first, 99), rel=1e-3)
