"""The report in Chromium: what a reader sees, moves and clicks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page

from analysis.reading import Run, open_directory
from analysis.report import write_joint_report, write_report
from analysis.walkthrough import SCENES
from sim.runner import run
from tests.analysis.synthetic import write_directory
from tests.browser.conftest import Opened, short_ticks
from workloads.loader import load

pytestmark = pytest.mark.browser
HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'"><b>bold</b>'


def ranges(page: Page) -> list[list[float]]:
    """Visible time range of every linked plot."""
    found: list[list[float]] = page.evaluate(
        "[...document.querySelectorAll('#timelines .js-plotly-plot, #strip .js-plotly-plot')]"
        ".map(plot => plot.layout.xaxis.range.map(Number))"
    )
    return found


def plot(page: Page, view: str, column: int) -> Locator:
    return page.locator(f'.cells[data-view="{view}"] .cell').nth(column).locator(".plot")


def hover(page: Page, view: str, column: int, across: float, up: float) -> None:
    """Move over the drawing area of a plot: parts of its width from the left and of its height from below."""
    box = plot(page, view, column)
    box.scroll_into_view_if_needed()
    size = box.bounding_box()
    assert size is not None
    left, right, top, bottom = 62, 10, 9, 40
    page.mouse.move(
        size["x"] + left + across * (size["width"] - left - right),
        size["y"] + top + (1 - up) * (size["height"] - top - bottom),
    )


def run_named(report: Path, label: str) -> Run:
    return next(run for run in open_directory(report.parent).runs if run.label == label)


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


def test_dragging_in_one_plot_zooms_all(page: Page) -> None:
    before = ranges(page)
    hover(page, "ledger", 1, 0.2, 0.5)
    page.mouse.down()
    hover(page, "ledger", 1, 0.4, 0.5)
    page.mouse.up()
    page.wait_for_selector("html[data-zoom]", state="attached")
    page.wait_for_timeout(300)
    after = ranges(page)
    assert all(one == after[0] for one in after)
    span = before[0][1] - before[0][0]
    assert after[0] == pytest.approx([0.2 * span, 0.4 * span], abs=0.01 * span)
    page.get_by_role("button", name="Whole run").click()
    page.wait_for_timeout(300)
    assert ranges(page) == before


def test_the_cursor_prints_a_recorded_row_exactly(page: Page, report: Path) -> None:
    hover(page, "ledger", 0, 0.5, 0.5)
    shown = page.locator(".cursor:not([hidden])").count()
    assert shown == 9
    steps = run_named(report, "preallocated").steps()
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


def test_arrow_keys_step_through_preemptions(page: Page, report: Path) -> None:
    page.keyboard.press("ArrowRight")
    said = page.locator("#said").inner_text()
    events = run_named(report, "paged").events()
    assert events is not None
    first = int(np.flatnonzero(events["event"] == "preempt")[0])
    assert f"paged: request {events['request_id'][first]} is preempted" in said
    assert f"request {events['cause'][first]} needs room (too few free blocks)" in said
    assert f"Request {events['request_id'][first]}" in page.locator("#detail").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#said").inner_text() != said
    page.keyboard.press("ArrowLeft")
    assert page.locator("#said").inner_text() == said


def test_the_cause_of_a_preemption_is_one_click_away(page: Page, report: Path) -> None:
    events = run_named(report, "paged").events()
    assert events is not None
    first = int(np.flatnonzero((events["event"] == "preempt") & (events["cause"] != events["request_id"]))[0])
    while f"request {events['request_id'][first]} is preempted" not in page.locator("#said").inner_text():
        page.keyboard.press("ArrowRight")
    cause = events["cause"][first]
    page.locator("#detail").get_by_role("button", name=f"follow request {cause}").first.click()
    assert f"Request {cause}" in page.locator("#detail h4").first.inner_text()
    assert f"request {cause} needs room" in page.locator("#detail .fate").first.inner_text()


def test_the_request_that_waited_longest_is_one_click_away_with_the_reason(page: Page, report: Path) -> None:
    run = run_named(report, "preallocated")
    requests = run.requests()
    queued = requests["scheduled_s"] - requests["arrival_s"]
    longest = int(np.nanargmax(queued))
    list_ = page.locator('.cells[data-view="requests"] .notable').first
    assert f"waited longest: request {longest} {queued[longest]:.1f} s" in list_.inner_text()
    list_.get_by_role("button", name=f"request {longest}", exact=True).first.click()
    words = page.locator("#detail section").first.inner_text()
    ahead = np.count_nonzero(
        (requests["arrival_s"] < requests["arrival_s"][longest])
        & (requests["scheduled_s"] > requests["arrival_s"][longest])
    )
    assert f"queued {queued[longest]:.1f} s" in words
    assert f"waited behind {ahead} others, the first in line for memory" in words


def test_a_request_that_is_gone_at_the_cursor_is_shown_with_the_blocks_it_had(opened: Opened, report: Path) -> None:
    requests = run_named(report, "paged").requests()
    first = int(np.nanargmin(requests["finish_s"]))
    page = opened.go(report, f"#t={requests['finish_s'][first] + 5}&r={first}&a=1")
    shown = float(re.findall(r"block table at ([\d.]+) s", page.locator("#detail section").inner_text())[0])
    assert shown < requests["finish_s"][first]
    assert "no blocks" not in page.locator("#detail section").inner_text()


@pytest.mark.parametrize("opened", [(390, "light")], indirect=True, ids=str)
def test_a_phone_zooms_by_buttons_and_is_told_to_tap(opened: Opened, report: Path) -> None:
    page = opened.go(report)
    assert page.locator("#said").inner_text().startswith("Tap a plot")
    whole = ranges(page)[0][1]
    end = "document.querySelector('#timelines .js-plotly-plot').layout.xaxis.range[1]"
    page.get_by_role("button", name="Zoom in around the cursor").tap()
    page.wait_for_function(f"() => Math.abs({end} - {0.75 * whole}) < 1e-3")
    page.get_by_role("button", name="Zoom out").tap()
    page.wait_for_function(f"() => {end} > {0.99 * whole}")


def test_the_time_axis_is_that_of_the_runs_shown(opened: Opened, report: Path) -> None:
    ends = []
    for index, label in enumerate(("preallocated", "paged")):
        page = opened.go(report, f"#a={index}")
        steps = run_named(report, label).steps()
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


def test_divergence_jumps_to_the_first_request_treated_differently(page: Page, report: Path) -> None:
    page.keyboard.press("d")
    page.wait_for_timeout(300)
    said = page.locator("#said").inner_text()
    request = int(re.findall(r"Request (\d+)", said)[0])
    one, two = (run_named(report, label).requests() for label in ("preallocated", "paged"))
    apart = np.abs(one["scheduled_s"] - two["scheduled_s"]) > 0.2
    assert request <= np.flatnonzero(apart)[0]
    assert ranges(page)[0][1] - ranges(page)[0][0] < 10


def test_of_different_requests_nothing_is_compared_one_by_one(opened: Opened, tmp_path: Path) -> None:
    paths = [write_directory(tmp_path / f"run{seed}", count=20, seed=seed, kinds=("paged",)) for seed in (0, 1)]
    page = opened.go(write_joint_report(paths, tmp_path / "together.html"))
    assert page.locator("#strip-note").inner_text() == "paged (run0) and paged (run1) did not serve the same requests."
    assert page.locator("#strip .plot").count() == 0
    page.keyboard.press("d")
    assert page.locator("#said").inner_text() == "These two did not serve the same requests."


def test_the_address_keeps_zoom_selection_and_allocators(opened: Opened, report: Path) -> None:
    page = opened.go(report, "#x=5,9&t=6&r=12&a=1,2&c=fill&o=ttft&theme=dark")
    assert ranges(page)[0] == [5, 9]
    assert "Request 12" in page.locator("#detail").inner_text()
    assert page.locator('#chips [aria-pressed="true"]').all_inner_texts() == ["paged", "ideal"]
    assert page.locator("#colour").input_value() == "fill"
    assert page.locator("#order").input_value() == "ttft"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("0")
    page.wait_for_timeout(400)
    assert "x=" not in page.evaluate("location.hash")


def test_keys_change_theme_colouring_and_order(opened: Opened, report: Path) -> None:
    page = opened.go(report)
    page.keyboard.press("c")
    assert page.locator("#colour").input_value() == "owner"
    page.keyboard.press("s")
    assert page.locator("#order").input_value() == "ttft"
    page.keyboard.press("t")
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("+")
    page.wait_for_timeout(300)
    span = ranges(page)[0][1] - ranges(page)[0][0]
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_timeout(300)
    assert ranges(page)[0][1] - ranges(page)[0][0] == pytest.approx(span)


def test_the_ledger_is_read_by_keys_alone(page: Page, report: Path) -> None:
    for _ in range(51):
        page.keyboard.press(".")
    said = page.locator("#said").inner_text()
    middle = sum(ranges(page)[0]) / 2
    assert float(re.findall(r"^([\d.]+) s:", said)[0]) == pytest.approx(middle, abs=0.051)
    steps = run_named(report, "preallocated").steps()
    row = int(np.searchsorted(steps["start_s"], middle, side="right")) - 1
    assert f"preallocated {100 * steps['live'][row] / 2048:.1f} % live, {steps['running'][row]} running" in said
    page.keyboard.press(",")
    assert page.locator("#said").inner_text() != said


def test_allocators_are_chosen_by_chips(opened: Opened, report: Path) -> None:
    page = opened.go(report)
    page.get_by_role("button", name="ideal", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('.cells[data-view=\"map\"] .cell').length === 3")
    page.get_by_role("button", name="preallocated", exact=True).click()
    page.wait_for_timeout(1500)
    captions = page.locator('.cells[data-view="ledger"] .caption b').all_inner_texts()
    assert captions == ["paged", "ideal"]


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
