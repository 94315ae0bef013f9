"""The page of a run on paper."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Opened

pytestmark = pytest.mark.browser


def test_on_paper_the_table_is_whole_and_keeps_its_colours(opened: Opened, report: Path) -> None:
    page = opened.go(report)
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 within margins of a centimetre
    wide = page.evaluate(
        "[...document.querySelectorAll('.glance')].map(one => one.scrollWidth - one.parentElement.clientWidth)"
    )
    assert max(wide) <= 0
    assert page.evaluate("getComputedStyle(document.querySelector('.glance tr')).display") == "table-row"
    assert page.evaluate("getComputedStyle(document.querySelector('.stack span')).printColorAdjust") == "exact"


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


@pytest.mark.parametrize("opened", [(1280, "dark")], indirect=True, ids=str)
def test_a_dark_page_is_light_on_paper_and_dark_again_afterwards(opened: Opened, report: Path) -> None:
    page = opened.go(report)
    dark, drawn = background(page), page.locator("#bars .main-svg").count()
    colour = "document.querySelector('.xtick text').style.fill"
    ink = page.evaluate(colour)
    page.emulate_media(media="print")
    page.wait_for_function(f"() => {colour} !== '{ink}'")
    assert background(page) == "rgb(255, 255, 255)"
    page.emulate_media(media="screen")
    page.wait_for_function(f"() => {colour} === '{ink}'")
    assert background(page) == dark
    page.wait_for_function(f"() => document.querySelectorAll('#bars .main-svg').length === {drawn}")


def test_on_paper_plots_are_as_wide_as_it_and_no_label_is_cut(opened: Opened, report: Path) -> None:
    page = opened.go(report)
    drawn = page.locator("#bars .annotation-text").count()
    page.evaluate("document.body.style.width = '718px'")  # as paper does, without a change of the window's width
    page.emulate_media(media="print")
    out = """[...document.querySelectorAll('.plot .main-svg, #bars .main-svg, #bars .annotation-text')].filter((one) =>
        one.getBoundingClientRect().right > one.closest('.plot, figure').parentElement.getBoundingClientRect().right)"""
    page.wait_for_function(f"() => {out}.length === 0")
    page.wait_for_function(f"() => document.querySelectorAll('#bars .annotation-text').length === {drawn}")
    assert page.evaluate(f"{out}.length") == 0
    cut = """[...document.querySelectorAll('#bars .annotation-text')].filter((one) =>
        one.getBoundingClientRect().right > one.closest('svg').getBoundingClientRect().right)"""
    assert page.evaluate(f"{cut}.map((one) => one.textContent)") == []
