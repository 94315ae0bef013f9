"""The page of a trace's fit in Chromium."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.cli import main
from tests.browser.conftest import Opened, short_ticks

pytestmark = pytest.mark.browser
WIDTHS = [(1280, "light"), (390, "dark")]
NAME = "<b>mine.csv"


@pytest.fixture(scope="module")
def page_of_a_fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 300 requests in one whole minute and a half."""
    folder = tmp_path_factory.mktemp("fit")
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(0.3, 300))
    rows = [f"{at:.3f},{rng.integers(10, 900)},{rng.integers(5, 300)}" for at in arrivals]
    (folder / NAME).write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]) + "\n", encoding="utf-8")
    assert main(["trace", "fit", str(folder / NAME), "--page", str(folder / "fit.html")]) == 0
    return folder / "fit.html"


@pytest.mark.parametrize("opened", WIDTHS, indirect=True, ids=str)
def test_the_page_draws_itself_at_every_size_and_theme(opened: Opened, page_of_a_fit: Path) -> None:
    page = opened.go(page_of_a_fit)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]  # set above
    assert page.locator("h1").inner_text() == NAME
    assert page.locator(".js-plotly-plot").count() == 4
    theme = page.evaluate("document.documentElement.dataset.theme")
    light = int(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")) > 128
    assert light == (theme == "light")
    assert page.locator("#panel-3 .point").count() == 2  # of a single minute there is no line, but marks
    assert page.locator(".glance tbody tr").count() == 5
    assert page.locator("#legend li").all_inner_texts() == ["trace", "fitted"]


def test_every_axis_says_what_it_shows_and_its_ticks_are_written_alike(opened: Opened, page_of_a_fit: Path) -> None:
    page = opened.go(page_of_a_fit)
    titles = page.evaluate(
        """[...document.querySelectorAll('.js-plotly-plot')].map(({layout}) => [layout.xaxis, layout.yaxis]
            .map(axis => axis.title.text))"""
    )
    assert titles == [
        ["prompt tokens", "share of requests"],
        ["output tokens", "share of requests"],
        ["gap, s", "share of gaps"],
        ["minute", "arrivals"],
    ]
    assert short_ticks(page) == []
