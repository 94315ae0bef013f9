"""From which figure on a sentence says something else, and which figures the page's table and bars show."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from analysis.figures import Allocator, group
from analysis.observed import SHARES
from analysis.page.overview import bars, spread, table
from analysis.page.words import WASTE, findings
from analysis.reading import open_directory
from analysis.remarks import above_bound, page_calls, shortfalls
from tests.analysis.synthetic import write_directory

Entry = dict[str, Any]


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """Of a run of one allocator, paged."""
    directory = write_directory(tmp_path / "run", count=12, kinds=("paged",))
    (found,) = (dict(one) for one in open_directory(directory).summary())
    return found


def said(*entries: Entry) -> dict[str, str]:
    return {finding.tone: finding.text for finding in reversed(findings(group(entries)))}


def shares(**slots: float) -> dict[str, float]:
    """A ledger of a hundred slots, so that they are percentages; what is not given is free."""
    return dict.fromkeys(SHARES, 0.0) | slots | {"free": 100.0 - sum(slots.values())}


@pytest.mark.parametrize(
    ("share", "limits", "is_advised_on"),
    [(0.0099, False, False), (0.01, True, False), (0.0499, True, False), (0.05, True, True)],
)
def test_a_wait_limits_from_one_per_cent_of_the_time_on_and_is_worth_a_change_from_five(
    share: float, entry: Entry, *, limits: bool, is_advised_on: bool
) -> None:
    entry["metrics"]["blocked_by"] = {"seats": share, "memory": share / 2}
    found = said(entry)
    assert found["limit"].startswith("What limits paged: for ") is limits
    assert ("a seat (max_num_seqs)" in found["limit"]) is limits
    assert ("nothing in memory: requests wait for a seat" in found["advice"]) is is_advised_on


@pytest.mark.parametrize("name", WASTE)
def test_a_waste_of_more_than_fifteen_per_cent_is_what_to_change(name: str, entry: Entry) -> None:
    entry["metrics"] |= {"blocked_by": {"memory": 0.5}, "preemptions": 0}
    advice = []
    for slots in (15.0, 15.1):
        entry["ledger"]["mean"] = shares(live=40.0, **{name: slots})
        advice.append(said(entry)["advice"])
    assert advice[0].startswith("Change first: make a token smaller")
    assert not advice[1].startswith("Change first: make a token smaller")


@pytest.mark.parametrize(("efficiency", "little"), [(0.8, False), (0.801, True)])
def test_little_is_left_to_win_beyond_eighty_per_cent(efficiency: float, entry: Entry, *, little: bool) -> None:
    entry["metrics"] |= {"blocked_by": {"memory": 0.5}, "kv_efficiency": efficiency}
    entry["ledger"]["mean"] = shares(live=60.0)
    assert ("little left to win" in said(entry)["advice"]) is little


@pytest.mark.parametrize(("peak", "enough"), [(0.8, False), (0.801, True)])
def test_a_pool_is_said_to_be_enough_beyond_eighty_per_cent(peak: float, entry: Entry, *, enough: bool) -> None:
    entry["metrics"] |= {"blocked_by": {}, "preemptions": 0}
    entry["metrics"]["kv_usage"]["peak"] = peak
    assert ("and that was enough" in said(entry)["advice"]) is enough


@pytest.mark.parametrize("waits", [0.0, 0.5])
def test_preemptions_are_told_from_one_on(waits: float, entry: Entry) -> None:
    """It is a mean over replications, so there may be less than one."""
    entry["ledger"]["mean"] = shares(live=60.0)
    for lost, told in ((0.9, False), (1, True)):
        entry["metrics"] |= {"blocked_by": {"memory": waits}, "preemptions": lost}
        assert ("1 preemptions" in said(entry)["advice"]) is told


@pytest.mark.parametrize(("refused", "turned_away"), [(5, False), (6, True)])
def test_refusals_are_what_limits_if_they_are_half_of_the_requests(
    refused: int, entry: Entry, *, turned_away: bool
) -> None:
    reasons = {"more samples than seats": 1, "larger than the whole pool": refused - 1}
    entry["requests"] |= {"finished": 12 - refused, "refused": refused, "refusals": reasons}
    limit = f"paged refused {refused} of 12 requests: larger than the whole pool."
    assert (said(entry)["limit"] == limit) is turned_away
    assert said(entry)["advice"].startswith("Change first: the pool.") is turned_away


def test_the_three_largest_wastes_are_told_unless_they_are_below_one_per_cent(entry: Entry) -> None:
    (worst,) = group([entry])
    for live, slots, told in (
        (
            0.4,
            {"internal": 0.9, "reserved": 1.0},
            "fills less than 1 % of the pool with live K/V; 1 % is held for",
        ),
        (0.0, {}, "fills 0 % of the pool with live K/V."),
        (
            30.0,
            {"internal": 2.0, "reserved": 5.0, "rounding": 3.0, "external": 4.0},
            "; 5 % is held for tokens that come later, 4 % is free, but in holes too small for the next request, 3 % ",
        ),
    ):
        entry["ledger"]["mean"] = shares(live=live, **slots)
        memory = findings([worst], (worst, worst))[1].text
        assert told in memory
        assert (WASTE["internal"] in memory) is False


def test_hits_are_told_from_one_per_cent_on(entry: Entry) -> None:
    (best,) = group([entry])
    worst = Allocator("radix", [entry | {"kind": "radix"}])
    for share, told in ((0.0099, "With paged a first"), (0.01, "paged finds 1 % of its prompt tokens in the cache. ")):
        entry["metrics"]["prefix_hit_rate"] = share
        assert findings([worst, best], (worst, best))[0].text.startswith(told)


def test_the_interval_of_a_bar_is_that_of_its_figure(entry: Entry) -> None:
    entry["metrics"]["ttft_s"]["ci95"] |= {"mean": [0.2, 0.4], "p99": [0.5, 0.9]}
    (one,) = group([entry])
    assert spread(one, "ttft_s") == (0.2, 0.4, "requests")
    assert spread(one, "ttft_s.p99") == (0.5, 0.9, "requests")
    entry["metrics"]["ttft_s"]["ci95"]["p99"] = [None, None]
    for name in ("ttft_s.p99", "throughput_rps"):
        low, high, basis = spread(one, name)
        assert (math.isnan(low), math.isnan(high), basis) == (True, True, "")
    other = entry | {"metrics": entry["metrics"] | {"throughput_rps": entry["metrics"]["throughput_rps"] + 1}}
    both = Allocator("paged", [entry, other])
    interval = both.interval("throughput_rps")
    assert spread(both, "throughput_rps") == (interval.low, interval.high, "replications")
    assert interval.low < interval.high


def planted(entry: Entry, *, batch: float, rate: float) -> Entry:
    figures: Entry = {
        "batch_size": entry["metrics"]["batch_size"] | {"mean": batch, "peak": 2 * batch},
        "throughput_rps": rate,
        "preemptions": 12,
        "kv_efficiency": 0.5,
    }
    for name, median, last in (("normalized_latency_s", 1.0, 2.0), ("ttft_s", 3.0, 4.0), ("tpot_s", 5.0, 6.0)):
        figures[name] = {"n": 14, "mean": 9.0, "p50": median, "p99": last}
    return entry | {
        "metrics": entry["metrics"] | figures,
        "requests": entry["requests"] | {"finished": 14, "total": 20, "refused": 2, "unfinished": 4},
        "ledger": entry["ledger"] | {"mean": shares(live=60.0, internal=10.0)},
        "steady": {"from_s": 1.0, "until_s": 9.0, "throughput_rps": 8.0},
        "verdict": "BACKLOGGED",
    }


def test_the_first_table_of_the_page_shows_each_figure_under_its_name(entry: Entry) -> None:
    paged = planted(entry, batch=7.0, rate=11.0)
    ideal = planted(entry, batch=14.0, rate=44.0) | {"allocator": "ideal", "kind": "ideal"}
    row = table(group([paged, ideal]))[0]
    assert row.pop("meaning")
    assert row == {
        "label": "paged",
        "kind": "paged",
        "scheduler": "toy-fcfs",
        "verdict": "BACKLOGGED",
        "shares": shares(live=60.0, internal=10.0),
        "batch": 7.0,
        "peak": 14.0,
        "batch_of_ideal": 50.0,
        "throughput": 11.0,
        "steady": 8.0,
        "throughput_of_ideal": 25.0,
        "latency_p50": 1000.0,
        "latency_p99": 2000.0,
        "ttft_p50": 3.0,
        "ttft_p99": 4.0,
        "tpot_p50": 5000.0,
        "tpot_p99": 6000.0,
        "preemptions": 12.0,
        "efficiency": 50.0,
        "finished": 14,
        "total": 20,
        "refused": 2,
        "unfinished": 4,
    }


def test_bars_have_percentages_of_ideal_and_the_value_that_was_published(entry: Entry) -> None:
    paged = planted(entry, batch=7.0, rate=11.0)
    ideal = planted(entry, batch=14.0, rate=44.0) | {"allocator": "ideal", "kind": "ideal"}
    given: Entry = {"throughput_rps": {"value": 12.0, "source": "fig. 1"}, "normalized_latency_s.p50": 0.5}
    given |= {"batch_size": {"low": 6.0, "high": 8.0}, "tpot_s.p50": {"value": 2.0, "over": "ideal"}}
    drawn = {one["name"]: one["rows"] for one in bars(group([paged, ideal]), {"paged": given})}
    rate, latency = drawn["throughput_rps"], drawn["normalized_latency_s.p50"]
    assert [one["value"] for one in rate] == [11.0, 44.0]
    assert [one["ideal"] for one in rate] == [25.0, 100.0]
    assert [one["published"] for one in rate] == [12.0, None]
    assert (latency[0]["value"], latency[0]["published"]) == (1000.0, 500.0), "milliseconds a token"
    for name in ("batch_size", "tpot_s.p50"):
        assert drawn[name][0]["published"] is None, "a range, or a multiple, is no point on this axis"
    assert "prefix_hit_rate" not in drawn, "it is 0 in all of them"


def named(entry: Entry, label: str, **figures: Any) -> Entry:
    return entry | {"allocator": label, "kind": label, "metrics": entry["metrics"] | figures}


def test_what_all_allocators_fall_short_of_is_said_once_and_of_one_by_its_name(entry: Entry) -> None:
    counts = {"refused": 1, "refusals": {"longer than max_model_len": 1}, "unfinished": 2, "cut": 3}
    short = entry | {"requests": entry["requests"] | counts}
    told = [
        "1 of 12 requests refused (1 longer than max_model_len)",
        "2 of 12 requests unfinished when the run ended",
        "3 of 12 outputs cut short where prompt and output reach max_model_len",
    ]
    both = [named(short, "paged"), named(short, "radix")]
    assert shortfalls(group(both[:1])) == [f"paged: {text}" for text in told]
    assert shortfalls(group(both)) == [f"all: {text}" for text in told]
    assert shortfalls(group([*both, named(entry, "ideal")])) == [f"paged and radix: {text}" for text in told]


def test_more_than_a_twentieth_above_the_bound_wants_an_explanation(entry: Entry) -> None:
    def runs(batch: float, rate: float) -> list[Allocator]:
        ideal = named(entry, "ideal", batch_size={"mean": 100.0, "peak": 100.0}, throughput_rps=100.0)
        return group([named(entry, "paged", batch_size={"mean": batch, "peak": batch}, throughput_rps=rate), ideal])

    assert above_bound(runs(105.0, 105.0)) == []
    assert above_bound(runs(110.0, 100.0)) == [
        "paged has 110 % of the ideal batch: slower steps keep sequences longer, which is no gain by itself."
    ]
    (said,) = above_bound(runs(100.0, 110.0))
    assert said.startswith("paged has 110 % of the ideal throughput: look for a difference")


def test_pages_that_were_mapped_are_told_with_the_time_that_steps_waited(entry: Entry) -> None:
    virtual = named(entry, "virtual", mapped_pages=20, mapping_hidden_s=1.5, mapping_exposed_s=0.5)
    paged = named(entry, "paged", mapped_pages=0)
    (said,) = page_calls(group([paged, virtual]))
    assert said.startswith("virtual: 20 physical pages mapped; the driver took 2 s, of which 1.50 s ran while the GPU")
    assert said.endswith(" computed and steps waited 0.500 s")
