"""Memory that the kernel leaves where it is."""

from __future__ import annotations

import ctypes
import platform
from typing import TYPE_CHECKING

import pytest

from sim.decode import numa

if TYPE_CHECKING:
    from pathlib import Path

GET_MEMPOLICY = {"x86_64": 239, "aarch64": 236}


def policy() -> int:
    """Return this thread's memory policy."""
    mode = ctypes.c_int(-1)
    called = ctypes.CDLL(None).syscall(GET_MEMPOLICY[platform.machine()], ctypes.byref(mode), None, 0, None, 0)
    if called:
        pytest.skip("this sandbox does not tell a thread's memory policy")
    return mode.value


@pytest.mark.skipif(platform.machine() not in GET_MEMPOLICY, reason="not a processor whose system calls are known here")
def test_memory_is_bound_for_as_long_as_it_shall_be() -> None:
    before = policy()
    with numa.left_alone() as granted:
        if not granted:
            pytest.skip("this sandbox grants no memory policy")
        assert policy() == numa.BIND
    assert policy() == before


@pytest.mark.parametrize(("said", "meant"), [("0\n", [0]), ("0-1\n", [0, 1]), ("0,2-3\n", [0, 2, 3]), ("\n", [])])
def test_nodes_are_read_as_the_kernel_writes_them(
    said: str, meant: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "has_memory").write_text(said, encoding="ascii")
    monkeypatch.setattr(numa, "NODES", tmp_path / "has_memory")
    assert numa.nodes() == meant


def test_where_nodes_cannot_be_told_nothing_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numa, "NODES", tmp_path / "nowhere")
    with numa.left_alone() as granted:
        assert not granted
