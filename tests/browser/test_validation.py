"""The pages without plots in Chromium: they fit at both widths, switch themes and say nothing to the console."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.pages import write_index, write_page
from tests.analysis.test_validation import CONTENT
from tests.browser.conftest import Opened

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("opened", [(1280, "light"), (390, "dark")], indirect=True, ids=str)
def test_validation_and_index_fit_and_switch_themes(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "a_name_without_any_space_that_goes_on_for_longer_than_a_telephone_is_wide"
    folder.mkdir()
    (folder / "validation.json").write_text(json.dumps(CONTENT | {"workload": "workload_" * 12}))
    write_page(folder)
    index = write_index([folder], tmp_path / "index.html")
    for path in (folder / "validation.html", index):
        page = opened.go(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("window.innerWidth")
        theme = page.evaluate("document.documentElement.dataset.theme")
        page.keyboard.press("t")
        assert page.evaluate("document.documentElement.dataset.theme") != theme
    page.get_by_role("link").filter(has_text="workload_").click()
    assert "the run agrees" in page.locator(".hero").inner_text()
