"""The report in Chromium: what keys, clicks and the address change."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

from analysis.report import write_joint_report
from tests.analysis.synthetic import run_named, write_directory
from tests.browser.conftest import Opened
from tests.browser.plots import hover, ranges

pytestmark = pytest.mark.browser


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


def test_arrow_keys_step_through_preemptions(page: Page, report: Path) -> None:
    page.keyboard.press("ArrowRight")
    said = page.locator("#said").inner_text()
    events = run_named(report.parent, "paged").events()
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
    events = run_named(report.parent, "paged").events()
    assert events is not None
    first = int(np.flatnonzero((events["event"] == "preempt") & (events["cause"] != events["request_id"]))[0])
    while f"request {events['request_id'][first]} is preempted" not in page.locator("#said").inner_text():
        page.keyboard.press("ArrowRight")
    cause = events["cause"][first]
    page.locator("#detail").get_by_role("button", name=f"follow request {cause}").first.click()
    assert f"Request {cause}" in page.locator("#detail h4").first.inner_text()
    assert f"request {cause} needs room" in page.locator("#detail .fate").first.inner_text()


def test_the_request_that_waited_longest_is_one_click_away_with_the_reason(page: Page, report: Path) -> None:
    run = run_named(report.parent, "preallocated")
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


def test_divergence_jumps_to_the_first_request_treated_differently(page: Page, report: Path) -> None:
    page.keyboard.press("d")
    page.wait_for_timeout(300)
    said = page.locator("#said").inner_text()
    request = int(re.findall(r"Request (\d+)", said)[0])
    one, two = (run_named(report.parent, label).requests() for label in ("preallocated", "paged"))
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
    steps = run_named(report.parent, "preallocated").steps()
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
