"""Parts of a mix are compared request by request, also where only the other parts differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.compare import Comparison, Difference, compare, compare_allocators
from sim.runner import run
from workloads.loader import load

LENGTHS = "lengths: {kind: uniform, prompt: {min: 20, max: 300}, output: {min: 5, max: 90}}"
CHAT = f"{{name: chat, count: 60, arrivals: {{kind: poisson, rate: 30}}, {LENGTHS}}}"
LONG = "{name: long, count: 12, arrivals: {kind: batch}, lengths: {kind: fixed, prompt: 1500, output: 60}}"
ENGINE = [
    "device={name: h100-80gb, kv_memory_gib: 1}",
    "engine={max_model_len: 2048}",
    "allocators=[preallocated, paged]",
]


def made(path: Path, parts: str, *settings: str) -> Path:
    run(load("quickstart", [f"requests={{mix: [{parts}]}}", *ENGINE, *settings]), path)
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("both") / "run", f"{LONG}, {CHAT}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("alone") / "run", CHAT)


def of(found: Comparison, label: str, name: str) -> Difference:
    (row,) = (row for row in found.differences if (row.label, row.name) == (label, name))
    return row


def ttft(path: Path, allocator: int, part: str) -> np.ndarray:
    requests = compare(path, path).first.runs[allocator].requests()
    return (requests["first_token_s"] - requests["arrival_s"])[requests["part"] == part]


def test_what_a_part_feels_of_the_others_has_an_interval(both: Path, alone: Path) -> None:
    found = compare(both, alone)
    row = of(found, "paged, chat", "ttft_s")
    assert row.basis == "requests"
    apart = ttft(alone, 1, "chat") - ttft(both, 1, "chat")
    assert row.change.n == len(apart) == 60
    assert row.change.value == pytest.approx(apart.mean())
    assert row.change.low < row.change.value < row.change.high < 0  # quicker without the long ones
    assert of(found, "paged, chat", "ttft_s.p99").basis == ""
    assert of(found, "paged", "ttft_s").basis == ""  # of all requests, which are not the same ones
    assert found.notes[-1] == (
        "The two directories did not serve the same requests (but for those of chat): "
        "differences include that of the draws."
    )
    assert {row.label for row in found.differences} == {"preallocated", "preallocated, chat", "paged", "paged, chat"}


def test_allocators_are_compared_by_part(both: Path) -> None:
    found = compare_allocators(both)
    for part in ("chat", "long"):
        row = of(found, f"paged, {part}", "ttft_s")
        apart = ttft(both, 1, part) - ttft(both, 0, part)
        assert (row.basis, row.change.n) == ("requests", len(apart))
        assert row.change.value == pytest.approx(apart.mean())


def test_a_part_that_is_drawn_otherwise_is_not_paired(both: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "other", f"{LONG}, {CHAT.replace('max: 90', 'max: 91')}")
    found = compare(both, other)
    assert of(found, "paged, chat", "ttft_s").basis == ""
    assert of(found, "paged, long", "ttft_s").basis == "requests"
    assert "(but for those of long)" in found.notes[-1]


def test_replications_of_a_part_are_paired_if_both_have_them(tmp_path: Path) -> None:
    first = made(tmp_path / "first", f"{LONG}, {CHAT}", "repeat=3")
    second = made(tmp_path / "second", CHAT, "repeat=2")
    row = of(compare(first, second), "paged, chat", "ttft_s")
    assert (row.basis, row.change.n) == ("replications", 2)
    assert row.second - row.first == pytest.approx(row.change.value)


def test_what_was_refused_on_one_side_is_told_of_the_part(both: Path, tmp_path: Path) -> None:
    short = made(tmp_path / "short", f"{LONG}, {CHAT}, {CHAT.replace('chat', 'more')}", "engine.max_model_len=1024")
    notes = compare(both, short).notes
    assert "paged, long: mean latencies are of the requests that have them on both sides" in notes
    assert not any(note.startswith("paged, chat: ") for note in notes)
