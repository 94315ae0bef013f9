"""The report in Chromium: what a reader sees, and finds under the cursor."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

from analysis.reading import open_directory
from analysis.report import write_report
from analysis.walkthrough import SCENES
from sim.runner import run
from tests.analysis.synthetic import run_named, write_directory
from tests.browser.conftest import Opened, short_ticks
from tests.browser.plots import hover, ranges
from workloads.loader import load

pytestmark = pytest.mark.browser
HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'"><b>bold</b>'


@pytest.mark.parametrize(
    "opened", [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], indirect=True, ids=str
)
def test_the_page_draws_itself_at_every_size_and_theme(opened: Opened, report: Path) -> None:
    page = opened.go(report)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]  # set above
    assert len(ranges(page)) == 9  # four views of two allocators, and the difference
    theme = page.evaluate("document.documentElement.dataset.theme")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = int(re.findall(r"\d+", background)[0]) > 128
    assert light == (theme == "light")
    for view in ("map", "requests"):
        colours = page.evaluate(
            """view => [...document.querySelectorAll(`.cells[data-view="${view}"] canvas`)].map(canvas => {
                const image = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
                return new Set(new Uint32Array(image.data.buffer)).size; })""",
            view,
        )
        assert min(colours) > 3, f"the {view} is empty"


def test_nothing_overlaps_or_is_cut_off(page: Page) -> None:
    cut = page.evaluate(
        """[...document.querySelectorAll('h1, h2, h3, p, button, .verdict, .caption span, td')]
            .filter(node => node.offsetParent && node.scrollWidth > node.clientWidth + 1)
            .filter(node => getComputedStyle(node).display !== 'inline')
            .map(node => node.textContent)"""
    )
    assert cut == []


def test_every_axis_says_what_it_shows_and_its_ticks_are_written_alike(page: Page) -> None:
    titles = page.evaluate(
        """[...document.querySelectorAll('#timelines .js-plotly-plot, #strip .js-plotly-plot')].map(({layout}) =>
            [layout.xaxis, layout.yaxis, layout.yaxis2, layout.yaxis3].filter(axis => axis && axis.visible !== false)
            .map(axis => axis.title.text))"""
    )
    each = [["time", "block"], ["time", "share of the pool"], ["time", "running", "waiting", "tokens/s"], ["time"]]
    assert sorted(titles) == sorted([*each, *each, ["time of arrival", "difference"]])
    assert short_ticks(page) == []


@pytest.mark.parametrize("opened", [(900, "light")], indirect=True, ids=str)
def test_a_window_of_900_pixels_shows_tables_and_names_whole(opened: Opened, report: Path) -> None:
    """The verdicts were beyond the right edge, `preallocated` was broken in two, and so was `100.0 %`."""
    page = opened.go(report)
    glance = page.locator(".glance").bounding_box()
    assert glance
    assert glance["x"] + glance["width"] <= 900
    verdict = page.locator(".glance .verdict").first.bounding_box()
    assert verdict
    assert verdict["x"] + verdict["width"] <= 900
    lines = page.evaluate(
        """[...document.querySelectorAll('.glance .name, .cell > .caption b, .readout td')]
            .filter(node => node.textContent).map(node => {
                const range = document.createRange();
                range.selectNodeContents(node);
                return range.getClientRects().length; })"""
    )
    assert set(lines) == {1}


def test_the_words_come_before_the_plots(page: Page) -> None:
    first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    ready = float(page.evaluate("document.documentElement.dataset.ready"))
    assert first < ready
    assert "paged runs" in page.locator(".finding").first.inner_text()


def test_the_cursor_prints_a_recorded_row_exactly(page: Page, report: Path) -> None:
    hover(page, "ledger", 0, 0.5, 0.5)
    shown = page.locator(".cursor:not([hidden])").count()
    assert shown == 9
    steps = run_named(report.parent, "preallocated").steps()
    middle = (steps["start_s"][-1] + steps["duration_s"][-1]) / 2
    text = page.locator("#readout .card").first.inner_text()
    number = int(re.findall(r"step (\d+)", text)[0])
    row = int(np.flatnonzero(steps["step"] == number)[0])
    assert abs(steps["start_s"][row] - middle) < 1.0
    for share in ("live", "reserved", "internal", "free"):
        line = next(line for line in text.splitlines() if line.startswith(share))
        assert int(line.split()[1].replace(",", "")) == steps[share][row]
    assert "2,048" in next(line for line in text.splitlines() if line.startswith("pool"))
    assert "ledger at" in page.locator("#tip").inner_text()


@pytest.mark.parametrize("opened", [(400, "light")], indirect=True)
def test_a_share_too_narrow_for_its_number_shows_none(opened: Opened, report: Path) -> None:
    page = opened.go(report)
    seen = """[...document.querySelectorAll(".stack.labelled i")]
        .filter((one) => getComputedStyle(one).visibility === "visible")"""
    cut = f"{seen}.filter((one) => one.scrollWidth > one.parentElement.clientWidth).length"
    assert page.evaluate(cut) == 0
    assert page.evaluate(f"{seen}.length") > 0
    page.evaluate("document.querySelectorAll('.stack.labelled span').forEach(one => one.style.width = '8%')")
    assert page.evaluate(cut) == 0


def test_a_newcomer_is_told_how_each_allocator_hands_memory_out(page: Page) -> None:
    told = page.locator(".pools figure small").all_inner_texts()
    assert "in one piece" in told[0]
    assert "blocks of 16 token slots wherever they are free" in told[1]
    assert "fewer requests left than came" in (page.locator(".v-OVERLOADED").first.get_attribute("title") or "")


def test_a_request_that_is_gone_at_the_cursor_is_shown_with_the_blocks_it_had(opened: Opened, report: Path) -> None:
    requests = run_named(report.parent, "paged").requests()
    first = int(np.nanargmin(requests["finish_s"]))
    page = opened.go(report, f"#t={requests['finish_s'][first] + 5}&r={first}&a=1")
    shown = float(re.findall(r"block table at ([\d.]+) s", page.locator("#detail section").inner_text())[0])
    assert shown < requests["finish_s"][first]
    assert "no blocks" not in page.locator("#detail section").inner_text()


def test_the_time_axis_is_that_of_the_runs_shown(opened: Opened, report: Path) -> None:
    ends = []
    for index, label in enumerate(("preallocated", "paged")):
        page = opened.go(report, f"#a={index}")
        steps = run_named(report.parent, label).steps()
        ends.append(ranges(page)[0][1])
        assert ends[-1] == pytest.approx(steps["start_s"][-1] + steps["duration_s"][-1])
        opened.page.goto("about:blank")
    assert ends[0] != ends[1]


def test_what_placement_rounds_up_is_seen_in_the_block_map(opened: Opened, tmp_path: Path) -> None:
    run(load(next(scene for scene in SCENES if scene.name == "buddy").workload), tmp_path / "run")
    recorded = open_directory(tmp_path / "run").runs[0]
    blocks, steps = recorded.blocks(), recorded.steps()
    assert blocks is not None
    padding = int(np.flatnonzero((blocks["references"] == 0) & (blocks["count"] > 2))[0])
    page = opened.go(write_report(tmp_path / "run"))
    end = steps["start_s"][-1] + steps["duration_s"][-1]
    across = (blocks["time_s"][padding] + 0.01) / end
    hover(page, "map", 0, across, (blocks["block"][padding] + 0.5) / recorded.facts["num_blocks"])
    tip = page.locator("#tip").inner_text()
    assert f"held for request {blocks['request_id'][padding]}" in tip
    assert "placement rounds its size up" in tip
    assert "Yellow: held because placement rounds up" in page.locator("#map-note").inner_text()


def test_blocks_are_coloured_by_prefix_group_where_prompts_begin_alike(opened: Opened, tmp_path: Path) -> None:
    run(load(next(scene for scene in SCENES if scene.name == "prefix").workload), tmp_path / "run")
    page = opened.go(write_report(tmp_path / "run"), "#c=group")
    assert page.locator("#colour").input_value() == "group"
    assert "prompts begin alike" in page.locator("#map-note").inner_text()
    hover(page, "map", 0, 0.3, 0.02)
    assert "prefix group 0" in page.locator("#tip").inner_text()


def test_hostile_names_show_as_text_and_run_nothing(opened: Opened, tmp_path: Path) -> None:
    path = write_directory(
        tmp_path / "run", count=12, kinds=("paged", "preallocated"), labels=(HOSTILE, "<i>x</i>"), name=HOSTILE
    )
    page = opened.go(write_report(path))
    assert page.title().startswith("</script>")
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator("img").count() == 0
    assert page.locator("h1 b, .name b, #chips b, #bars b, .glance i").count() == 0
    assert HOSTILE in page.locator("#chips").inner_text()
    assert "<i>x</i>" in page.locator("#bars").inner_text().replace("\u200b", "")


def test_a_reader_of_the_screen_finds_names_and_tables(page: Page) -> None:
    assert page.locator("main#main").count() == 1
    assert page.locator("th[scope=row] .name").all_inner_texts() == ["preallocated", "paged", "ideal"]
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, select')]"
        ".filter(n => !(n.getAttribute('aria-label') || n.textContent.trim() || n.labels?.length)).length"
    )
    assert unnamed == 0
    assert page.locator('.plot[role="img"]:not([aria-label=""])').count() == 9
    assert "live" in (page.locator(".glance .stack").first.get_attribute("aria-label") or "")
