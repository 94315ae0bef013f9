"""How the process of a command is set up, before anything large is imported."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys


def settle() -> None:
    """Set what libraries heed when they are imported, and how often Python looks for cycles."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # our vectors are too short to share, and waiting threads spin
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # NumPy's, so that either reuses what the other frees
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looked for in the metadata of all that is installed
    gc.set_threshold(1_000_000, 20, 100)  # what we drop is free of cycles: looking for them takes a tenth of a run
    atexit.register(gc.freeze)  # nor need anything be looked through when all of it goes
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed: arrays of millions of numbers come and go, and fresh pages cost more than sums.

    Without that it maps each large one anew, and gives back what is free at the top.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # musl has none
        libc.mallopt(trim_threshold, 256 << 20)
        libc.mallopt(mmap_threshold, 32 << 20)  # no larger one is allowed
