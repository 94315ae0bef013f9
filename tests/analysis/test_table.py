from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from analysis.compare import compare, compare_allocators
from analysis.differences import show_comparison
from analysis.figures import SUSTAINED, figure, group, is_figure, parts, percent_of
from analysis.metrics import formulas
from analysis.numbers import percentage, short
from analysis.reading import open_directory
from analysis.remarks import above_bound
from analysis.table import notes, overview, show
from tests.analysis.synthetic import write_directory


def shown(directory: Path, width: int = 100, expect: dict[str, dict[str, object]] | None = None) -> str:
    out = io.StringIO()
    opened = open_directory(directory)
    show(opened.summary(), {"expect": expect}, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [100, 140])
def test_the_tables_fit_and_name_everything(toy: Path, width: int) -> None:
    text = shown(toy, width)
    assert max(map(len, text.splitlines())) <= width
    for wanted in ("Speed", "Latency", "Memory", "preallocated", "paged", "ideal", "OVERLOADED", "80/80"):
        assert wanted in text
    assert "…" not in text, "nothing is cut off"


def test_overload_stands_beside_the_latencies(toy: Path) -> None:
    latency = shown(toy).split("Latency")[1].split("Memory")[0]
    row = next(line for line in latency.splitlines() if line.strip().startswith("prealloc"))
    assert row.rstrip().endswith("*")
    assert "* OVERLOADED" in latency


def test_published_figures_stand_beside_simulated_ones(toy: Path) -> None:
    expect: dict[str, dict[str, object]] = {
        "paged": {"batch_size": {"value": 7, "source": "Fig. 13"}, "share.external+rounding+free": 8.9}
    }
    text = shown(toy, 120, expect)
    assert "Published beside simulated" in text
    assert "Fig. 13" in text
    assert "points" in text


def test_names_of_figures_stay_in_one_piece_on_a_hundred_columns(toy: Path) -> None:
    source = "figure 12, over three models and more"
    figures: dict[str, object] = {
        name: {"value": 7, "source": source} for name in ("share.reserved", "share.internal", "share.external+rounding")
    }
    text = shown(toy, 100, {"preallocated": figures})
    for name in ("share.reserved ", "share.internal ", "share.external+"):
        assert f" {name}" in text
    assert max(map(len, text.splitlines())) <= 100


def test_nothing_of_published_figures_is_cut_at_the_edge(toy: Path) -> None:
    shares = ("share.live", "share.reserved", "share.external+rounding")
    expect: dict[str, dict[str, object]] = {
        "preallocated": {
            "batch_size": {"value": 7, "source": "fig. 13, fitted"},
            "throughput_rps": {"low": 0.125, "high": 0.37, "over": "paged", "source": "fig. 12: 2.7 to 8 times"},
            **{name: {"value": 17.9, "source": "fig. 2, external and others"} for name in shares},
        }
    }
    narrow, wide = (shown(toy, width, expect).partition("Published beside")[2] for width in (100, 200))
    assert sorted(narrow.replace("─", "").split()) == sorted(wide.replace("─", "").split())


def test_refused_and_unfinished_requests_are_told(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "run", count=40, num_blocks=16, kinds=("paged",), until=30.0)
    text = shown(path)
    entry = open_directory(path).summary()[0]
    assert entry["requests"]["refused"] > 0
    assert entry["requests"]["unfinished"] > 0
    assert f"{entry['requests']['refused']} of 40 requests refused" in text
    assert "larger than the whole pool" in text
    assert "unfinished when the run ended" in text


def test_figures_are_found_by_name(toy: Path) -> None:
    entry = open_directory(toy).summary()[1]
    shares = {name: figure(entry, f"share.{name}") for name in ("live", "reserved", "internal", "free")}
    assert sum(shares.values()) == pytest.approx(100)
    assert figure(entry, "share.live+free") == pytest.approx(shares["live"] + shares["free"])
    assert figure(entry, "batch_size") == entry["metrics"]["batch_size"]["mean"]
    assert figure(entry, "batch_size.peak") == entry["metrics"]["batch_size"]["peak"]
    assert figure(entry, "steady.batch_size") == entry["steady"]["batch_size"]
    assert 0 < figure(entry, "steady.share.live") <= 100
    with pytest.raises(KeyError):
        figure(entry, "no_such_metric")


def test_every_figure_that_is_one_can_be_looked_up(toy: Path) -> None:
    entry = open_directory(toy).summary()[1]
    for head in (*formulas(), "peak", "steady", SUSTAINED):
        assert parts(head)
        for part in parts(head):
            name = f"{head}.{part}" if part else head
            assert is_figure(name)
            assert isinstance(figure(entry, name), float)
    assert all(map(is_figure, ("ttft_s", "batch_size", "share.live+free", "steady.share.live")))
    wrong = "ttft_s.p98 ttft_s.ci95 batch_size.p99 peak peak.foo blocked_by blocked_by.foo goodput_rps.mean steady "
    wrong += "steady.foo steady.share.foo share share.live+ sustained_rps.rps ttfs ledger"
    assert not any(map(is_figure, wrong.split()))


def test_the_share_within_the_slo_is_of_all_requests(toy: Path) -> None:
    entry = open_directory(toy).summary()[0]
    entry |= {"duration_s": 10.0, "metrics": {**entry["metrics"], "goodput_rps": 2.0}}
    entry["requests"]["total"] = 40
    assert group([entry])[0].within_slo == pytest.approx(50)


def test_per_cent_of_ideal(toy: Path) -> None:
    first, _, ideal = group(open_directory(toy).summary())
    assert percent_of(ideal, ideal, "batch_size") == pytest.approx(100)
    assert percent_of(first, ideal, "throughput_rps") < 60


def test_what_is_above_the_bound_is_explained(toy: Path) -> None:
    entries = open_directory(toy).summary()
    assert above_bound(group(entries)) == []
    entries[0]["metrics"]["batch_size"]["mean"] = 2 * entries[-1]["metrics"]["batch_size"]["mean"]
    (told,) = above_bound(group(entries))
    assert told.startswith(f"{entries[0]['allocator']} has 200 % of the ideal batch: slower steps")
    assert above_bound(group(entries)[:1]) == [], "there is no bound to be above"


def test_a_bound_is_beaten_by_refusing_what_it_serves(toy: Path) -> None:
    first, *_, ideal = entries = open_directory(toy).summary()
    first["metrics"]["batch_size"]["mean"] = 2 * ideal["metrics"]["batch_size"]["mean"]
    first["requests"]["refused"] = 3
    said = above_bound(group(entries))
    assert said[1] == "preallocated refused requests that the bound served, so its figures are of easier requests."


@pytest.mark.parametrize(("gap", "told"), [(1e-9, False), (1e-3, True)])
def test_steps_and_requests_that_disagree_on_who_was_there_are_told(toy: Path, gap: float, told: bool) -> None:
    entry = open_directory(toy).summary()[0]
    entry["little"]["gap"] = gap
    said = "preallocated: steps and requests disagree by 0.1 % on how many were in the system (Little's law)"
    assert any(note.startswith(said) for note in notes(group([entry]))) is told


def test_a_long_name_is_broken_behind_a_hyphen(toy: Path) -> None:
    entry = open_directory(toy).summary()[0] | {"allocator": "contiguous-oracle-first-fit"}
    out = io.StringIO()
    show([entry], {}, Console(file=out, width=100))
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert sum(line.startswith("contiguous-oracle- ") for line in lines) == 3
    assert lines.count("first-fit") == 3


def test_whatever_a_name_holds_it_stands_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd = ("two\nlines", "\x1b[31m[red]")
    write_directory("a\nb", kinds=("paged", "preallocated"), labels=odd, count=20)
    directory = open_directory("a\nb")
    console = Console(file=io.StringIO(), width=100)
    show(directory.summary(), directory.manifest, console)
    show_comparison(compare_allocators(directory.path), console)
    show_comparison(compare(directory.path, directory.path), console)
    console.print(overview([("x\ny", group(directory.summary()))]))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    assert "\x1b" not in text
    lines = [row.split("  ")[0].strip() for row in text.splitlines()]
    assert lines.count(r"two\nlines") == 3 + 1
    assert lines.count(r"\x1b[31m[red]") == 3 + 1 + 1
    assert lines.count(r"x\ny") == 2
    assert r"a\nb: two\nlines → each of the others" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "-"),
        (1234.5, "1,234"),
        (99.96, "100"),
        (12.34, "12.3"),
        (9.996, "10.0"),
        (1.501, "1.50"),
        (0.01234, "0.0123"),
        (3.0, "3"),
    ],
)
def test_numbers_have_three_digits_unless_they_are_counts(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "-"),
        (100.0, "100.0"),
        (100 - 1e-13, "100.0"),  # of sums, all the same
        (99.98, ">99.9"),  # of 5,000 requests one is late
        (99.94, "99.9"),
        (50.0, "50.0"),
        (0.04, "<0.1"),
        (0.0, "0.0"),
    ],
)
def test_all_requests_are_100_per_cent_and_nothing_else_is(value: float, text: str) -> None:
    assert percentage(value) == text
