"""What is found in a run, in sentences: what limits it, what is worth a look, and what is not said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.figures import group
from analysis.observed import SHARES
from analysis.page.divergence import diverge
from analysis.page.document import document
from analysis.page.style import LIMIT_WORDS, limits
from analysis.page.words import contrast, findings
from analysis.reading import open_directory
from analysis.report import prose
from sim.runner import run
from tests.analysis.synthetic import write_directory
from workloads.loader import load
from workloads.slo import Slo


def test_first_divergence_is_the_earliest() -> None:
    one = {
        "request_id": np.arange(4),
        "arrival_s": np.arange(4.0),
        "scheduled_s": np.array([0.0, 1.0, 2.0, 3.0]),
        "preemptions": np.zeros(4, int),
        "status": np.full(4, "finished", dtype=object),
    }
    assert diverge(one, one, 0.1) is None
    two = one | {"scheduled_s": np.array([0.0, 1.05, 7.0, 3.0])}
    found = diverge(one, two, 0.1)
    assert found is not None
    assert (found.request_id, found.time_s) == (2, 2.0)
    assert "admitted" in found.why
    refused = one | {"status": np.array(["finished", "refused", "finished", "finished"], dtype=object)}
    found = diverge(one, refused, 0.1)
    assert found is not None
    assert (found.request_id, found.time_s) == (1, 1.0)


def test_findings_say_what_limits_and_warn_of_overload(toy: Path) -> None:
    page = document(open_directory(toy))
    said = {finding.tone: finding.text for finding in page["findings"]}
    assert "paged runs" in page["findings"][0].text
    assert "What limits paged" in said["limit"]
    assert any("OVERLOADED: preallocated" in finding.text for finding in page["findings"])
    assert not any(" times " in finding.text for finding in page["findings"]), "a ratio needs its interval"


def test_replications_allow_a_ratio_with_its_interval(repeated: Path) -> None:
    page = document(open_directory(repeated))
    assert "times the throughput, 95 % interval" in page["findings"][0].text


def test_replications_that_differ_wildly_give_no_ratio(repeated: Path) -> None:
    rates = {("preallocated", 0): 1.0, ("preallocated", 1): 1000.0, ("paged", 0): 900.0, ("paged", 1): 2.0}
    entries = [
        entry | {"metrics": entry["metrics"] | {"throughput_rps": rates[entry["allocator"], entry["repeat"]]}}
        for entry in open_directory(repeated).summary()
        if (entry["allocator"], entry["repeat"]) in rates
    ]
    assert len(entries) == 4
    assert " times the throughput" not in findings(group(entries))[0].text


def test_contrast_prefers_reserving_against_paged(toy: Path) -> None:
    one, two = contrast(group(open_directory(toy).summary()))
    assert (one.label, two.label) == ("preallocated", "paged")
    assert findings([two])


def test_findings_do_not_praise_a_pool_that_refuses_everything(tmp_path: Path) -> None:
    entries = open_directory(write_directory(tmp_path / "run", count=12, kinds=("paged",))).summary()
    reason = "larger than the whole pool"
    entries[0]["requests"] |= {"refused": 12, "finished": 0, "refusals": {reason: 12}}
    entries[0]["metrics"]["kv_efficiency"] = None
    said = {finding.tone: finding.text for finding in findings(group(entries))}
    assert said["limit"] == f"paged refused 12 of 12 requests: {reason}."
    assert said["advice"].startswith("Change first: the pool.")
    assert "nan" not in " ".join(said.values())


@pytest.mark.parametrize(("settings", "key"), [
    (["engine.max_model_len=200"], "max_model_len"),
    (["engine={scheduler: vllm-v0, max_num_batched_tokens: 100}"], "max_num_batched_tokens"),
    (["requests.samples=5", "engine.max_num_seqs=4"], "max_num_seqs"),
    (["requests.samples=200", "engine.max_num_batched_tokens=150"], "max_num_batched_tokens"),
])  # fmt: skip
def test_what_requests_are_refused_for_is_what_to_change(settings: list[str], key: str, tmp_path: Path) -> None:
    few = ["requests.count=3", "requests.lengths={kind: fixed, prompt: 250, output: 5}", "allocators=[paged]"]
    entries = run(load("quickstart", [*few, *settings]), tmp_path / "run").summary()
    assert entries[0]["requests"]["refused"] == 3
    advice = next(one.text for one in findings(group(entries)) if one.tone == "advice")
    assert advice.startswith(f"Change first: {key}")


def test_who_waits_for_a_batch_to_end_does_not_wait_for_memory(tmp_path: Path) -> None:
    entries = open_directory(write_directory(tmp_path / "run", count=12, kinds=("paged",))).summary()
    entries[0]["metrics"]["blocked_by"] = {"order": 0.6, "memory": 0.1}
    said = {}
    for entries[0]["scheduler"] in ("static", "vllm-v0"):
        texts = {finding.tone: finding.text for finding in findings(group(entries))}
        said[entries[0]["scheduler"]] = texts["limit"], texts["advice"]
    limit, advice = said["static"]
    assert limit.endswith("for 60 % of the time the next request waited for the end of the batch (static).")
    assert advice.startswith("Change first: the scheduler.")
    limit, advice = said["vllm-v0"]
    assert limit.endswith("waited for its turn behind preempted requests.")
    assert "scheduler" not in advice


def test_two_that_do_the_same_are_not_set_against_each_other(toy: Path) -> None:
    entries = open_directory(toy).summary()
    same = [entry | {"metrics": entries[1]["metrics"]} for entry in entries]
    (headline,) = [one.text for one in findings(group(same))[:1]]
    assert headline.startswith("From the same pool, paged and preallocated alike run ")


def test_latency_of_a_whole_answer_is_not_said_to_be_that_of_each_token(tmp_path: Path) -> None:
    """It has the time to the first token in it, which is told beside it."""
    entries = open_directory(write_directory(tmp_path / "run", kinds=("paged", "radix"))).summary()
    for entry, seconds in zip(entries, (0.2, 0.1), strict=True):
        entry["metrics"]["normalized_latency_s"]["p50"] = seconds
        entry["metrics"]["ttft_s"]["p50"] = 10 * seconds
    assert findings(group(entries))[0].text == (
        "With radix a first token takes 1 s and a whole answer 100 ms a token, with paged 2 s and 200 ms (medians)."
    )


def test_what_refuses_everything_is_not_contrasted_with_what_serves(toy: Path) -> None:
    entries = open_directory(toy).summary()
    assert [one.label for one in contrast(group(entries))] == ["preallocated", "paged"]
    entries[0]["verdict"] = "REFUSED"
    assert [one.label for one in contrast(group(entries))] == ["paged", "paged"]


def test_a_step_that_is_full_is_not_said_to_be_too_small(tmp_path: Path) -> None:
    """A GPU that computes all the time serves no more with larger steps, so the advice is to try, not to raise."""
    entries = open_directory(write_directory(tmp_path / "run", count=12, kinds=("paged",))).summary()
    entries[0]["metrics"]["blocked_by"] = {"budget": 0.8}
    said = {finding.tone: finding.text for finding in findings(group(entries))}
    assert "room in a step (max_num_batched_tokens)" in said["limit"]
    assert said["advice"].startswith("Change first: nothing in memory")
    assert "`advise` tries it" in said["advice"]


@pytest.mark.parametrize(
    ("lost", "peak", "said"),
    [
        (0, 0.3, "More requests fit, or a smaller pool would do: at its fullest 30 % of the pool was held."),
        (0, 0.95, "; at its fullest 95 % of the pool was held, and that was enough."),
        (15, 1.0, "unless 15 preemptions matter: at its fullest the pool was too small"),
    ],
)
def test_a_pool_that_was_full_for_moments_is_not_said_to_be_too_large(
    lost: int, peak: float, said: str, tmp_path: Path
) -> None:
    entries = open_directory(write_directory(tmp_path / "run", count=12, kinds=("paged",))).summary()
    entries[0]["metrics"] |= {"blocked_by": {"memory": 0.04}, "preemptions": lost}
    entries[0]["metrics"]["kv_usage"]["peak"] = peak
    (advice,) = [finding.text for finding in findings(group(entries)) if finding.tone == "advice"]
    assert said in advice


@pytest.mark.parametrize(
    ("efficiency", "said"),
    [
        (0.97, "; 97 % of what sequences hold is live K/V, so a better allocator has little left to win."),
        (0.6, "more memory)."),  # the rest is lost in several ways
        (None, "more memory)."),
    ],
)
def test_an_allocator_has_little_left_to_win_if_what_it_holds_is_live(
    efficiency: float | None, said: str, tmp_path: Path
) -> None:
    entries = open_directory(write_directory(tmp_path / "run", count=12, kinds=("paged",))).summary()
    entries[0]["metrics"] |= {"blocked_by": {"memory": 0.5}, "kv_efficiency": efficiency, "preemptions": 0}
    entries[0]["ledger"]["mean"] = dict.fromkeys(SHARES, 0.0) | {"live": 60.0, "free": 40.0}
    (advice,) = [finding.text for finding in findings(group(entries)) if finding.tone == "advice"]
    assert advice.endswith(said)


def test_sentences_are_escaped_and_what_is_quoted_in_them_is_code() -> None:
    assert str(prose("<b> 1 -> 2, as `run` & `a<b` say")) == (
        "&lt;b&gt; 1 → 2, as <code>run</code> &amp; <code>a&lt;b</code> say"
    )
    assert str(prose("one ` alone <i>")) == "one ` alone &lt;i&gt;"


def test_every_limit_that_a_workload_may_set_has_words() -> None:
    assert [*LIMIT_WORDS] == [*Slo.model_fields]
    assert (
        limits({"itl_s": 0.05, "e2e_s": None, "ttft_s": 1})
        == "longest gap between tokens ≤ 0.05 s, time to first token ≤ 1 s"
    )
