"""What becomes of the rows of a trace, whatever its format: some of them, in order, faster, spread, linked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.workloads.samples import FILES, MOONCAKE, lines, load
from workloads.errors import WorkloadError
from workloads.streams import stream
from workloads.trace import Trace
from workloads.traces import rows
from workloads.traces.rows import Rows, coarse_clock, requests_of, spread_ticks


def test_rate_scale_divides_every_gap(tmp_path: Path) -> None:
    once, twice = load(tmp_path, FILES["vidur"]), load(tmp_path, FILES["vidur"], rate_scale=2.0)
    assert twice.arrival_s.tolist() == (once.arrival_s / 2).tolist()


def test_count_takes_the_first(tmp_path: Path) -> None:
    assert len(load(tmp_path, FILES["mooncake"], count=2)) == 2
    more = load(tmp_path, FILES["mooncake"], count=5)
    assert len(more) == 3
    assert more.notes == ("5 requests are asked for, the trace has 3",)


def test_one_in_so_many_is_what_an_engine_gets_that_takes_turns(tmp_path: Path) -> None:
    text = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{2 * at},{at + 1},9\n" for at in range(8))
    made = load(tmp_path, text, one_in=3, rate_scale=2.0)
    assert made.arrival_s.tolist() == [0, 3, 6]
    assert made.prompt_tokens.tolist() == [1, 4, 7]
    assert load(tmp_path, text, one_in=3, count=6).prompt_tokens.tolist() == [1, 4]


def test_each_replication_is_the_share_of_another_engine(tmp_path: Path) -> None:
    text = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{2 * at},{at + 1},9\n" for at in range(8))
    load(tmp_path, text)  # which writes it
    trace = Trace(trace=str(next(tmp_path.iterdir())), one_in=3)
    shares = [requests_of(rows(trace)[0], trace, stream(0, "spread"), repeat) for repeat in range(4)]
    assert [one.prompt_tokens.tolist() for one in shares] == [[1, 4, 7], [2, 5, 8], [3, 6], [1, 4, 7]]
    assert shares[1].arrival_s.tolist() == [2, 8, 14], "as the trace has it: engines share its clock"
    with pytest.raises(WorkloadError, match=r"one_in 10 leaves no request for replication 9$"):
        requests_of(rows(trace)[0], trace.model_copy(update={"one_in": 10}), stream(0, "spread"), 8)


def test_one_in_so_many_keeps_conversations_whole(tmp_path: Path) -> None:
    """Conversations begin with rows 0, 1, 2 and 5; rows 3, 4 and 6 continue the first."""
    rows = Rows(
        arrival_s=np.arange(7.0),
        prompt_tokens=np.arange(1.0, 8.0),
        output_tokens=np.full(7, 6.0),
        lines=list,
        after=np.array([-1, -1, -1, 0, 0, -1, 4]),
        delay_s=np.full(7, 0.5),
    )
    (path := tmp_path / "rows.csv").touch()
    made = requests_of(rows, Trace(trace=str(path), one_in=2), stream(0, "spread"))
    assert made.prompt_tokens.tolist() == [1, 3, 4, 5, 7]
    assert made.after.tolist() == [-1, -1, 0, 0, 3]


def test_shuffled_rows_are_sorted_with_their_blocks(tmp_path: Path) -> None:
    made = load(tmp_path, lines([MOONCAKE[2], MOONCAKE[0], MOONCAKE[1]]))
    straight = load(tmp_path, lines(MOONCAKE))
    assert made.prompt_tokens.tolist() == straight.prompt_tokens.tolist()
    assert made.prefixes.pieces(0) == straight.prefixes.pieces(0)
    assert made.notes == ("rows were not in order of arrival: sorted",)


def test_a_coarse_clock_is_spread_and_a_fine_one_is_not(tmp_path: Path) -> None:
    ticks = np.repeat(np.arange(200) * 3000, 10)
    records = [{"timestamp": int(t), "input_length": 5, "output_length": 5} for t in ticks]
    spread = load(tmp_path, lines(records))
    assert (np.floor(spread.arrival_s / 3) == ticks / 3000).all()
    assert (np.diff(spread.arrival_s) > 0).all()
    kept = load(tmp_path, lines(records), spread=False)
    assert (kept.arrival_s == ticks / 1000).all()
    fine = load(tmp_path, FILES["mooncake"])
    assert fine.notes == ()


def test_links_follow_their_rows_and_one_that_leads_forward_is_cut(tmp_path: Path) -> None:
    """Row 0 follows row 3, which arrives before it; row 1 follows row 2, which arrives after it."""
    rows = Rows(
        arrival_s=np.array([4.0, 1.0, 2.0, 3.0]),
        prompt_tokens=np.full(4, 5.0),
        output_tokens=np.full(4, 6.0),
        lines=list,
        after=np.array([3, 2, -1, -1]),
        delay_s=np.array([0.5, 0.25, 0.0, 0.0]),
    )
    (path := tmp_path / "rows.csv").touch()
    made = requests_of(rows, Trace(trace=str(path)), stream(0, "spread"))
    assert made.arrival_s.tolist() == [0, 1, 2, 3]
    assert made.after.tolist() == [-1, -1, -1, 2]
    assert made.delay_s.tolist() == [0, 0, 0, 0.5]


def test_arrivals_stay_before_the_next_tick_however_near_it_is() -> None:
    found = spread_ticks(np.array([0.0, 0.0, 1.0, 1.0, 9.0]), 3.0, stream(0, "spread"))
    for before, after, arrival in zip((0, 0, 1, 1, 9), (1, 1, 4, 4, 12), found.tolist(), strict=True):
        assert before <= arrival < after


@pytest.mark.parametrize(
    ("ticks", "each", "tick", "found"),
    [
        (np.arange(100), 3, 3.0, 3.0),
        (np.arange(100), 2, 3.0, 3.0),
        (np.arange(100), 1, 3.0, 0.0),  # a metronome: nobody shares an instant
        (np.arange(100), [1, 2] * 50, 3.0, 0.0),  # most instants are followed by another one
        (np.arange(100), 3, 0.05, 0.0),  # fine enough
        (np.cumsum(np.arange(100) % 4 // 3 + 1), 3, 3.0, 3.0),  # some ticks are empty
        (np.cumsum(np.arange(100) ** 0.5), 3, 3.0, 0.0),  # no steps of a clock
    ],
)
def test_a_clock_is_coarse_if_most_share_its_ticks_and_its_steps_are_multiples(
    ticks: npt.NDArray[np.float64], each: int | list[int], tick: float, found: float
) -> None:
    assert coarse_clock(np.repeat(ticks * tick, each)) == pytest.approx(found)


class TestListedTwice:
    ROWS = tuple((second * 0.7, 100 + 7 * second, 10 + second) for second in range(60))

    def note(self, tmp_path: Path, rows: Sequence[tuple[float, int, int]]) -> str:
        content = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows)
        return "".join(one for one in load(tmp_path, content).notes if "listed twice" in one)

    def test_is_told(self, tmp_path: Path) -> None:
        assert self.note(tmp_path, self.ROWS) == ""
        assert self.note(tmp_path, self.ROWS[:9] + self.ROWS) == (
            "9 rows with the time and the lengths of another: listed twice? All are replayed"
        )
        assert self.note(tmp_path, 3 * self.ROWS).startswith("120 rows with")

    def test_is_not_told_where_lengths_explain_it(self, tmp_path: Path) -> None:
        assert self.note(tmp_path, [(second // 5, 100, 10) for second in range(60)]) == ""
        alike = [(second // 10, 100 + second * 7 % 3, 10) for second in range(300)]
        assert self.note(tmp_path, alike) == "", "ten requests a tick of the clock, of three lengths"
        assert self.note(tmp_path, [(0, 100 + second % 9, 10) for second in range(90)]) == "", "all at once"
