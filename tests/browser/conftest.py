from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from analysis.report import write_report
from tests.analysis.synthetic import write_directory

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


class Opened:
    """A page and what it did: console messages, errors, requests."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda request: self.asked.append(request.url))

    def go(self, path: Path, fragment: str = "") -> Page:
        self.page.goto(path.as_uri() + fragment)
        self.page.wait_for_selector("html[data-complete]", state="attached", timeout=90_000)
        return self.page


def short_ticks(page: Page) -> list[str]:
    """Return ticks that are written `10k` or `1000`, where others of the page say `10,000` and `1,000`."""
    ticks = page.locator(".js-plotly-plot .xtick, .js-plotly-plot .ytick").all_text_contents()
    assert ticks
    return [tick for tick in ticks if re.search(r"(?<![\d.])\d{4}|\d[kMGµmn]$", tick)]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """A fresh page, 1,280 wide and light unless parametrised with (width, theme); fails on errors and requests."""
    width, theme = getattr(request, "param", (1280, "light"))
    phone: dict[str, Any] = {"is_mobile": True, "has_touch": True} if width < 500 else {}
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **phone)
    page = Opened(context.new_page())
    yield page
    context.close()
    assert not page.said
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.asked)


@pytest.fixture(scope="module")
def standing(browser: Browser, report: Path) -> Iterator[Opened]:
    """The report, opened once for all tests of a module that leave it as they found it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    standing = Opened(context.new_page())
    standing.go(report)
    yield standing
    context.close()


@pytest.fixture
def page(standing: Opened) -> Iterator[Page]:
    """That report with the whole run in sight, nothing selected and no cursor; fails on errors and requests."""
    page = standing.page
    page.mouse.move(5, 5)
    for key in ("Escape", "0"):
        page.keyboard.press(key)
    page.wait_for_function("() => !location.hash.includes('x=') && !location.hash.includes('r=')")
    yield page
    assert not standing.said
    assert all(url.startswith(("file:", "data:", "blob:")) for url in standing.asked)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run in which requests queue, are preempted and come back."""
    return write_report(write_directory(tmp_path_factory.mktemp("page") / "run", count=80, rate=5))
