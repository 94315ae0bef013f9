"""What the page shows, before any browser: reductions that must not lie."""

from __future__ import annotations

import base64
import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from analysis.errors import RunDirectoryError
from analysis.figures import group
from analysis.metrics import queue_s
from analysis.numbers import short
from analysis.observed import SHARES, Observed
from analysis.page.blockmap import CACHED, FIRST_OWNER, FREE, block_map, blocks_held
from analysis.page.divergence import diverge
from analysis.page.document import document, misses
from analysis.page.gantt import everyone, gantt, kept, select
from analysis.page.notable import notable, waits
from analysis.page.pack import Packed, pack
from analysis.page.ticks import ticks
from analysis.page.timeline import BINS, BLOCKED, choose, detail_windows, rates, timeline
from analysis.page.words import contrast, findings
from analysis.pages import write_index, write_page
from analysis.phases import absences, losses
from analysis.reading import open_directory
from analysis.report import embed, prose, render, subtitle, write_joint_report, write_report
from analysis.together import together
from tests.analysis.synthetic import write_directory

KINDS = {"f8": "f8", "f4": "f4", "i4": "i4", "u4": "u4", "u2": "u2", "u1": "u1", "i1": "i1"}


def unpack(packed: Packed) -> npt.NDArray[Any]:
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), np.uint8)
    width = np.dtype(KINDS[packed["type"]]).itemsize
    return np.ascontiguousarray(planes.reshape(width, packed["length"]).T).view(KINDS[packed["type"]]).reshape(-1)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([0, 255]), "u1"),
        (np.array([-1, 100]), "i1"),
        (np.array([0, 256]), "u2"),
        (np.array([-1, 256]), "i4"),
        (np.array([1 << 31]), "u4"),
        (np.array([0.1, np.nan, 1e300]), "f8"),
        (np.array([0.5], np.float32), "f4"),
        (np.array([True, False]), "u1"),
        (np.zeros(0, np.int64), "u1"),
    ],
)
def test_packed_arrays_come_back(values: npt.NDArray[Any], kind: str) -> None:
    packed = pack(values)
    assert packed["type"] == kind
    np.testing.assert_array_equal(unpack(packed), values)


def queue() -> tuple[dict[str, Any], dict[str, Any]]:
    """Two steps of a second, memory short in the second of three; request 2 comes last but one, 3 is refused."""
    requests = {
        "request_id": np.arange(5),
        "arrival_s": np.array([0.0, 0.5, 1.0, 1.0, 1.5]),
        "scheduled_s": np.array([0.0, 2.0, 2.0, np.nan, np.nan]),
        "finish_s": np.array([3.0, 3.0, 3.0, np.nan, np.nan]),
        "generated_tokens": np.array([3, 5, 1, 0, 0]),
        "preemptions": np.array([0, 2, 2, 0, 0]),
        "status": np.array(["finished", "finished", "finished", "refused", "unfinished"], object),
        "stall_s": np.array([0.2, 0.9]),
        "stall_count": np.array([1, 1, 0, 0, 0]),
    }
    steps = {
        "start_s": np.array([0.0, 1.0, 2.0]),
        "duration_s": np.ones(3),
        "blocked": np.array(["", "memory", "seats"], object),
        "gap_s": np.array([0.0, 0.9, 0.1]),
    }
    return requests, steps


def test_a_wait_is_told_with_its_cause_and_those_ahead() -> None:
    waited = waits(*queue())
    np.testing.assert_array_equal(waited.seconds, [0.0, 1.5, 1.0, np.nan, 1.5])
    assert waited.ahead.tolist() == [0, 0, 1, 2, 2]
    assert [BLOCKED[cause] for cause in waited.cause] == ["", "memory", "memory", "", "seats"]
    np.testing.assert_allclose(waited.share, [0, 1 / 1.5, 1, 0, 1 / 1.5])


def test_requests_worth_a_look_are_the_extremes_of_the_run() -> None:
    requests, steps = queue()
    found = {one.what: one[1:] for one in notable(requests, steps, waits(requests, steps))}
    assert found == {
        "waited longest": (1, "1.50 s"),
        "slowest per token": (2, "2,000 ms a token"),
        "preempted most": (1, "2 times"),
        "longest pause between tokens": (1, "0.900 s"),
    }
    steps["gap_s"][1] = 1.0  # a whole batch paused longer
    assert [one.what for one in notable(requests, steps, waits(requests, steps))][-1] == "preempted most"
    nobody = {name: column[:0] for name, column in requests.items()}
    nothing = {name: column[:0] for name, column in steps.items()}
    assert notable(nobody, nothing, waits(nobody, nothing)) == []


def test_waits_of_requests_that_started_are_their_metric(toy: Path) -> None:
    for run in open_directory(toy).runs:
        requests = run.requests()
        queued = queue_s(Observed(requests, {}, 1))
        started = ~np.isnan(queued)
        assert started.any()
        np.testing.assert_array_equal(waits(requests, run.lazy_steps).seconds[started], queued[started])


def test_integers_that_no_page_can_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        pack(np.array([1 << 40]))


def long_steps(count: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    duration = rng.uniform(0.01, 0.03, count)
    live = rng.integers(0, 500, count)
    steps = {name: np.zeros(count, np.int64) for name in (*SHARES, "shared_savings", "swapped", "largest_hole")}
    steps |= {"live": live, "free": 1000 - live, "step": np.arange(count)}
    steps |= {name: rng.integers(0, 50, count) for name in ("running", "waiting", "prefill_tokens", "decode_tokens")}
    steps["preemptions"] = (rng.random(count) < 0.001).astype(np.int64)
    start = np.append(0, np.cumsum(duration)[:-1])
    return steps | {"start_s": start, "duration_s": duration, "blocked": np.full(count, "", dtype=object)}


def test_kept_rows_are_rows_that_were_recorded_and_sum_to_the_pool() -> None:
    steps = long_steps(50_000)
    windows = [(100.0, 101.0)]
    kept = timeline(steps, 4000, windows)
    data = {name: unpack(packed) for name, packed in kept.data.items()}
    assert kept.total == 50_000
    assert 2000 < len(kept.rows) < 5500
    np.testing.assert_array_equal(sum(data[name].astype(np.int64) for name in SHARES), 1000)
    np.testing.assert_array_equal(data["start"], steps["start_s"][kept.rows])
    inside = (steps["start_s"] >= 100.0) & (steps["start_s"] < 101.0)
    assert np.isin(np.flatnonzero(inside), kept.rows).all()
    assert int(np.argmax(steps["live"])) in kept.rows


def test_short_runs_are_kept_whole() -> None:
    assert choose(long_steps(300), 4000, []).tolist() == list(range(300))


def test_rates_lose_no_token() -> None:
    steps = long_steps(5000)
    width = steps["duration_s"].sum() / BINS
    binned = rates(steps)
    assert binned["decode_tps"].sum() * width == pytest.approx(steps["decode_tokens"].sum(), rel=1e-5)
    assert binned["prefill_tps"].sum() * width == pytest.approx(steps["prefill_tokens"].sum(), rel=1e-5)


def test_windows_of_detail_hold_the_fullest_instant_and_the_first_preemption() -> None:
    steps = long_steps(5000)
    windows = detail_windows(steps)
    for instant in (np.argmax(steps["live"]), np.argmax(steps["preemptions"] > 0)):
        assert any(begin <= steps["start_s"][instant] <= end for begin, end in windows)


def snapshots(*rows: tuple[float, int, int, int, int, int]) -> dict[str, npt.NDArray[Any]]:
    names = ("time_s", "block", "count", "request_id", "references", "slack")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def test_block_map_of_a_case_drawn_by_hand() -> None:
    blocks = snapshots(
        (0.0, 1, 2, 7, 1, 3),  # blocks 1 and 2 of request 7, the second has 3 of 4 slots empty
        (0.0, 4, 1, 9, 2, 0),  # block 4 shared by two sequences
        (1.5, 4, 1, -1, 0, 0),  # later only cached
    )
    drawn = block_map(blocks, num_blocks=5, block_size=4, cells=1000)
    assert drawn is not None
    assert drawn.instants.tolist() == [0.0, 1.5]
    assert drawn.owners.tolist() == [7, 9]
    assert drawn.owner.tolist() == [
        [FIRST_OWNER, FREE],
        [FIRST_OWNER, FREE],
        [FREE, FREE],
        [FIRST_OWNER + 1, CACHED],
        [FREE, FREE],
    ]
    assert drawn.references[:, 0].tolist() == [1, 1, 0, 2, 0]
    assert drawn.empty[:, 0].tolist() == [0, 255 - 255 // 4, 0, 0, 0]


def test_block_map_keeps_to_its_budget_and_says_what_it_left_out() -> None:
    rows = [(float(time), 1, 10_000, 3, 1, 0) for time in range(900)]
    drawn = block_map(snapshots(*rows), num_blocks=10_000, block_size=16, cells=1_000_000)
    assert drawn is not None
    assert drawn.owner.size <= 1_000_000
    assert drawn.stride == 4
    assert len(drawn.instants) >= 300
    assert drawn.snapshots == 900
    assert (drawn.owner == FIRST_OWNER).all()


def test_a_run_without_snapshots_has_no_map() -> None:
    assert block_map({"time_s": np.zeros(0)}, 10, 16, 1000) is None


def test_blocks_held_is_the_most_at_one_instant() -> None:
    blocks = snapshots((0.0, 1, 2, 7, 1, 0), (0.0, 9, 3, 7, 1, 0), (1.0, 1, 4, 7, 1, 0), (1.0, 5, 1, 8, 1, 0))
    ids, most = blocks_held(blocks)
    assert (ids.tolist(), most.tolist()) == ([7, 8], [5, 1])


def test_absences_are_gaps_between_snapshots() -> None:
    rows = [(float(time), 1, 1, 7, 1, 0) for time in (0, 1, 4, 5)] + [(float(time), 2, 1, 8, 1, 0) for time in range(6)]
    assert absences(snapshots(*sorted(rows)), np.array([7, 8])) == [(7, 2.0, 4.0)]


def test_select_keeps_every_preempted_refused_and_wanted_request() -> None:
    count = 20_000
    arrival = np.arange(count, dtype=float)
    run = {
        "request_id": np.arange(count),
        "arrival_s": arrival,
        "first_token_s": arrival + 1,
        "finish_s": arrival + 2,
        "preemptions": np.where(np.arange(count) % 997 == 5, 1, 0),
        "status": np.where(np.arange(count) == 777, "refused", "finished").astype(object),
    }
    chosen = select([run], [(500.0, 510.0)], always=[1234], limit=3000)
    assert len(chosen) == 3000
    wanted = [1234, 777, *range(500, 510), *np.flatnonzero(run["preemptions"])]
    assert np.isin(wanted, chosen).all()
    assert select([run], [], limit=30_000).tolist() == list(range(count))


def test_requests_are_chosen_by_their_ids_where_a_loop_ended_early() -> None:
    def run(ids: list[int], slow: int) -> dict[str, npt.NDArray[Any]]:
        arrival = np.arange(len(ids), dtype=float)
        finish = arrival + np.where(np.array(ids) == slow, 9.0, 2.0)
        first = {"request_id": np.array(ids), "arrival_s": arrival, "first_token_s": finish - 1, "finish_s": finish}
        rest = {"preemptions": np.zeros(len(ids), np.int64), "status": np.full(len(ids), "finished", object)}
        return first | rest | {"scheduled_s": np.array(ids, float)}

    one, two = run([0, 1, 2, 4, 5, 9], slow=9), run([0, 1, 3, 4, 6, 7, 8, 11, 12], slow=12)
    assert everyone([one, two]).tolist() == [*range(10), 11, 12]
    chosen = select([one, two], [], always=[9, 12], limit=3)
    assert {9, 12} < set(chosen.tolist())
    assert one["request_id"][kept(one, chosen)].tolist() == [each for each in chosen if each in one["request_id"]]
    assert two["request_id"][kept(two, chosen)].tolist() == [each for each in chosen if each in two["request_id"]]
    assert diverge(one, two, 0.1) is None  # those that both have are treated alike
    two["scheduled_s"][3] += 1  # request 4
    assert (found := diverge(one, two, 0.1)) is not None
    assert found.request_id == 4


def test_gantt_pairs_losses_with_returns(toy: Path) -> None:
    run = next(run for run in open_directory(toy).runs if run.label == "paged")
    requests, events = run.requests(), run.events()
    assert events is not None
    assert (events["event"] == "preempt").sum() == requests["preemptions"].sum() > 0
    packed = gantt(
        requests,
        np.arange(len(requests["request_id"])),
        run.blocks(),
        events,
        misses(requests, run.steps(), {"ttft_s": 1.0}),
    )
    assert packed.data["loss_of"]["length"] == requests["preemptions"].sum()
    begin, end = unpack(packed.data["loss_from"]), unpack(packed.data["loss_until"])
    assert (begin < end).all()
    late = requests["first_token_s"] - requests["arrival_s"] > 1.0
    np.testing.assert_array_equal(unpack(packed.data["miss"]).astype(bool), late)


def test_what_a_request_held_is_told_only_if_a_snapshot_saw_it(toy: Path) -> None:
    run = next(run for run in open_directory(toy).runs if run.label == "preallocated")
    requests, blocks = run.requests(), run.blocks()
    assert blocks is not None
    everyone = np.arange(len(requests["request_id"]))
    late = {name: column[blocks["time_s"] > 5] for name, column in blocks.items()}
    held = unpack(gantt(requests, everyone, late, None, misses(requests, {}, {})).data["held"])
    seen = np.isin(everyone, late["request_id"])
    assert 0 < np.count_nonzero(seen) < len(everyone)
    assert (held > 0).tolist() == seen.tolist()


@pytest.mark.parametrize("slo", [{"itl_s": 0.1}, {"ttft_s": 1.0, "tpot_s": 0.05}, {"e2e_s": 4.0, "itl_s": 0.1}])
def test_requests_are_marked_that_are_no_goodput(toy: Path, slo: dict[str, float]) -> None:
    run = next(run for run in open_directory(toy).runs if run.label == "paged")
    entry = run.summarise(slo)
    goodput = entry["metrics"]["goodput_rps"] * entry["duration_s"]
    missed = misses(run.requests(), run.lazy_steps, slo)
    assert len(missed) - np.count_nonzero(missed) == pytest.approx(goodput)
    assert 0 < goodput < len(missed)


def test_losses_are_found_between_snapshots_where_no_event_was_recorded(toy: Path) -> None:
    run = next(run for run in open_directory(toy).runs if run.label == "paged")
    requests = run.requests()
    packed = gantt(requests, np.arange(len(requests["request_id"])), run.blocks(), None, misses(requests, {}, {}))
    lost = set(unpack(packed.data["loss_of"]).tolist())
    assert lost
    assert lost <= set(np.flatnonzero(requests["preemptions"]).tolist())


def test_ticks_tell_who_lost_what_to_whom_and_why(toy: Path) -> None:
    run = next(run for run in open_directory(toy).runs if run.label == "paged")
    events = run.events()
    assert events is not None
    lost = events["event"] == "preempt"
    steps = run.steps()
    steps["evicted"] = np.zeros(len(steps["step"]), np.int64)
    steps["evicted"][3:5] = (4, 2)
    made = ticks(steps, run.requests(), events)
    data = {name: unpack(packed) for name, packed in made.data.items()}
    assert made.exact
    assert made.counts == {"preempt": lost.sum(), "swap_out": 0, "refuse": 0, "evict": 6}
    preempted = data["kind"] == 0
    for name, column in (("time", "time_s"), ("request", "request_id"), ("cause", "cause"), ("amount", "slots")):
        np.testing.assert_array_equal(data[name][preempted], events[column][lost])
    assert {made.reasons[at] for at in data["reason"][preempted]} == {"too few free blocks"}
    evicted = np.flatnonzero(data["kind"] == 3)
    assert data["amount"][evicted].sum() == 6
    assert data["time"][evicted[0]] == steps["start_s"][3]
    unrecorded = ticks(steps, run.requests(), None)
    assert not unrecorded.exact
    assert unrecorded.counts["preempt"] == np.count_nonzero(steps["preemptions"])


def test_an_eviction_names_whom_it_let_in() -> None:
    steps = {"start_s": np.array([0.0, 1.0, 2.0]), "evicted": np.array([0, 3, 1]), "preemptions": np.zeros(3)}
    requests = {"request_id": np.array([7, 8]), "scheduled_s": np.array([np.nan, 1.0])}
    made = ticks(steps, requests, None)
    assert unpack(made.data["cause"]).tolist() == [8, -1]
    assert unpack(made.data["amount"]).tolist() == [3, 1]


def test_recomputation_ends_when_the_lost_tokens_are_back() -> None:
    words = ["preempt", "resume", "recomputed", "swap_out", "swap_in", "preempt"]
    events = {"time_s": np.arange(6.0), "request_id": np.full(6, 3), "event": np.array(words, object)}
    found = losses({"request_id": np.array([3])}, None, events)
    assert [(one.begin_s, one.end_s, one.swapped) for one in found] == [(0, 1, False), (3, 4, True), (5, np.inf, False)]
    assert found[0].ready_s == 2
    assert np.isnan(found[1].ready_s)


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


def test_contrast_prefers_reserving_against_paged(toy: Path) -> None:
    one, two = contrast(group(open_directory(toy).summary()))
    assert (one.label, two.label) == ("preallocated", "paged")
    assert findings([two])


def test_the_page_is_one_file_that_asks_for_nothing(toy: Path) -> None:
    text = b"".join(render(open_directory(toy))).decode()
    assert "default-src 'none'" in text
    assert "plotly.js v" in text
    assert len(text) < 8_000_000
    head = text[: text.index('id="plotly"')] + text[text.rindex("</script>") :]
    assert "http://" not in head.replace("http-equiv", "")
    assert "src=" not in head.replace("default-src", "").replace("script-src", "").replace("style-src", "")


def facts_of(text: str) -> Any:
    start = text.index('id="facts">') + len('id="facts">')
    return json.loads(text[start : text.index("</script>", start)])


HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>{{7*7}}'


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    path = write_directory(
        tmp_path / "run", count=10, kinds=("paged", "preallocated"), labels=(HOSTILE, "<b>b</b>"), name=HOSTILE
    )
    text = b"".join(render(open_directory(path))).decode()
    assert "<img src=x" not in text
    assert "<script>document.title" not in text
    assert "&lt;img src=x" in text
    assert facts_of(text)["columns"][0]["label"] == HOSTILE


def test_embedded_json_cannot_close_its_element() -> None:
    assert "<" not in embed({"a": "</script>"})
    assert json.loads(embed({"a": "</script>&"})) == {"a": "</script>&"}


def test_joined_directories_show_one_allocator_from_each(toy: Path, repeated: Path, tmp_path: Path) -> None:
    out = write_joint_report([toy, repeated], tmp_path / "joint.html")
    text = out.read_text()
    facts = facts_of(text)
    labels = [column["label"] for column in facts["columns"]]
    assert labels[:3] == ["preallocated (run)", "paged (run)", "ideal (run)"]
    assert [labels[index] for index in facts["pair"]] == ["paged (run)", "paged (repeated)"]
    with pytest.raises(RunDirectoryError, match="two directories are called run"):
        write_joint_report([toy, toy], tmp_path / "joint.html")


def test_joined_directories_are_each_held_against_their_own_bound(toy: Path, tmp_path: Path) -> None:
    other = write_directory(tmp_path / "large", num_blocks=256)
    page = document(together([open_directory(toy), open_directory(other)]))
    assert [row["batch_of_ideal"] for row in page["table"] if row["kind"] == "ideal"] == pytest.approx([100, 100])
    alone = [row["batch_of_ideal"] for path in (toy, other) for row in document(open_directory(path))["table"]]
    assert [row["batch_of_ideal"] for row in page["table"]] == alone
    assert [row["ideal"] for row in page["facts"]["bars"][0]["rows"]] == alone


def test_joined_directories_of_other_requests_are_not_compared_one_by_one(toy: Path, tmp_path: Path) -> None:
    other = write_directory(tmp_path / "other", count=60, rate=9, seed=1, name="evening")
    both = together([open_directory(toy), open_directory(other)])
    page = document(both)
    draw = [column["draw"] for column in page["facts"]["columns"]]
    assert draw == [0, 0, 0, 1, 1, 1]
    assert {tuple(draw[int(index)] for index in pair.split(",")) for pair in page["facts"]["divergences"]} == {
        (0, 0),
        (1, 1),
    }
    assert any("did not serve the same requests" in found.text for found in page["findings"])
    told = subtitle(both)
    assert both.name == "toy beside evening"
    assert "80 requests beside 60 requests" in told
    assert told[-1] == "seed 0 beside seed 1"


def test_joined_directories_name_each_device_with_its_pool(toy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(toy, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["device"]["name"] = "h200"
    for run in manifest["runs"]:
        run["num_blocks"] *= 2
    (other / "manifest.json").write_text(json.dumps(manifest))
    alone = [subtitle(open_directory(path)) for path in (toy, other)]
    joint = subtitle(together([open_directory(path) for path in (toy, other)]))
    assert joint[1:3] == [f"{one} beside {two}" for one, two in zip(*alone, strict=True) if one != two]
    assert len(joint) == len(alone[0]) + 1
    shutil.copytree(toy, tmp_path / "same")
    assert subtitle(together([open_directory(path) for path in (toy, tmp_path / "same")]))[1:] == alone[0]


def test_a_pool_counted_in_parts_of_a_token_is_the_same_pool(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy, tmp_path / "toy")
    path = tmp_path / "toy" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["model"]["kv_bytes_per_token"] = 131072
    run = manifest["runs"][1]
    run |= {
        "capacity": 6 * run["capacity"],
        "num_blocks": 6 * run["num_blocks"],
        "block_bytes": run["block_bytes"] // 6,
    }
    path.write_text(json.dumps(manifest))
    told = write_report(tmp_path / "toy").read_text()
    tokens = manifest["runs"][0]["capacity"]
    assert f"GiB, {tokens:,} token slots" in told
    assert "From the same pool" in told
    run["num_blocks"] //= 2
    path.write_text(json.dumps(manifest))
    assert "From the same pool" not in write_report(tmp_path / "toy").read_text()


def test_the_index_lists_runs_and_links_to_their_pages(toy: Path, repeated: Path, tmp_path: Path) -> None:
    write_report(toy)
    text = write_index([toy, repeated], tmp_path / "index.html").read_text()
    link = re.findall(r'<a href="([^"]+)">toy</a>', text)
    assert (tmp_path / link[0]).resolve() == (toy / "report.html").resolve()
    assert "no page yet" in text
    assert text.count('scope="row"') == 6


def test_requests_a_second_are_told_with_how_many_came_and_when_it_was_steady(toy: Path) -> None:
    """A run that waits for its last request finishes fewer a second than came, also if it kept up."""
    entries = open_directory(toy).summary()
    text = write_report(toy).read_text()
    rate = entries[0]["requests"]["offered_rps"]
    assert f"finished, over the whole run, until the last is done; {rate:.2f} arrive a second." in text
    steady = [entry["steady"]["throughput_rps"] for entry in entries if entry["steady"]]
    assert re.findall(r"<small>steady ([\d.]+)</small>", text) == [short(one) for one in steady if one > 0]
    assert steady


def test_no_rate_is_called_steady_that_became_so_too_late_or_is_of_a_closed_loop(toy: Path, tmp_path: Path) -> None:
    """A closed loop that ran dry was told to have a steady rate of 1.5 requests a second; over the run it was 6.9."""
    path = tmp_path / "toy"
    shutil.copytree(toy, path)
    entries = open_directory(toy).summary()
    for changed in ("late", "closed"):
        some = json.loads(json.dumps(entries))
        for entry in some:
            if changed == "closed":
                entry["requests"]["offered_rps"] = None
            else:
                entry["steady"]["from_s"] = 0.74 * entry["steady"]["until_s"]
        (path / "summary.json").write_text(json.dumps({"schema": 1, "runs": some}))
        assert "<small>steady" not in write_report(path).read_text()


def test_a_small_pool_is_told_in_a_unit_of_which_it_has_some(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy, tmp_path / "toy")
    path = tmp_path / "toy" / "manifest.json"
    manifest = json.loads(path.read_text())
    for run in manifest["runs"]:
        run |= {"num_blocks": 157, "block_bytes": 1024}
    path.write_text(json.dumps(manifest))
    assert any(told.startswith("KV pool of 0.153 MiB") for told in subtitle(open_directory(tmp_path / "toy")))


def test_a_workload_with_variants_has_a_page_for_each_and_an_index(toy: Path, repeated: Path, tmp_path: Path) -> None:
    for name, path in (("slow", toy), ("fast", repeated)):
        shutil.copytree(path, tmp_path / name)
    each = [{"label": name, "dir": name} for name in ("slow", "fast")]
    (tmp_path / "variants.json").write_text(
        json.dumps({"schema": 1, "name": "both", "remarks": [], "variants": each}), encoding="utf-8"
    )
    page = write_page(tmp_path)
    assert page == tmp_path / "index.html"
    assert re.findall(r'<a href="([^"]+)">', page.read_text()) == ["slow/report.html", "fast/report.html"]
    assert all((tmp_path / name / "report.html").exists() for name in ("slow", "fast"))
    text = write_index([tmp_path, toy], tmp_path / "all.html").read_text()
    assert '<a href="index.html">both</a>' in text
    assert "variants: slow, fast" in text


def test_findings_do_not_praise_a_pool_that_refuses_everything(tmp_path: Path) -> None:
    entries = open_directory(write_directory(tmp_path / "run", count=12, kinds=("paged",))).summary()
    reason = "larger than the whole pool"
    entries[0]["requests"] |= {"refused": 12, "finished": 0, "refusals": {reason: 12}}
    entries[0]["metrics"]["kv_efficiency"] = None
    said = {finding.tone: finding.text for finding in findings(group(entries))}
    assert said["limit"] == f"paged refused 12 of 12 requests: {reason}."
    assert said["advice"].startswith("Change first: the pool.")
    assert "nan" not in " ".join(said.values())


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


def test_what_refuses_everything_is_not_contrasted_with_what_serves(toy: Path) -> None:
    entries = open_directory(toy).summary()
    assert [one.label for one in contrast(group(entries))] == ["preallocated", "paged"]
    entries[0]["verdict"] = "REFUSED"
    assert [one.label for one in contrast(group(entries))] == ["paged", "paged"]


def test_a_directory_from_before_a_figure_was_known_has_a_page(toy: Path, tmp_path: Path) -> None:
    """Figures of prices came later: a summary without them shows all else."""
    old = shutil.copytree(toy, tmp_path / "old")
    summary = json.loads((old / "summary.json").read_text(encoding="utf-8"))
    for entry in summary["runs"]:
        del entry["metrics"]["cost_per_million_output_tokens"]
    (old / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    drawn = [bar["name"] for bar in document(open_directory(old))["facts"]["bars"]]
    assert drawn == [bar["name"] for bar in document(open_directory(toy))["facts"]["bars"]]


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


def test_sentences_are_escaped_and_what_is_quoted_in_them_is_code() -> None:
    assert str(prose("<b> 1 -> 2, as `run` & `a<b` say")) == (
        "&lt;b&gt; 1 → 2, as <code>run</code> &amp; <code>a&lt;b</code> say"
    )
    assert str(prose("one ` alone <i>")) == "one ` alone &lt;i&gt;"


def test_a_gpu_that_has_no_name_is_the_reader_s_own(toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(toy, folder)
    content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    content |= {"model": {"name": "llama-3.1-8b"}, "device": {"name": "custom"}}
    (folder / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    assert "llama-3.1-8b on a GPU of your own" in write_report(folder).read_text(encoding="utf-8")
