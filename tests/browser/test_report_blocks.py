"""Block maps in a real browser: what a click follows, and what is drawn before, behind and between snapshots."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Page

from analysis.reading import open_directory
from analysis.report import write_report
from tests.analysis.synthetic import run_named, write_directory
from tests.browser.conftest import Opened
from tests.browser.plots import hover

pytestmark = pytest.mark.browser


def test_a_click_on_a_block_follows_its_request_everywhere(page: Page, report: Path) -> None:
    hover(page, "map", 0, 0.5, 0.25)
    tip = page.locator("#tip").inner_text()
    request = int(re.findall(r"request (\d+)", tip)[0])
    page.mouse.down()
    page.mouse.up()
    detail = page.locator("#detail").inner_text()
    assert f"Request {request}" in detail
    assert f"r={request}" in page.evaluate("new Promise(done => setTimeout(() => done(location.hash), 300))")
    blocks = run_named(report.parent, "preallocated").blocks()
    assert blocks is not None
    section = page.locator("#detail section").first.inner_text()
    assert "in one piece" in section
    ends = [[int(end) for end in word.split("\u2013")] for word in section.split(":")[-1].split()]
    listed = [block for run in ends for block in range(run[0], run[-1] + 1)]
    time = float(re.findall(r"block table at ([\d.]+) s", section)[0])
    instants = np.unique(blocks["time_s"])
    instant = instants[np.argmin(np.abs(instants - time))]
    mine = (blocks["time_s"] == instant) & (blocks["request_id"] == request)
    owned = np.concatenate(
        [np.arange(b, b + n) for b, n in zip(blocks["block"][mine], blocks["count"][mine], strict=True)]
    )
    assert listed == owned.tolist()
    page.keyboard.press("Escape")
    assert page.locator("#detail").inner_text() == ""


def test_a_request_in_the_address_shows_the_blocks_it_had_at_its_end(opened: Opened, report: Path) -> None:
    blocks = run_named(report.parent, "paged").blocks()
    assert blocks is not None
    often = int(np.bincount(blocks["request_id"][blocks["request_id"] >= 0]).argmax())
    page = opened.go(report, f"#r={often}")
    finish = run_named(report.parent, "paged").requests()["finish_s"][often]
    section = page.locator("#detail section", has_text="paged").inner_text()
    assert "no blocks" not in section
    last = blocks["time_s"][(blocks["request_id"] == often) & (blocks["time_s"] < finish)].max()
    shown = float(re.findall(r"block table at ([\d.]+) s", section)[0])
    assert shown == pytest.approx(last, abs=0.06)  # as rounded for a long run


def test_blocks_of_a_paged_request_lie_in_many_places(opened: Opened, report: Path) -> None:
    blocks = run_named(report.parent, "paged").blocks()
    assert blocks is not None
    held = np.bincount(blocks["request_id"][blocks["request_id"] >= 0])
    request = int(np.argmax(held))
    seen = blocks["request_id"] == request
    instant = blocks["time_s"][seen][-1]
    mine = seen & (blocks["time_s"] == instant)
    starts, counts = blocks["block"][mine], blocks["count"][mine]
    runs = 1 + np.count_nonzero(starts[1:] != (starts + counts)[:-1])
    assert runs > 1
    page = opened.go(report, f"#t={instant + 1e-4}&r={request}&a=1")
    assert f"in {runs} places" in page.locator("#detail section").inner_text()


def test_before_the_first_snapshot_the_pool_is_drawn_free(opened: Opened, tmp_path: Path) -> None:
    path = write_directory(tmp_path / "run", count=3, rate=0.5, kinds=("paged",))
    blocks = open_directory(path).runs[0].blocks()
    assert blocks is not None
    begin, end = blocks["time_s"][0], open_directory(path).runs[0].steps()["start_s"][-1]
    assert begin / end > 0.02
    page = opened.go(write_report(path))
    free, drawn = page.evaluate(
        """() => { const canvas = document.querySelector('.cells[data-view="map"] canvas');
        return [getComputedStyle(document.documentElement).getPropertyValue('--free').trim(),
                [...canvas.getContext('2d').getImageData(2, canvas.height / 2, 1, 1).data]]; }"""
    )
    assert drawn == [*bytes.fromhex(free[1:]), 255]


def test_a_request_that_never_ran_is_said_to_hold_nothing(opened: Opened, tmp_path: Path) -> None:
    path = write_directory(tmp_path / "run", count=60, rate=20, kinds=("preallocated",), until=3.0)
    requests = open_directory(path).runs[0].requests()
    never = int(np.flatnonzero(np.isnan(requests["scheduled_s"]))[-1])
    page = opened.go(write_report(path), f"#r={never}")
    words = page.locator("#detail").inner_text()
    assert "never started" in words
    assert "seen to hold" not in words
    assert "- s" not in words


def test_a_block_map_of_few_snapshots_says_how_many(opened: Opened, tmp_path: Path) -> None:
    path = write_directory(tmp_path / "run", count=60, rate=20, kinds=("preallocated", "paged"))
    for folder, kept in (("run0", 1), ("run1", 7)):
        file = path / folder / "blocks.parquet"
        blocks = pq.read_table(file)
        times = np.unique(blocks["time_s"])
        pq.write_table(blocks.filter(np.isin(blocks["time_s"], times[:kept])), file)
    page = opened.go(write_report(path))
    captions = page.locator(".cells[data-view=map] .caption").all_inner_texts()
    assert captions[0].endswith("slots, seen once")
    assert captions[1].endswith("slots, seen 7 times")
