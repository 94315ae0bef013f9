"""How the process of a command is set up, before anything large is imported, and how it ends."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys
from importlib.machinery import PathFinder
from importlib.util import LazyLoader
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import NoReturn

UNUSED = frozenset({"numpy._core._add_newdocs", "numpy._core._add_newdocs_scalars", "cloudpickle"})
"""Modules that NumPy and pyarrow import once, of which a run asks for nothing: docstrings, which `python -OO` does
without too, and another pickle."""


class Unused:
    """Finds these modules, each of which runs when somebody asks for something in it."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        found = PathFinder.find_spec(name, path, target) if name in UNUSED else None
        if found is not None and found.loader is not None:
            found.loader = LazyLoader(found.loader)
        return found


def settle() -> None:
    """Set what libraries heed when they are imported, and how often Python looks for cycles."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # our vectors are too short to share, and waiting threads spin
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # NumPy's, so that either reuses what the other frees
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looked for in the metadata of all that is installed
    if Unused not in sys.meta_path:
        sys.meta_path.insert(0, Unused)
    gc.set_threshold(1_000_000, 20, 100)  # what we drop is free of cycles: looking for them takes a tenth of a run
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed: arrays of millions of numbers come and go, and fresh pages cost more than sums.

    Without that it maps each large one anew, and gives back what is free at the top.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # musl has none
        libc.mallopt(trim_threshold, 256 << 20)
        libc.mallopt(mmap_threshold, 32 << 20)  # no larger one is allowed


def whole(command: Callable[[], int]) -> NoReturn:
    """Be the whole process: run a command, and exit with the status that it returns.

    Once all threads have ended and libraries have cleaned up, what is left in memory is not taken apart but left to
    the system.  After an exception it is taken apart.
    """
    status: list[int] = []
    atexit.register(_leave, status)  # the first to be registered, so the last to be called
    status.append(command())
    sys.exit(status[0])


def _leave(status: Sequence[int]) -> None:
    """Exit at once with the `status`, if there is one."""
    if status:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status[0])
