"""A mix of requests on a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.reading import open_directory
from sim.decode.validate import validate
from sim.errors import UserError
from tests.decode.room import workload
from workloads.schema import Workload

CHAT = {
    "name": "chat",
    "count": 5,
    "arrivals": {"kind": "batch"},
    "shared": [{"tokens": 8}],
    "lengths": {"kind": "fixed", "prompt": 9, "output": 6},
}
SAMPLED = {
    "name": "sampled",
    "count": 2,
    "arrivals": {"kind": "batch"},
    "samples": 2,
    "lengths": {"kind": "fixed", "prompt": 30, "output": 4},
}


def mixed(*parts: dict[str, Any]) -> Workload:
    plain = workload("tiny-llama", {"kind": "paged", "block_size": 4, "prefix_cache": True}).resolved()
    return Workload.model_validate({**plain, "requests": {"mix": [*parts]}})


def test_a_mix_is_decoded_as_it_is_simulated(tmp_path: Path) -> None:
    result = validate(mixed(CHAT, SAMPLED), tmp_path, device="cpu", parts=("exact",))
    assert result.passed, result.as_json()
    measured = open_directory(tmp_path / "measured").runs[0]
    assert measured.requests(["part"])["part"].tolist() == ["chat"] * 5 + ["sampled"] * 2
    assert list(measured.summarise()["parts"]) == ["chat", "sampled"]


def test_beams_of_a_part_are_not_decoded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^requests\.beam: beams are chosen by the simulator"):
        validate(mixed(CHAT, {**SAMPLED, "beam": True}), tmp_path, device="cpu")
