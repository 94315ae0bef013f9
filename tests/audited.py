"""What every audit must do: find a planted damage and name it, and change nothing where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from allocators.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Callable


def finds(allocator: Any, corrupt: Callable[[Any], object], words: str) -> None:
    """Damage an allocator; its check says so in `words`."""
    corrupt(allocator)
    with pytest.raises(CorruptionError, match=words):
        allocator.check()


def changes_nothing(allocator: Any) -> None:
    """Check an allocator that is sound; table, queue and ledger stay as they are."""
    before = (allocator.table.blocks.copy(), allocator.pool.queue.order(), allocator.usage())
    allocator.check()
    assert (allocator.table.blocks == before[0]).all()
    assert (allocator.pool.queue.order() == before[1]).all()
    assert allocator.usage() == before[2]
