"""What `--vary` means, and what is said of what it cannot mean."""

from __future__ import annotations

import pytest

from analysis.planner.rows import plain, said
from sim.errors import UserError
from sim.planner.grid import Base
from sim.planner.vary import axes, shown, values
from workloads.errors import WorkloadError
from workloads.labels import Named

NAMED = [Named("preallocated", "preallocated"), Named("Orca (Max)", "contiguous"), Named("pow2", "contiguous")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2,4,8", (2, 4, 8)),
        ("0.5, 1e3", (0.5, 1000.0)),
        ("vllm-v0,vllm-v1", ("vllm-v0", "vllm-v1")),
        ("{kind: fixed, prompt: 8, output: 2},sharegpt", ({"kind": "fixed", "prompt": 8, "output": 2}, "sharegpt")),
        ("1..4", (1, 2, 3, 4)),
        ("64..256+64", (64, 128, 192, 256)),
        ("1..32*2", (1, 2, 4, 8, 16, 32)),
        ("0.1..0.5+0.1", (0.1, 0.2, 0.3, 0.4, 0.5)),
        ("3..3", (3,)),
    ],
)
def test_values_are_lists_and_ranges(text: str, expected: tuple[object, ...]) -> None:
    found = values(text, "--vary x")
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "give values as 2,4,8"),
        ("1,,2", "give values as 2,4,8"),
        ("1,null", "; null, which takes a key out of the file, is no value"),
        ("[1", "give values as 2,4,8"),
        ("2,2", "2 is there twice"),
        ("4..1", "a range goes upwards, by a step above 0"),
        ("1..4*1", "a range goes upwards, by a factor above 1, from above 0"),
        ("0..4*2", "from above 0"),
        ("1..99999999", "more than 10,000 values"),
    ],
)
def test_what_is_no_list_and_no_range_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as told:
        values(text, "--vary x")
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_an_allocator_goes_by_label_kind_or_position() -> None:
    for key, positions in (
        ("allocators.Orca (Max).block_size", [1]),
        ("allocators.contiguous.block_size", [1, 2]),
        ("allocators.pow2.block_size", [2]),
        ("allocators.0.block_size", [0]),
    ):
        (axis,) = axes([f"{key}=1,2"], NAMED)
        assert [place[1] for place in axis.places] == positions
        assert all(place[2:] == ("block_size",) for place in axis.places)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rate", "write it as key.key=value,value"),
        ("a..b=1", "write it as key.key=value,value"),
        ("allocators.prealocated.x=1", "no allocator has the label or kind prealocated (did you mean preallocated?)"),
        ("allocators.pow2=1", "say which of its options, as in allocators.pow2.block_size"),
    ],
)
def test_a_place_that_is_not_there_is_one_line(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=r"^--vary ") as told:
        axes([setting], NAMED)
    assert message in str(told.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "engine.max_num_sqs=1,2",
            "--vary engine.max_num_sqs=1: engine.max_num_sqs: unknown key (did you mean max_num_seqs?)",
        ),
        ("allocators.paged.block_sise=8", "unknown key (did you mean block_size?)"),
        (
            "requests.arrivals.rate=1,-1",
            "--vary requests.arrivals.rate=-1: requests.arrivals.rate: must be greater than 0",
        ),
        ("allocators.paged.block_size=1..9999", "--vary allocators.paged.block_size="),
        ("seed.x=1", "--vary seed.x=1: seed: must be a whole number"),
    ],
)
def test_a_value_that_the_file_cannot_have_is_one_line(setting: str, message: str, base: Base) -> None:
    with pytest.raises((WorkloadError, UserError)) as told:
        base.axes([setting])
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_a_key_is_varied_once_and_a_grid_has_bounds(base: Base) -> None:
    with pytest.raises(UserError, match="varied already"):
        base.axes(["seed=1,2", "seed=3"])
    with pytest.raises(UserError, match="at most 10,000"):
        base.axes(["seed=1..200", "engine.max_num_seqs=1..200"])


def test_settings_are_shown_by_their_last_words() -> None:
    assert shown({"requests.arrivals.rate": 2, "engine.watermark": 0.1}) == "rate=2, watermark=0.1"
    assert shown({"a.rate": 2, "b.rate": 3}) == "a.rate=2, b.rate=3"
    assert shown({"device.name": "l4", "engine.max_num_seqs": 8}) == "device=l4, max_num_seqs=8"
    assert shown({}) == ""
    words = {"engine.full_prompt_gate": True, "requests.lengths": {"kind": "fixed", "prompt": 1}, "model": "l4, twice"}
    assert shown(words) == "full_prompt_gate=true, lengths={kind: fixed, prompt: 1}, model=l4, twice"
    assert all(said(plain(value)) == said(value) for value in words.values())
    assert said("[a, b") == "[a, b"
