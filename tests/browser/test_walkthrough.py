"""The walk-through in Chromium: scenes, steps, play, keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.reading import open_directory
from analysis.walkthrough import SCENES, write_walkthrough
from sim.cli.walkthrough import attentions, geometries
from sim.runner import run
from tests.browser.conftest import Opened
from workloads.loader import load

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walk")
    for scene in SCENES:
        run(load(scene.workload), folder / scene.name)
    recorded = {scene.name: open_directory(folder / scene.name) for scene in SCENES}
    return write_walkthrough(recorded, folder / "walk.html", list(geometries()), list(attentions()))


@pytest.mark.parametrize("opened", [(1280, "dark"), (390, "light")], indirect=True, ids=str)
def test_it_fits_and_steps_forth_and_back(opened: Opened, walk: Path) -> None:
    page = opened.go(walk)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("window.innerWidth")
    first = page.locator("#clock").inner_text()
    assert page.locator("#back").is_disabled()
    page.locator("#step").click()
    assert page.locator("#clock").inner_text() != first
    page.locator("#back").click()
    assert page.locator("#clock").inner_text() == first


def test_scenes_keys_and_address(opened: Opened, walk: Path) -> None:
    page = opened.go(walk, "#s=5&f=6")
    assert page.locator("#title").inner_text().startswith("6. A shared prefix")
    assert page.locator(".block.shared").count() == 4
    assert "\u00d73" in page.locator("#pool").inner_text()
    page.keyboard.press("ArrowRight")
    assert "s=5&f=7" in page.evaluate("location.hash")
    page.get_by_role("button", name="3 Know the length: holes remain").click()
    page.locator("#slider").evaluate("node => { node.value = 6; node.dispatchEvent(new Event('input')); }")
    assert "the largest hole has 16" in page.locator("#said").inner_text()
    assert page.locator("#pool.slots .slot").count() == 64


def test_growth_by_copy_shows_what_is_copied(opened: Opened, walk: Path) -> None:
    page = opened.go(walk, "#s=3&f=2")
    assert page.locator("#title").inner_text().startswith("4. Grow by copying")
    tensors = page.locator(".tensor small").all_inner_texts()
    assert tensors[0] == "request 0: 8 tokens, 7 of them copied"
    assert page.locator(".tensor").first.locator(".new i").count() == 8
    assert page.locator(".tensor").first.locator(".old i").count() == 7
    assert "13 old ones are copied" in page.locator("#said").inner_text()


def test_play_moves_and_pauses(opened: Opened, walk: Path) -> None:
    page = opened.go(walk)
    page.keyboard.press(" ")
    page.wait_for_timeout(2600)
    page.keyboard.press(" ")
    moved = int(page.locator("#slider").input_value())
    assert moved >= 1
    page.wait_for_timeout(1500)
    assert int(page.locator("#slider").input_value()) == moved


def test_the_table_tells_what_fits_on_the_device_chosen(opened: Opened, walk: Path) -> None:
    page = opened.go(walk)
    row = page.get_by_role("row", name="llama-2-7b")
    assert "512" in row.inner_text()
    before = row.inner_text()
    assert "context 1,024" in page.get_by_role("row", name="gpt2").inner_text()  # of 2,048 tokens none is made for
    page.locator("#length").select_option("8192")
    assert row.inner_text() != before
    page.locator("#format").select_option("fp8")
    assert "256" in row.inner_text()
    page.locator("#device").select_option("l4")
    assert "128 GiB of weights do not fit" in page.get_by_role("row", name="llama-2-70b").inner_text()
    kinds = page.locator(".kinds figcaption").all_inner_texts()
    assert [" ".join(kind.split()) for kind in kinds] == [
        "MHA 512 KiB a token",
        "GQA 128 KiB a token",
        "MQA 16 KiB a token",
        "MLA 36 KiB a token",
    ]
