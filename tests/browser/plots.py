"""Plots of a report in the browser: where their axes run, and moving over them."""

from __future__ import annotations

from playwright.sync_api import Locator, Page


def ranges(page: Page) -> list[list[float]]:
    """Visible time range of every linked plot."""
    found: list[list[float]] = page.evaluate(
        "[...document.querySelectorAll('#timelines .js-plotly-plot, #strip .js-plotly-plot')]"
        ".map(plot => plot.layout.xaxis.range.map(Number))"
    )
    return found


def plot(page: Page, view: str, column: int) -> Locator:
    return page.locator(f'.cells[data-view="{view}"] .cell').nth(column).locator(".plot")


def hover(page: Page, view: str, column: int, across: float, up: float) -> None:
    """Move over the drawing area of a plot: parts of its width from the left and of its height from below."""
    box = plot(page, view, column)
    box.scroll_into_view_if_needed()
    size = box.bounding_box()
    assert size is not None
    left, right, top, bottom = 62, 10, 9, 40
    page.mouse.move(
        size["x"] + left + across * (size["width"] - left - right),
        size["y"] + top + (1 - up) * (size["height"] - top - bottom),
    )
