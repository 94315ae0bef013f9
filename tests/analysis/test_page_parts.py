"""What a page is made of: packed arrays, waits, a timeline, the block map, requests and events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from analysis.metrics import queue_s
from analysis.observed import SHARES, Observed
from analysis.page.blockmap import CACHED, FIRST_OWNER, FREE, block_map, blocks_held
from analysis.page.divergence import diverge
from analysis.page.document import misses
from analysis.page.gantt import everyone, gantt, kept, select
from analysis.page.notable import notable, waits
from analysis.page.pack import pack
from analysis.page.timeline import BINS, BLOCKED, choose, detail_windows, rates, timeline
from analysis.phases import absences, losses
from analysis.reading import open_directory
from tests.analysis.packed import unpack


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


def test_recomputation_ends_when_the_lost_tokens_are_back() -> None:
    words = ["preempt", "resume", "recomputed", "swap_out", "swap_in", "preempt"]
    events = {"time_s": np.arange(6.0), "request_id": np.full(6, 3), "event": np.array(words, object)}
    found = losses({"request_id": np.array([3])}, None, events)
    assert [(one.begin_s, one.end_s, one.swapped) for one in found] == [(0, 1, False), (3, 4, True), (5, np.inf, False)]
    assert found[0].ready_s == 2
    assert np.isnan(found[1].ready_s)
