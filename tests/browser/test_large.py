"""A page of 2 allocators x 4,096 blocks x 2,000 instants: small enough to mail, quick enough to use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from analysis import rundir
from analysis.page.gantt import LIMIT
from analysis.reading import open_directory
from analysis.report import write_report
from tests.analysis.synthetic import table, write_directory
from tests.browser.conftest import Opened

pytestmark = pytest.mark.browser
BLOCKS, INSTANTS, REQUESTS, SIZE, SPAN = 4096, 2000, 3000, 16, 600.0
MANY = 20_000
"""Requests of a run of which the page keeps a quarter."""
PAGE = 8
"""Neighbouring blocks taken together, to keep the making of this run short."""


def lives(rng: np.random.Generator) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Begin, end and blocks of requests that fill about four fifths of the pool."""
    begin = np.sort(rng.uniform(0, SPAN * 0.95, REQUESTS))
    length = rng.gamma(2.0, 6.0, REQUESTS).clip(1, 60)
    blocks = PAGE * (rng.gamma(1.5, 4.0, REQUESTS)).clip(1, 15).astype(int)
    return begin, np.minimum(begin + length, SPAN), blocks


def write_large(path: Path, seed: int, *, scattered: bool) -> dict[str, Any]:
    """One run: every request holds some blocks for its life, scattered over the pool or in one piece."""
    rng = np.random.default_rng(seed)
    begin, end, want = lives(rng)
    free = np.ones(BLOCKS // PAGE, bool)  # pages
    owner: dict[int, npt.NDArray[np.int64]] = {}
    changes = sorted([(t, 1, r) for r, t in enumerate(begin)] + [(t, 0, r) for r, t in enumerate(end)])
    columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in rundir.BLOCKS.names}
    place = 0
    for instant in np.linspace(0, SPAN, INSTANTS, endpoint=False):
        while place < len(changes) and changes[place][0] <= instant:
            _, starts, request = changes[place]
            place += 1
            if starts and free.sum() >= want[request] // PAGE:
                holes = np.flatnonzero(free)
                count = want[request] // PAGE
                owner[request] = np.sort(rng.choice(holes, count, replace=False)) if scattered else holes[:count]
                free[owner[request]] = False
            elif not starts and request in owner:
                free[owner.pop(request)] = True
        pages = np.concatenate([np.zeros(0, np.int64), *owner.values()])
        counts = np.array([len(held) for held in owner.values()], np.int64)
        slack, last = np.zeros(len(pages), np.int64), np.cumsum(counts) - 1
        slack[last] = pages[last] % SIZE
        made = (instant, pages * PAGE + 1, PAGE, np.repeat(np.array(list(owner), np.int64), counts), 1, slack)
        for name, values in zip(columns, made, strict=True):
            columns[name].append(np.broadcast_to(values, len(pages)))
    path.mkdir(parents=True)
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    pq.write_table(table(joined, rundir.BLOCKS), path / "blocks.parquet")
    none = [0] * REQUESTS
    requests: dict[str, Any] = dict.fromkeys(rundir.REQUESTS.names, none) | {
        "request_id": list(range(REQUESTS)),
        "arrival_s": begin,
        "scheduled_s": begin,
        "first_token_s": begin + 0.2,
        "finish_s": end,
        "prompt_tokens": want * SIZE // 2,
        "generated_tokens": want * SIZE // 2,
        "status": ["finished"] * REQUESTS,
        "reason": [""] * REQUESTS,
        "samples": [1] * REQUESTS,
        "stall_s": [[]] * REQUESTS,
    }
    pq.write_table(table(requests, rundir.REQUESTS), path / "requests.parquet")
    count = 20_000
    live = (BLOCKS * SIZE * (0.5 + 0.3 * np.sin(np.arange(count) / 900) + rng.uniform(0, 0.1, count))).astype(int)
    steps = {name: np.zeros(count, int) for name in rundir.STEPS.names} | {
        "step": np.arange(count),
        "start_s": np.arange(count) * (SPAN / count),
        "duration_s": np.full(count, SPAN / count),
        "running": rng.integers(50, 60, count),
        "waiting": rng.integers(0, 9, count),
        "decode_tokens": rng.integers(40, 60, count),
        "live": live,
        "free": BLOCKS * SIZE - live,
        "blocked": [""] * count,
    }
    pq.write_table(table(steps, rundir.STEPS), path / "steps.parquet")
    facts = {"capacity": BLOCKS * SIZE, "block_size": SIZE, "num_blocks": BLOCKS, "block_bytes": SIZE * 131072}
    return facts | {"label": path.name, "kind": path.name, "scheduler": "none", "repeat": 0, "dir": path.name}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    runs = [write_large(folder / "contiguous", 0, scattered=False), write_large(folder / "paged", 0, scattered=True)]
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, "name": "large", "runs": runs}))
    return write_report(folder)


def test_it_stays_under_8_megabytes(large: Path) -> None:
    assert large.stat().st_size < 8_000_000


def test_it_is_drawn_and_zoomed_quickly(opened: Opened, large: Path, record_property: pytest.RecordProperty) -> None:
    page = opened.go(large)
    words = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.mouse.move(5, 5)
    times = []
    for _ in range(5):
        page.keyboard.press("+")
        page.wait_for_timeout(500)
        times.append(float(page.evaluate("document.documentElement.dataset.zoom")))
    ready = float(page.evaluate("document.documentElement.dataset.ready"))
    record_property("first_paint_ms", words)
    record_property("block_maps_ms", ready)
    record_property("zoom_ms", min(times))
    print(f"first paint {words:.0f} ms, block maps {ready:.0f} ms, zoom {min(times):.0f} ms")  # noqa: T201  (a measurement)
    assert 0 < words <= ready  # how quick that is depends on the machine; the line above prints it
    assert min(times) > 0


def test_of_many_requests_each_stands_where_it_would_among_all(opened: Opened, tmp_path: Path) -> None:
    """A stretch of which every request is kept must not look like a burst of arrivals."""
    folder = write_directory(tmp_path / "run", count=MANY, rate=4.0, kinds=("paged",), apart_s=60.0)
    page = opened.go(write_report(folder))
    box = page.locator('.cells[data-view="requests"] .plot')
    box.scroll_into_view_if_needed()
    size = box.bounding_box()
    assert size is not None
    for part in (0.25, 0.5, 0.75):
        page.mouse.move(size["x"] + size["width"] / 2, size["y"] + 9 + part * (size["height"] - 49))
        request = int(page.locator("#tip").inner_text().split()[1])
        assert request / MANY == pytest.approx(part, abs=0.02)


def test_a_page_that_keeps_a_part_of_the_requests_says_so_wherever_they_are_counted_and_names_the_worst_of_all(
    opened: Opened, tmp_path: Path
) -> None:
    count = LIMIT + 1000
    folder = write_directory(tmp_path / "run", count=count, rate=4.0, kinds=("preallocated", "paged"), apart_s=60.0)
    page = opened.go(write_report(folder))
    kept = f"{LIMIT:,} of {count:,} requests"
    assert set(page.locator('.cells[data-view="requests"] .caption span').all_inner_texts()) == {kept}
    assert f"This page keeps {kept}: " in page.locator("#requests-note").inner_text()
    assert page.locator("#strip-note").inner_text().endswith(f"Of {kept}.")
    requests = open_directory(folder).runs[0].requests()
    waited = np.nan_to_num(requests["scheduled_s"] - requests["arrival_s"])
    worst = page.locator(".notable li", has_text="waited longest").first
    assert str(int(waited.argmax())) in worst.inner_text()
    worst.locator("button").click()
    assert "not among" not in page.locator("#detail").inner_text()
    assert opened.said == []
