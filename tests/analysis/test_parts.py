"""Each part of a mix by itself: figures of its requests, in summaries, tables and pages."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from analysis.errors import RunDirectoryError
from analysis.figures import COST, group
from analysis.metrics import OF_REQUESTS, PER_REQUEST, good, missed
from analysis.numbers import short
from analysis.observed import Observed
from analysis.page.document import document
from analysis.page.style import limits
from analysis.parts import rows
from analysis.published import rows as published
from analysis.reading import RunDirectory, open_directory
from analysis.report import render
from analysis.slo import limits_of
from analysis.summary import count, summarise
from analysis.table import mixed as table_of_parts
from analysis.table import show, speed
from analysis.terminal import put
from sim.runner import run
from tests.analysis.packed import unpack
from workloads.errors import WorkloadError
from workloads.loader import load

MIXED = """\
name: mixed
model: llama-3.1-8b
device: {name: h100-80gb, kv_memory_gib: 1}
engine: {max_model_len: 4096}
requests:
  mix:
    - name: chat
      count: 60
      arrivals: {kind: poisson, rate: 12}
      shared: [{tokens: 200}]
      lengths: {kind: uniform, prompt: {min: 20, max: 200}, output: {min: 20, max: 200}}
    - name: long reads
      count: 8
      arrivals: {kind: poisson, rate: 2}
      lengths: {kind: fixed, prompt: 3000, output: 90}
allocators: [{kind: paged, prefix_cache: true}, {kind: contiguous, reserve: pow2, label: a contiguous one}]
slo: {ttft_s: 0.5, itl_s: 0.1}
"""


LIMITED = [
    f"{of}{name}" for of in ("", "part.a.", "part.b.") for name in ("ttft_s", "itl_s", "tpot_s", "normalized_latency_s")
]
"""Limits for all, and for two of three parts."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "mixed.yaml").write_text(MIXED)
    return run(load(folder / "mixed.yaml", ["repeat=2"]), folder / "out")


def shown(directory: RunDirectory, width: int = 100) -> str:
    out = io.StringIO()
    show(directory.summary(), directory.manifest, Console(file=out, width=width))
    return out.getvalue()


def page(directory: RunDirectory) -> str:
    return b"".join(render(directory)).decode()


def test_a_run_says_of_each_request_which_part_it_belongs_to(mixed: RunDirectory) -> None:
    part = pq.read_table(mixed.runs[0].path / "requests.parquet")["part"]
    assert str(part.type) == "dictionary<values=string, indices=int8, ordered=0>"
    assert {word: part.to_pylist().count(word) for word in ("chat", "long reads")} == {"chat": 60, "long reads": 8}
    assert mixed.runs[0].requests(["part"])["part"].tolist() == part.to_pylist()


def test_figures_of_a_part_are_those_of_its_requests(mixed: RunDirectory) -> None:
    columns = mixed.runs[0].requests()
    entry = mixed.summary()[0]
    assert list(entry["parts"]) == ["chat", "long reads"]
    for name, told in entry["parts"].items():
        mine = columns["part"] == name
        ttft = (columns["first_token_s"] - columns["arrival_s"])[mine]
        assert told["metrics"]["ttft_s"]["p99"] == pytest.approx(np.nanpercentile(ttft, 99))
        assert told["metrics"]["ttft_s"]["n"] == np.count_nonzero(~np.isnan(ttft))
        assert told["requests"]["total"] == np.count_nonzero(mine)
        assert told["metrics"]["preemptions"] == columns["preemptions"][mine].sum()
        hits = columns["cached_tokens"][mine].sum() / columns["prompt_tokens"][mine].sum()
        assert told["metrics"]["prefix_hit_rate"] == pytest.approx(hits)
    assert entry["parts"]["chat"]["metrics"]["prefix_hit_rate"] > 0.3
    assert entry["parts"]["long reads"]["metrics"]["prefix_hit_rate"] == 0


def test_what_the_tables_say_gives_the_summary_again(mixed: RunDirectory) -> None:
    assert mixed.summary() == [one.summarise(mixed.slo) for one in mixed.runs]
    assert mixed.summary() == [
        summarise(one.requests(), one.steps(), one.facts, mixed.slo) for one in open_directory(mixed.path).runs
    ]


@given(data=st.data())
def test_parts_add_up_to_the_whole(toy: Path, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from("abc"), min_size=80, max_size=80))
    directory = open_directory(toy)
    one = directory.runs[data.draw(st.integers(0, 2))]
    slo = data.draw(st.dictionaries(st.sampled_from(LIMITED), st.sampled_from([None, 0.04, 0.05, 1.0, 5.0])))
    columns: dict[str, Any] = {**one.requests(), "part": np.array(names, object)}
    seen = Observed(columns, one.steps(), one.capacity, slo)
    parts = {name: seen.part(name) for name in "abc"}
    for metric in OF_REQUESTS:
        values = [metric(each) for each in parts.values()]
        if metric.__name__ not in ("prefix_hit_rate", "goodput_rps"):
            assert sum(map(float, values)) == pytest.approx(metric(seen))  # type: ignore[arg-type]  # those are numbers
    for name, each in parts.items():
        mine = columns["part"] == name
        for per_request in PER_REQUEST:
            np.testing.assert_array_equal(per_request(each), per_request(seen)[mine])
        np.testing.assert_array_equal(good(each), good(seen)[mine])
        over = dict(missed(each))
        for limit, all_over in missed(seen):
            np.testing.assert_array_equal(over.get(limit, np.zeros(mine.sum(), bool)), all_over[mine])
    totals = [count(each) for each in parts.values()]
    for word in ("total", "finished", "refused", "unfinished"):
        assert sum(each[word] for each in totals) == count(seen)[word]


def test_limits_of_a_part_take_the_place_of_those_of_all(toy: Path) -> None:
    one = open_directory(toy).runs[1]
    columns: dict[str, Any] = {**one.requests(), "part": np.array(["a", "b"] * 40, object)}
    ttft = columns["first_token_s"] - columns["arrival_s"]
    slo = {"ttft_s": 1.0, "part.b.ttft_s": None, "part.b.e2e_s": 20.0}
    seen = Observed(columns, one.steps(), one.capacity, slo)
    over = dict(missed(seen))
    assert over["ttft_s"].tolist() == [bool(time > 1) and at % 2 == 0 for at, time in enumerate(ttft)]
    late = columns["finish_s"] - columns["arrival_s"] > 20
    assert over["e2e_s"].tolist() == [bool(slow) and at % 2 == 1 for at, slow in enumerate(late)]
    assert 0 < np.count_nonzero(over["ttft_s"]) < np.count_nonzero(ttft > 1)
    assert seen.part("a").slo == {"ttft_s": 1.0}
    assert seen.part("b").slo == {"ttft_s": None, "e2e_s": 20.0}
    assert limits(slo) == "time to first token ≤ 1 s; b: end to end ≤ 20 s"


@pytest.mark.parametrize(
    ("whole", "own", "found", "said"),
    [
        ({"ttft_s": 1}, None, {"ttft_s": 1}, "time to first token ≤ 1 s"),
        ({"ttft_s": 1}, {}, {"ttft_s": 1, "part.b.ttft_s": None}, "time to first token ≤ 1 s; b: no limit"),
        ({}, {"tpot_s": 2}, {"part.b.tpot_s": 2}, "no limit; b: time per output token ≤ 2 s"),
        ({}, {}, {}, ""),
        (
            {"ttft_s": 1},
            {"ttft_s": 3, "tpot_s": 2},
            {"ttft_s": 1, "part.b.ttft_s": 3, "part.b.tpot_s": 2},
            "time to first token ≤ 1 s; b: time to first token ≤ 3 s, time per output token ≤ 2 s",
        ),
    ],
)
def test_the_limits_of_a_workload(whole: Any, own: Any, found: Any, said: str) -> None:
    part = {"name": "b"} if own is None else {"name": "b", "slo": own}
    assert limits_of({"slo": whole, "requests": {"mix": [{"name": "a"}, part]}}) == found
    assert limits(found) == said


def test_a_part_that_is_all_there_is_has_the_figures_of_the_run(toy: Path) -> None:
    one = open_directory(toy).runs[1]
    columns = {**one.requests(), "part": np.full(80, "all", object)}
    steps = one.steps()
    steps |= {"gap_tokens.all": steps["gap_tokens"], "gap_tokens.none": 0 * steps["gap_tokens"]}
    entry = summarise(columns, steps, {**one.facts, "parts": ["all", "none"]}, {"ttft_s": 1.0})
    part = entry["parts"]["all"]
    assert "itl_s" in part["metrics"]
    assert part["requests"] == entry["requests"]
    assert part["metrics"] == {name: entry["metrics"][name] for name in part["metrics"]}
    nothing = entry["parts"]["none"]
    assert (nothing["requests"]["total"], nothing["metrics"]["ttft_s"]["p99"]) == (0, None)
    assert nothing["metrics"]["prefix_hit_rate"] is None
    assert nothing["metrics"]["itl_s"]["n"] == 0
    assert nothing["metrics"]["goodput_rps"] == 0


@pytest.mark.parametrize("width", [100, 140])
def test_the_table_of_parts(mixed: RunDirectory, width: int) -> None:
    text = shown(mixed, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text, "nothing is cut off"
    table = text.partition("Parts of the mix")[2].partition("Memory")[0]
    heads = [row.split()[0] for row in table.splitlines() if row.startswith((" chat ", " long reads "))]
    assert heads == ["chat", "long"]
    chat = next(line for line in table.splitlines() if line.strip().startswith("paged"))
    entry = group(mixed.summary())[0].parts[0]
    assert chat.split()[1] == "120", "requests of both replications"
    assert chat.split()[4] == f"{entry.mean('ttft_s.p99'):#.3g}"


def test_the_section_of_the_page(mixed: RunDirectory) -> None:
    section = page(mixed).partition('id="mix"')[2].partition("</section>")[0]
    assert re.findall(r'<span class="name">(.*?)</span>', section) == ["chat", "chat", "long reads", "long reads"]
    assert re.findall(r'data-head="allocator">(.*?)</td>', section) == ["paged", "a contiguous one"] * 2
    part = group(mixed.summary())[0].parts[1]
    assert f"p99 {part.mean('ttft_s.p99'):#.3g}" in section
    assert section.count("of 120 done") == section.count("of 16 done") == 2


def test_published_figures_may_be_of_a_part(tmp_path: Path) -> None:
    """They are called as `list metrics` says."""
    (file := tmp_path / "mixed.yaml").write_text(MIXED)
    figures = "{part.long reads.ttft_s.p99: 1, part.chat.output_tps: 900, part.chat.goodput: 0.9}"
    directory = run(load(file, [f"expect={{paged: {figures}}}"]), tmp_path / "run")
    paged = group(directory.summary())[0]
    (chat, reads), columns = paged.parts, directory.runs[0].requests()
    late = (columns["first_token_s"] - columns["arrival_s"])[columns["part"] == "long reads"]
    assert paged.mean("part.long reads.ttft_s.p99") == pytest.approx(np.percentile(late, 99))
    assert paged.mean("part.long reads.ttft_s.p99") == reads.mean("ttft_s.p99")
    shown = [(one.name, one.published, one.value) for one in published([paged], directory.manifest["expect"])]
    assert shown == [
        ("part.long reads.ttft_s.p99", "1", short(reads.mean("ttft_s.p99"))),
        ("part.chat.output_tps", "900", short(chat.mean("output_tps"))),
        ("part.chat.goodput", "90 %", f"{short(chat.within_slo)} %"),
    ]
    with pytest.raises(WorkloadError, match="expect: paged: no part is called code; there are: chat, long reads"):
        run(load(file, ["expect={paged: {part.code.ttft_s: 1}}"]), tmp_path / "none")


def test_runs_that_do_not_tell_the_gaps_of_parts_apart_are_shown_without(toy: Path) -> None:
    """As those of earlier versions."""
    one = open_directory(toy).runs[1]
    columns = {**one.requests(), "part": np.full(80, "all", object)}
    entry = summarise(columns, one.steps(), {**one.facts, "parts": ["all"]})
    (part,) = group([entry])[0].parts
    assert "itl_s" not in entry["parts"]["all"]["metrics"]
    assert np.isnan(part.mean("itl_s.p99"))
    assert part.mean("ttft_s.p99") == entry["metrics"]["ttft_s"]["p99"]


def test_without_a_mix_nothing_is_said_of_parts(toy: Path) -> None:
    directory = open_directory(toy)
    assert not [*rows(group(directory.summary()))]
    assert "Parts of the mix" not in shown(directory) + page(directory)
    assert "parts" not in directory.summary()[0]
    assert "part" not in directory.runs[0].requests()


def test_a_column_that_a_run_does_not_have(toy: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no column 'part'"):
        open_directory(toy).runs[0].requests(["part"])


def test_a_part_of_which_nothing_arrived(tmp_path: Path) -> None:
    (tmp_path / "mixed.yaml").write_text(MIXED)
    late = "requests.mix.long reads.arrivals={kind: batch, at_s: 50}"
    directory = run(load(tmp_path / "mixed.yaml", [late, "horizon_s=4"]), tmp_path / "out")
    assert directory.summary()[0]["parts"]["long reads"]["requests"]["total"] == 0
    assert "long reads" in shown(directory)
    assert "of 0 done" in page(directory)


def test_the_page_knows_the_part_of_each_request_and_block(mixed: RunDirectory) -> None:
    shown = document(mixed)
    requests = mixed.runs[0].requests()
    for column, payload in zip(shown["facts"]["columns"], shown["payloads"], strict=True):
        assert column["parts"] == ["chat", "long reads"]
        told = unpack(payload["requests"]["part"])
        assert [column["parts"][at] for at in told.tolist()] == requests["part"].tolist()
        owners = unpack(payload["map"]["owners"])
        assert [column["parts"][at] for at in unpack(payload["map"]["part"])] == requests["part"][owners].tolist()


@pytest.mark.parametrize("names", [("chat", "chat2"), ("day 1", "day 2")])
def test_what_is_to_be_known_of_parts_whose_names_differ_in_a_number_is_told_of_each(
    names: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "mixed.yaml").write_text(MIXED)
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,10,5\n")
    mix = ", ".join(f"{{name: {name}, trace: t.csv}}" for name in names)
    directory = run(load(tmp_path / "mixed.yaml", [f"requests={{mix: [{mix}]}}"]), tmp_path / "out")
    assert tuple(note.partition(":")[0] for note in directory.manifest["notes"])[:2] == names


def test_no_figure_and_no_name_is_broken_where_a_table_needs_more_room(mixed: RunDirectory) -> None:
    (entry, *_) = mixed.summary()
    figures = {**entry["metrics"], COST: 1234.5, "output_tps": 123456.7}
    entry = {**entry, "allocator": "paged-prefix-cache", "metrics": figures}
    allocators = group([entry, {**entry, "allocator": "ideal", "kind": "ideal"}])
    for table in (speed(allocators), table_of_parts([*rows(allocators)])):
        out = io.StringIO()
        put(Console(file=out, width=60), table)
        told = out.getvalue().split()
        for column in table.columns:
            for cell in (column.header, *column.cells):
                assert set(str(cell).split()) <= set(told)


@pytest.mark.parametrize(("count", "expected"), [(60, "OVERLOADED"), (22, "BACKLOGGED"), (19, "STABLE")])
def test_a_part_that_had_to_wait_is_told_though_another_comes_long_after_it(
    count: int, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "mixed.yaml").write_text(MIXED)
    settings = [f"requests.mix.chat.count={count}", "requests.mix.long reads.arrivals={kind: batch, at_s: 900}"]
    seats = ["engine.max_num_seqs=2", "requests.mix.long reads.count=1", "allocators=[{kind: paged}]"]
    (entry,) = run(load(tmp_path / "mixed.yaml", [*settings, *seats]), tmp_path / "out").summary()
    assert entry["metrics"]["blocked_by"]["seats"] < 0.05
    assert entry["verdict"] == expected
