"""What the page says of blocks that several requests hold, and of large ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from analysis.reading import Run, open_directory
from analysis.report import write_report
from sim.runner import run
from tests.browser.conftest import Opened
from tests.browser.plots import hover
from workloads.loader import load

pytestmark = pytest.mark.browser
SHARED = """
name: shared
model: llama-3.1-8b
device: {name: h100-80gb, kv_memory_gib: 1}
engine: {max_model_len: 2048}
requests:
  mix:
    - {name: alike, count: 6, arrivals: {kind: fixed, rate: 20}, lengths: {kind: fixed, prompt: 100, output: 90},
       shared: [{tokens: 320}]}
    - {name: alone, count: 2, arrivals: {kind: fixed, rate: 10}, lengths: {kind: fixed, prompt: 700, output: 90}}
allocators:
  - {kind: paged, block_size: 16, prefix_cache: true}
  - {kind: virtual}
"""
APART = "apart from those that an earlier request shares with it"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "shared.yaml").write_text(SHARED)
    return write_report(run(load(folder / "shared.yaml"), folder / "out"))


def test_a_block_table_says_that_shared_blocks_are_listed_elsewhere(opened: Opened, shared: Path) -> None:
    paged = open_directory(shared.parent).runs[0]
    requests = paged.requests()
    second = int(np.flatnonzero(requests["cached_tokens"] == 320)[0])
    alone = int(np.flatnonzero(requests["part"] == "alone")[0])
    page = opened.go(shared, f"#a=0&r={second}")
    words = page.locator("#detail section").inner_text()
    assert "320 prompt tokens from the prefix cache" in words
    assert words.count(APART) == 2  # of the blocks seen to be held, and of the table
    page.goto("about:blank")  # another fragment alone would load nothing
    page = opened.go(shared, f"#a=0&r={alone}&t=0.2")
    assert "block table at" in page.locator("#detail section").inner_text()
    assert APART not in page.locator("#detail section").inner_text()


def test_slots_of_a_large_block_are_told_as_near_as_the_page_knows_them(opened: Opened, shared: Path) -> None:
    virtual = open_directory(shared.parent).runs[1]
    size = int(virtual.facts["block_size"])
    assert size > 255
    page = opened.go(shared, "#a=1")
    told = {}
    for up in np.linspace(0.03, 0.97, 24):
        hover(page, "map", 0, 0.4, float(up))
        tip = page.locator("#tip").inner_text()
        if found := re.search(r"block (\d+) at ([\d.]+) s\nrequest \d+\n(about )?([\d,]+) of ([\d,]+) slots", tip):
            told[int(found[1]), float(found[2])] = bool(found[3]), int(found[4].replace(",", "")), found[5]
    assert told
    for (block, when), (about, slots, of) in told.items():
        filled = _filled(virtual, block, when)
        assert of == f"{size:,}"
        assert about == (0 < filled < size)
        assert abs(slots - filled) <= size / 255


def _filled(run: Run, block: int, when: float) -> int:
    """Slots of a block that hold K/V at the snapshot nearest to an instant."""
    blocks, size = run.blocks(), int(run.facts["block_size"])
    assert blocks is not None
    nearest = blocks["time_s"][np.argmin(np.abs(blocks["time_s"] - when))]
    at = np.flatnonzero(
        (blocks["time_s"] == nearest) & (blocks["block"] <= block) & (blocks["block"] + blocks["count"] > block)
    )[0]
    before = (block - int(blocks["block"][at])) * size
    return min(max(int(blocks["count"][at]) * size - int(blocks["slack"][at]) - before, 0), size)
