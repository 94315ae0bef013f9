"""How every test runs: generated examples are the same each time, and a busy machine is no fault of theirs.

New examples are looked for with `python -m pytest --hypothesis-profile explore`.
"""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("explore"), derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture
def heeding_interrupts() -> Iterator[None]:
    """Let what a test starts heed SIGINT; what a shell runs in the background ignores it, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
