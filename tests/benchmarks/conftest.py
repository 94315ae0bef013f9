"""What benchmarks find beside times is printed below pytest-benchmark's table, which shows times alone."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the extra information of each benchmark: CPU seconds, peak memory, ratios."""
    session: Any = getattr(terminalreporter.config, "_benchmarksession", None)
    found = {each.name: each.extra_info for each in session.benchmarks if each.extra_info} if session else {}
    if not found:
        return
    terminalreporter.section("beside the times", sep="-")
    width = max(map(len, found))
    for name, facts in found.items():
        terminalreporter.line(f"{name:{width}}  " + ", ".join(f"{key} {value:,.4g}" for key, value in facts.items()))
