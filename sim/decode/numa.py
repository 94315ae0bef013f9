"""Memory that is left where it is: Linux unmaps a process' pages now and then to see which node touches them.

That is NUMA balancing, on by default where a machine has several nodes: every second or so some
hundred MiB of a process are unmapped, and each page is a fault when it is touched next, so that all
the process does takes several times as long for a tenth of a second.  A thread with a memory policy
of its own is left alone (`set_mempolicy(2)`; `vma_policy_mof` in the kernel's mm/mempolicy.c).
"""

from __future__ import annotations

import ctypes
import platform
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}
"""Number of the system call, which C libraries do not offer."""
DEFAULT, BIND = 0, 2
"""Policies: the system's; of some nodes, here all."""
NODES = Path("/sys/devices/system/node/has_memory")


@contextmanager
def left_alone() -> Iterator[bool]:
    """Have this thread's memory left where it is; yields whether that could be had, which not every sandbox grants."""
    granted = _policy(BIND, nodes())
    try:
        yield granted
    finally:
        if granted:
            _policy(DEFAULT, [])


def nodes() -> list[int]:
    """Return the nodes that have memory, such as [0, 1]; none where that cannot be told."""
    try:
        words = NODES.read_text(encoding="ascii").strip()
    except OSError:
        return []
    spans = [part.partition("-") for part in words.split(",") if part]
    return [node for first, _, last in spans for node in range(int(first), int(last or first) + 1)]


def _policy(mode: int, wanted: list[int]) -> bool:
    number = SET_MEMPOLICY.get(platform.machine()) if platform.system() == "Linux" else None
    if number is None or (mode == BIND and not wanted):
        return False
    mask = ctypes.c_ulong(sum(1 << node for node in wanted))
    size = 8 * ctypes.sizeof(mask) + 1  # the kernel counts one bit more than it reads
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(number, mode, ctypes.byref(mask) if wanted else None, size if wanted else 0)) == 0
