"""Take the README's pictures again: `python tests/browser/pictures.py` in the root of a checkout.

Runs the quickstart and photographs its page.  The page is the same for the same version, so
the pictures change only when what they show does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

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


def main() -> None:
    """Write `summary.png`, the top of the page, and `timeline.png`, the first views of it over the same 35 seconds."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run(load("quickstart"), Path(folder, "run"))
        address = write_report(Path(folder, "run")).as_uri()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
        page.goto(f"{address}#x=0,35&a=2,6")
        page.wait_for_selector("html[data-complete]", state="attached")
        take(page, "summary", ".hero", ".hero", 12)
        take(page, "timeline", "#grid > :first-child", "#grid > :nth-child(6)")
        browser.close()


if __name__ == "__main__":
    main()
