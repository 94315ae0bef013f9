"""A workload can be shared as another format, or as a generator that stands for it."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workloads.conftest import Small
from workloads.errors import WorkloadError
from workloads.fit import Check, check, fit, joint_lengths
from workloads.fit_arrivals import EACH, fit_arrivals, ks_distance, strata
from workloads.fit_plot import panels
from workloads.fit_sharing import fit_sharing
from workloads.generate import requests as make
from workloads.loader import load
from workloads.requests import Prefixes, Requests
from workloads.reuse import ideal_hits
from workloads.source import Generated
from workloads.streams import stream
from workloads.trace import Trace
from workloads.traces import read
from workloads.traces.convert import block_hashes, convert
from workloads.traces.describe import describe

SHARED = "requests.shared=[{tokens: 700}, {tokens: 300, pool: 20, draws: 2}]"
CHAT = "requests.session={kind: turns, turns: 4, think_s: {kind: exponential, mean: 10}, loop: open}"
MINUTE = "requests.arrivals={kind: poisson, rate: 2.4}"
"""Of 200 requests, a minute and a half."""


def back(path: Path) -> Requests:
    return read(Trace(trace=str(path), spread=False), stream(0, "spread"))


class TestConvert:
    @pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
    def test_csv_comes_back_to_the_bit(self, tmp_path: Path, small: Small, name: str) -> None:
        made = make(small("requests.lengths={kind: sharegpt}"))
        assert convert(made, tmp_path / name, "csv") == []
        again = back(tmp_path / name)
        assert again.arrival_s == pytest.approx(made.arrival_s - made.arrival_s[0], abs=1e-12)
        assert (again.prompt_tokens == made.prompt_tokens).all()
        assert (again.output_tokens == made.output_tokens).all()
        assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == name.endswith("gz")

    def test_the_same_requests_give_the_same_bytes(self, tmp_path: Path, small: Small) -> None:
        for name in ("a.csv.gz", "b.csv.gz"):
            convert(make(small()), tmp_path / name, "csv")
        assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()

    def test_mooncake_keeps_what_full_blocks_share(self, tmp_path: Path, small: Small) -> None:
        made = make(small(SHARED, CHAT, "requests.lengths={kind: fixed, prompt: 100, output: 200}"))
        convert(made, tmp_path / "t.jsonl", "mooncake")
        again = back(tmp_path / "t.jsonl")
        assert (again.prompt_tokens == made.prompt_tokens).all()
        assert np.diff(again.arrival_s) == pytest.approx(np.diff(made.arrival_s), abs=0.0011)
        before, after = ideal_hits(made) // 512, ideal_hits(again) // 512
        assert (after >= before).all()
        assert after.sum() < 1.2 * before.sum() + 10

    @settings(deadline=None, max_examples=30)
    @given(block=st.integers(1, 700), seed=st.integers(0, 1000))
    def test_equal_hashes_are_equal_beginnings(self, small_file: Small, block: int, seed: int) -> None:
        made = make(small_file(SHARED, CHAT, f"seed={seed}", "requests.count=30"))
        hashes = list(block_hashes(made, block))
        content = [expand(made, i) for i in range(30)]
        for i, one in enumerate(hashes):
            assert len(one) == -(-made.prompt_tokens[i] // block)
            for j in range(i):
                same = sum(a == b for a, b in zip(one, hashes[j], strict=False))
                assert one[:same] == hashes[j][:same]
                shared = min(same * block, len(content[i]), len(content[j]))
                assert (content[i][:shared] == content[j][:shared]).all()
                if same < min(len(one), len(hashes[j])) and (same + 1) * block <= min(len(content[i]), len(content[j])):
                    piece = slice(same * block, (same + 1) * block)
                    assert (content[i][piece] != content[j][piece]).any()

    def test_without_prefixes_no_two_blocks_are_equal(self, small: Small) -> None:
        hashes = [one for row in block_hashes(make(small()), 4) for one in row]
        assert hashes == list(range(300))

    def test_what_is_lost_is_said(self, tmp_path: Path, small: Small) -> None:
        made = make(small(SHARED, "requests.samples=2", "requests.arrivals={kind: closed, users: 3}"))
        lost = convert(made, tmp_path / "t.csv", "csv")
        assert [text.split(":")[0] for text in lost] == [
            "what prompts share is not written",
            "which requests wait for others is not written",
            "parallel samples are not written",
        ]

    def test_faults(self, tmp_path: Path, small: Small) -> None:
        with pytest.raises(
            WorkloadError, match=r"cannot convert to moncake \(did you mean mooncake\?\); known: csv, mooncake"
        ):
            convert(make(small()), tmp_path / "t", "moncake")
        with pytest.raises(WorkloadError, match="cannot be written: No such file or directory"):
            convert(make(small()), tmp_path / "no" / "t", "csv")

    def test_mooncake_s_trace_comes_back_whole(self, traces: Path, tmp_path: Path) -> None:
        original = traces / "mooncake_conversation" / "conversation_trace.jsonl.gz"
        convert(back(original), tmp_path / "t.jsonl.gz", "mooncake")
        with gzip.open(original) as one, gzip.open(tmp_path / "t.jsonl.gz") as two:
            for a, b in zip(one, two, strict=True):
                first, second = json.loads(a), json.loads(b)
                assert first == second


def expand(made: Requests, request: int) -> np.ndarray:
    """Spell out a prompt, token by token."""
    pieces = made.prefixes.pieces(request)
    return np.concatenate([name * 100_000 + np.arange(length) for name, length in pieces])


class TestFitArrivals:
    @pytest.mark.parametrize(
        ("block", "kind"),
        [
            ("{kind: poisson, rate: 5}", "poisson"),
            ("{kind: gamma, rate: 5, cv: 2}", "gamma"),
            ("{kind: fixed, rate: 5}", "fixed"),
            ("{kind: batch}", "batch"),
            ("{kind: diurnal, rate: 5, swing: 0.9, period_s: 800}", "profile"),
            ("{kind: on-off, on_rate: 20, off_rate: 3, on_s: 60, off_s: 60}", "profile"),
            ("{kind: renewal, gap_s: {kind: values, values: [0.01, 0.01, 0.01, 1.0]}}", "renewal"),
        ],
    )
    def test_the_kind_is_found_again(self, small: Small, block: str, kind: str) -> None:
        arrival = make(small(f"requests.arrivals={block}", "requests.count=6000")).arrival_s
        fitted, notes = fit_arrivals(arrival - arrival[0])
        assert fitted["kind"] == kind
        assert notes
        again = make(small("requests.count=6000", f"requests.arrivals={json.dumps(fitted)}")).arrival_s
        if kind != "batch":
            assert ks_distance(np.diff(arrival), np.diff(again)) < 0.06
            assert again[-1] == pytest.approx(arrival[-1], rel=0.1)

    def test_rates_and_cv_are_found_again(self, small: Small) -> None:
        arrival = make(small("requests.arrivals={kind: gamma, rate: 5, cv: 2}", "requests.count=50000")).arrival_s
        fitted, _ = fit_arrivals(arrival - arrival[0])
        assert fitted["rate"] == pytest.approx(5, rel=0.05)
        assert fitted["cv"] == pytest.approx(2, rel=0.05)


@given(values=st.lists(st.integers(1, 10**6), min_size=1, max_size=300), parts=st.integers(1, 400))
def test_strata_keep_the_mean(values: list[int], parts: int) -> None:
    found = strata(np.array(values), parts)
    assert len(found) == max(1, min(parts, len(values) // EACH))
    assert found == sorted(found)
    sizes = np.diff(np.linspace(0, len(values), len(found) + 1).round())
    assert np.average(found, weights=sizes) == pytest.approx(np.mean(values), rel=1e-4)


def test_joint_lengths_keep_margins_and_their_tie(small: Small) -> None:
    lengths = "{kind: lognormal, prompt: {mean: 500, sigma: 1}, output: {mean: 200, sigma: 0.7}, correlation: 0.6}"
    one = make(small(f"requests.lengths={lengths}", "requests.count=40000"))
    block = joint_lengths(one.prompt_tokens, one.output_tokens)
    two = make(small(f"requests.lengths={json.dumps(block)}", "requests.count=40000"))
    assert two.prompt_tokens.mean() == pytest.approx(one.prompt_tokens.mean(), rel=0.02)
    assert two.output_tokens.mean() == pytest.approx(one.output_tokens.mean(), rel=0.02)
    assert ks_distance(one.output_tokens, two.output_tokens) < 0.015
    product = (one.prompt_tokens * one.output_tokens).mean()
    assert (two.prompt_tokens * two.output_tokens).mean() == pytest.approx(product, rel=0.08)


class TestFit:
    def test_the_block_is_a_workload_s_requests(self, tmp_path: Path, small: Small) -> None:
        made = make(small(SHARED, CHAT, "requests.lengths={kind: sharegpt}", "requests.count=2000"))
        fitted = fit(made)
        path = tmp_path / "fitted.yaml"
        head = "name: fitted\nmodel: llama-3.1-8b\ndevice: h100-80gb\nallocators: [{kind: preallocated}]\n"
        path.write_text(head + fitted.yaml())
        assert load(path).requests == Generated.model_validate(fitted.block)
        assert max(map(len, path.read_text().splitlines())) <= 100
        again = make(load(path))
        assert len(again) == 2000
        assert again.prompt_tokens.mean() == pytest.approx(made.prompt_tokens.mean(), rel=0.15)
        rates = [ideal_hits(some).sum() / some.prompt_tokens.sum() for some in (made, again)]
        assert rates[1] == pytest.approx(rates[0], abs=0.08)

    def test_azure_s_conversations(self, traces: Path) -> None:
        trace = read(Trace(trace=str(traces / "azure2023_conv" / "AzureLLMInferenceTrace_conv.csv.gz")), stream(0, "x"))
        found = {one.quantity: one for one in check(trace, fit(trace))}
        for one in found.values():
            assert one.fitted == pytest.approx(one.trace, rel=0.02)
            assert one.distance < 0.02 or one.quantity == "arrivals a minute"

    def test_mooncake_s_sharing(self, traces: Path) -> None:
        path = traces / "mooncake_conversation" / "conversation_trace.jsonl.gz"
        trace = read(Trace(trace=str(path)), stream(0, "x"))
        fitted = fit(trace)
        assert fitted.block["shared"] == [{"tokens": 512}]
        found = {one.quantity: one for one in check(trace, fitted)}
        assert found["ideal hit rate"].trace == pytest.approx(0.3736, abs=1e-4)
        assert found["ideal hit rate"].fitted == pytest.approx(0.3736, abs=0.02)
        assert found["prompt tokens"].fitted == pytest.approx(found["prompt tokens"].trace, rel=0.05)

    def test_no_single_request_can_be_read_off(self, traces: Path) -> None:
        trace = read(Trace(trace=str(traces / "azure2023_conv" / "AzureLLMInferenceTrace_conv.csv.gz")), stream(0, "x"))
        block = fit(trace).block
        assert max(block["lengths"]["prompt"]) < trace.prompt_tokens.max()
        assert len(json.dumps(block)) < 10_000

    def test_no_number_stands_for_a_single_request_of_a_short_trace_either(self, small: Small) -> None:
        made = make(small("requests.count=300", "requests.lengths={kind: sharegpt}"))
        lengths = fit(made).block["lengths"]
        assert EACH * len(lengths["prompt"]) <= 300
        assert EACH * sum(map(len, lengths["output"])) <= 300

    def test_a_handful_of_requests(self, small: Small) -> None:
        for count in (2, 3, 10):
            made = make(small(f"requests.count={count}", "requests.lengths={kind: sharegpt}"))
            fitted = fit(made)
            assert len(make(small("requests=" + json.dumps(fitted.block)))) == count
            assert all(isinstance(one, Check) for one in check(made, fitted))

    def test_of_less_than_a_minute_nothing_is_said_by_the_minute(self, small: Small) -> None:
        lengths = "requests.lengths={kind: sharegpt}"
        for rate, told in ((4, False), (2.5, True), (1, True)):
            made = make(small("requests.count=200", lengths, f"requests.arrivals={{kind: fixed, rate: {rate}}}"))
            found = {one.quantity: one for one in check(made, fit(made))}
            assert ("arrivals a minute" in found) is told
            assert any(one.x == "minute" for one in panels(made, fit(made))) is told
            assert not told or found["arrivals a minute"].trace == 60 * rate

    def test_every_chart_says_what_it_shows(self, small: Small) -> None:
        made = make(small("requests.count=200", "requests.lengths={kind: sharegpt}", MINUTE))
        drawn = panels(made, fit(made))
        assert [(panel.x, panel.y) for panel in drawn] == [
            ("prompt tokens", "share of requests"),
            ("output tokens", "share of requests"),
            ("gap, s", "share of gaps"),
            ("minute", "arrivals"),
        ]
        for panel in drawn:
            assert list(panel.lines) == ["trace", "fitted"]
            assert all(x > 0 for xs, _ in panel.lines.values() for x in xs if panel.log)
            assert all(len(xs) == len(ys) > 0 for xs, ys in panel.lines.values())

    def test_a_single_minute_and_a_single_gap_are_drawn_all_the_same(self, small: Small) -> None:
        made = make(small("requests.count=200", "requests.lengths={kind: sharegpt}", MINUTE))
        *_, gaps, minutes = panels(made, fit(made))
        assert (gaps.x, minutes.x) == ("gap, s", "minute")
        assert [len(xs) for xs, _ in minutes.lines.values()] == [1, 1]
        alone = make(small("requests.count=2", "requests.lengths={kind: sharegpt}"))
        assert len(panels(alone, fit(alone))) == 3


def test_describe_sums_up_what_a_reader_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,0\n1,10,20\n61,30,40\n")
    found = describe(Trace(trace=str(path)))
    assert (found.format, found.rows, found.requests) == ("csv", 3, 2)
    assert found.rate_rps == pytest.approx(1 / 60)
    assert found.peak_minute_rps == pytest.approx(1 / 60)
    assert found.as_dict()["prompt_tokens"]["mean"] == 20
    assert found.notes == ("1 row without a prompt or output token left out",)
    assert found.correlation == pytest.approx(1)


@pytest.mark.parametrize(
    ("arrivals", "rate", "peak"),
    [
        ([each / 10 for each in range(101)], 10, 10),  # of less than a minute: all of it
        ([0, *(60 + each / 10 for each in range(1, 101))], 100 / 70, 100 / 60),  # a burst about the end of a minute
        ([0, *(55 + each / 10 for each in range(101)), 130], 102 / 130, 101 / 60),
    ],
)
def test_the_busiest_minute_begins_at_any_time(arrivals: list[float], rate: float, peak: float, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{each},10,5\n" for each in arrivals))
    found = describe(Trace(trace=str(path)))
    assert (found.rate_rps, found.peak_minute_rps) == (pytest.approx(rate), pytest.approx(peak))


def test_prompts_that_share_only_what_most_begin_with_are_no_sessions() -> None:
    """Ten prompts of 50 common tokens and 10 of their own; the last one repeats the ninth and its answer."""
    pieces = [[(1, 50), (10 + request, 10)] for request in range(9)]
    pieces.append([*pieces[-1], (28, 5), (30, 7)])
    prefixes = Prefixes.of(pieces, np.arange(20, 30))
    prompts = np.array([sum(tokens for _, tokens in each) for each in pieces])
    found = fit_sharing(Requests(np.arange(10.0), prompts, np.full(10, 5), prefixes=prefixes))
    assert (found.common, found.common_share) == (50, 1.0)
    assert found.parent.tolist() == [-1] * 9 + [8]
    assert found.own.tolist() == [10] * 9 + [7]
    assert found.kept[9] == 1
