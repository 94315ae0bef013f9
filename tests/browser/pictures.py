"""Take the pictures of pages again: `python tests/browser/pictures.py [CAPACITY]` in the root of a checkout.

Runs the quickstart and photographs its page.  CAPACITY, if given, is the directory that the command in
`capacity_opt13b.md` has written, in a quarter of an hour; then its page is photographed instead.  A page is the
same for the same version, so the pictures change only when what they show does.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from analysis.planner.page import write_page
from analysis.report import write_report
from sim.runner import run
from workloads.loader import load

PICTURES = Path(__file__).parents[2] / "analysis" / "results"
CHROMIUM = "/usr/bin/chromium"
WIDTH = 1100


def take(page: Page, name: str, top: str, bottom: str, margin: int = 0) -> None:
    """Photograph the full width from one element's top edge to another's bottom edge."""
    first, last = page.locator(top).first.bounding_box(), page.locator(bottom).first.bounding_box()
    if first is None or last is None:
        raise LookupError(f"{name}: {top} or {bottom} is not on the page")
    y = first["y"] - margin
    clip = {"x": 0, "y": y, "width": WIDTH, "height": last["y"] + last["height"] + margin - y}
    page.screenshot(path=PICTURES / f"{name}.png", clip=clip, full_page=True)


def quickstart(page: Page) -> None:
    """Write `summary.png`, the top of the page, and `timeline.png`, the first views of it over the same 35 seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run(load("quickstart"), Path(folder, "run"))
        page.goto(f"{write_report(Path(folder, 'run')).as_uri()}#x=0,35&a=2,6")
        page.wait_for_selector("html[data-complete]", state="attached")
        take(page, "summary", ".hero", ".hero", 12)
        take(page, "timeline", "#grid > :first-child", "#grid > :nth-child(6)")


def capacity(page: Page, directory: Path) -> None:
    """Write `capacity_opt13b.png`, the curves of a capacity search."""
    page.goto(write_page(directory).resolve().as_uri())
    page.wait_for_selector("html[data-complete]", state="attached")
    take(page, "capacity_opt13b", "#legend", "#curves", 12)


def main(directories: Sequence[str]) -> None:
    """Photograph the capacity search in a directory, or else the quickstart."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
        for directory in directories:
            capacity(page, Path(directory))
        if not directories:
            quickstart(page)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
