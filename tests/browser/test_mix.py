"""The page of a mix in Chromium: its parts in the table, the block map and the list of requests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.planner.page import write_page
from analysis.report import write_report
from sim.planner.backends import make
from sim.planner.grid import Base
from sim.planner.sweep import sweep
from sim.runner import run
from tests.analysis.test_parts import MIXED
from tests.browser.conftest import Opened
from workloads.loader import load

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "mixed.yaml").write_text(MIXED)
    return write_report(run(load(folder / "mixed.yaml"), folder / "out"))


@pytest.mark.parametrize("opened", [(1280, "light"), (390, "dark")], indirect=True, ids=str)
def test_the_table_of_parts_fits_and_sorts(opened: Opened, mixed: Path) -> None:
    page = opened.go(mixed)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]  # set above
    names = page.locator("#mix tbody .name")
    assert names.all_text_contents() == ["chat", "chat", "long reads", "long reads"]
    page.locator("#mix th", has_text="allocator").evaluate("head => head.click()")
    labels = page.locator('#mix td[data-head="allocator"]').all_text_contents()
    assert labels == sorted(labels)
    assert names.all_text_contents() == ["chat", "long reads"] * 2


def test_blocks_are_coloured_and_requests_put_in_order_by_part(opened: Opened, mixed: Path) -> None:
    page = opened.go(mixed)
    page.select_option("#colour", "part")
    note = page.locator("#map-note")
    assert "Each colour is a part of the mix: chat long reads Orange" in " ".join(note.inner_text().split())
    blue, other = note.locator(".swatch").evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert blue != other
    pixels = """() => {
        const canvas = document.querySelector('.cells[data-view="map"] canvas'), seen = new Map();
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        for (let at = 0; at < data.length; at += 4) {
            const word = `rgb(${data[at]}, ${data[at + 1]}, ${data[at + 2]})`;
            seen.set(word, (seen.get(word) || 0) + 1);
        }
        return Object.fromEntries(seen);
    }"""
    counts = page.evaluate(pixels)
    assert min(counts.get(blue, 0), counts.get(other, 0)) > 50, "both parts are seen to hold blocks"
    page.select_option("#order", "part")
    page.wait_for_function("() => location.hash.includes('c=part') && location.hash.includes('o=part')")


def test_a_page_without_a_mix_offers_no_parts(opened: Opened, report: Path) -> None:
    page = opened.go(report)
    for choice in ("#colour", "#order"):
        assert "part" not in page.locator(f"{choice} option").evaluate_all("all => all.map(one => one.value)")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    (folder / "mixed.yaml").write_text(MIXED)
    limits = ["slo={ttft_s: 1.5, tpot_s: 0.1}", "requests.mix.1.slo={ttft_s: 0.5}"]
    base = Base(str(folder / "mixed.yaml"), ["repeat=2", "device.price_per_hour=2.5", *limits])
    sweep(base, base.axes(["requests.rate_scale=1,4"]), folder / "out", make())
    return write_page(folder / "out")


def test_a_sweep_draws_a_figure_of_a_part(opened: Opened, swept: Path) -> None:
    page = opened.go(swept)
    page.locator("#figure").select_option(label="Time to first token, p99, of part long reads (s)")
    title = "document.getElementById('curves').layout.yaxis.title.text"
    page.wait_for_function(f"() => {title} === 'Time to first token, p99, of part long reads (s)'")
    assert page.evaluate("document.getElementById('curves').data.every(({ y }) => y.every((value) => value > 0))")


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ("ttft_s.p99", ["SLO 1.5 s"]),
        ("part.chat.ttft_s.p99", ["SLO 1.5 s"]),
        ("part.chat.tpot_s.p99", ["SLO 100 ms"]),
        ("part.long reads.ttft_s.p99", ["SLO 0.5 s"]),
        ("part.long reads.tpot_s.p99", []),  # its limits take the place of all others
        ("part.long reads.throughput_rps", []),
    ],
)
def test_a_sweep_draws_the_limit_of_a_part(opened: Opened, swept: Path, figure: str, said: list[str]) -> None:
    page = opened.go(swept)
    page.locator("#figure").select_option(figure)
    told = json.loads(page.evaluate("document.getElementById('facts').textContent"))
    (title,) = (one["title"] for one in told["figures"] if one["name"] == figure)
    page.wait_for_function(f"() => document.getElementById('curves').layout.yaxis.title.text.startsWith('{title}')")
    assert page.evaluate("document.getElementById('curves').layout.annotations.map(({ text }) => text)") == said


@pytest.mark.parametrize("opened", [(718, "light")], indirect=True, ids=str)  # A4 between its margins
def test_no_table_of_a_sweep_is_cut_on_paper(opened: Opened, swept: Path) -> None:
    page = opened.go(swept)
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 718


@pytest.mark.parametrize("opened", [(390, "light")], indirect=True, ids=str)
def test_a_verdict_stays_in_one_line_on_a_card(opened: Opened, swept: Path) -> None:
    verdicts = opened.go(swept).locator(".cellstable .verdict")
    verdicts.first.evaluate("node => { node.textContent = 'BACKLOGGED'; }")
    box, cell = (
        verdicts.first.evaluate(f"node => {what}.getBoundingClientRect().toJSON()")
        for what in ("node", "node.closest('td')")
    )
    assert box["height"] < 24
    assert box["right"] <= cell["right"]


@pytest.mark.parametrize("opened", [(718, "light")], indirect=True, ids=str)
def test_on_paper_the_name_of_an_allocator_is_not_broken(opened: Opened, mixed: Path) -> None:
    page = opened.go(mixed)
    page.emulate_media(media="print")
    fill = "(all, text) => { for (const one of all) one.textContent = text; }"
    page.locator(".glance td.n small").evaluate_all(fill, "p99 19,452")
    page.locator(".glance .verdict").evaluate_all(fill, "BACKLOGGED")
    name = page.locator(".glance tbody th .name").first
    assert name.evaluate("node => { node.textContent = 'preallocated'; return node.getClientRects().length; }") == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
