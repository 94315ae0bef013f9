"""`null` in the place of a list's entry takes it out: a part of a mix, or an allocator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from workloads.errors import WorkloadError
from workloads.loader import load
from workloads.schema import Workload
from workloads.variants import vary

Settings: TypeAlias = Sequence[str]

FILE = """\
name: mixed
model: llama-3.1-8b
device: h100-80gb
requests:
  mix:
    - {name: a, count: 1, arrivals: {kind: batch}, lengths: {kind: fixed, prompt: 1, output: 1}}
    - {name: b, trace: mine.csv}
    - {name: c, trace: mine.csv, count: 2}
allocators:
  - {kind: paged, block_size: 4}
  - {kind: ideal}
  - {kind: paged, block_size: 8}
"""


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Workload]:
    """Load the file with some settings, and with one text in it in the place of another."""
    (tmp_path / "mine.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,1,1\n")

    def change(*settings: str, **texts: str) -> Workload:
        text = FILE
        for old, new in texts.items():
            text = text.replace(old, new)
        (tmp_path / "w.yaml").write_text(text)
        return load(tmp_path / "w.yaml", settings)

    return change


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        (["requests.mix.b=null"], {"a": 1, "c": 2}),
        (["requests.mix.0=null"], {"b": None, "c": 2}),
        (["requests.mix.a=null", "requests.mix.c.count=5", "requests.mix.0=null"], {"c": 5}),
        (["requests.mix.c.count=5", "requests.mix.a=~", "requests.mix.b="], {"c": 5}),
    ],
)
def test_a_part_of_a_mix_goes_and_the_others_stay(
    changed: Callable[..., Workload], settings: Settings, left: dict[str, int | None]
) -> None:
    assert {part.name: part.count for part in changed(*settings).requests.mix} == left


def test_all_allocators_of_a_kind_go(changed: Callable[..., Workload]) -> None:
    assert [one.kind for one in changed("allocators.paged=null").allocators] == ["ideal"]
    assert [one.kind for one in changed("allocators.paged-8=null").allocators] == ["paged", "ideal"]
    whole = changed("variants=[{label: unpaged, set: {allocators.paged: null}}]")
    assert [one.kind for one in vary(whole, whole.variants[0]).allocators] == ["ideal"]


def test_a_variant_may_do_without(changed: Callable[..., Workload]) -> None:
    whole = changed("variants=[{label: no b, set: {requests.mix.b: null, requests.mix.c.count: 7}}]")
    left = vary(whole, whole.variants[0]).requests.mix
    assert [(part.name, part.count) for part in left] == [("a", 1), ("c", 7)]
    assert len(whole.requests.mix) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["requests.mix.a=null", "requests.mix.b=null", "requests.mix.c=null"],
            "--set requests.mix.c=null: requests.mix: must have 1 to 100 parts, each with a name, got 0",
        ),
        (["allocators.paged=null", "allocators.ideal=null"], "--set allocators.ideal=null: allocators: name at least"),
        (
            ["requests.mix.c.count=0", "requests.mix.a=null"],
            "--set requests.mix.c.count=0: requests.mix.1.count: must be at least 1, got 0",
        ),
        (["requests.mix.a=null"] * 2, "--set requests.mix.a=null: no part of the mix is named a; there are: b, c"),
        (
            ["requests.mix.3=null"],
            "--set requests.mix.3=null: there is no requests.mix.3: it would be inside a list of 3",
        ),
    ],
)
def test_what_is_wrong_then_is_still_found(changed: Callable[..., Workload], settings: Settings, message: str) -> None:
    with pytest.raises(WorkloadError) as error:
        changed(*settings)
    assert str(error.value).startswith(message)


def test_what_stood_behind_keeps_its_place_in_the_file(changed: Callable[..., Workload]) -> None:
    with pytest.raises(WorkloadError, match=r"w\.yaml:11:12: allocators\.0\.kind: unknown allocator idol"):
        changed("allocators.0=null", ideal="idol")
    with pytest.raises(WorkloadError, match=r"w\.yaml:8:41: requests\.mix\.0\.count: must be at least 1, got 0"):
        changed("requests.mix.b=null", "requests.mix.a=null", **{"count: 2": "count: 0"})
