"""The curves of the script for a GPU, on the CPU at a few short lengths; no time is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.costs.coefficients import Coefficients
from sim.costs.load import Load
from sim.costs.model import CostModel
from sim.decode import curves, testbed
from sim.decode.curves import attention_curve
from sim.decode.grid import Extent
from sim.devices import resolve_device
from sim.models.geometry import resolve_model
from tests.decode.room import CPU
from tests.gpu import curves as script


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(testbed.EXTENTS, "cpu", Extent(seats=2, tokens=16, longest=32))
    monkeypatch.setattr(testbed, "HOST_GIB", 0.01)


def test_the_cache_curve_has_both_ways_measured_and_simulated(tmp_path: Path) -> None:
    found = script.cache(CPU, tmp_path)
    assert [(row["way"], row["tokens"]) for row in found["rows"]] == [
        (way, length) for way in ("cached", "recomputed") for length in script.CACHE["cpu"]
    ]
    assert all(row["measured_s"] > 0 and row["simulated_s"] > 0 for row in found["rows"])
    assert len(list(tmp_path.glob("*.toml"))) == 1


def test_the_attention_curve_has_both_kernels_beside_both_formulas() -> None:
    rows = script.attention(CPU, Path())["rows"]
    assert {(row["phase"], row["kernel"]) for row in rows} == {
        (phase, kernel) for phase in ("prefill", "decode") for kernel in ("naive", "flash")
    }
    by = {(row["phase"], row["kernel"], row["tokens"]): row for row in rows}
    for phase in ("prefill", "decode"):
        for length in script.ATTENTION["cpu"]:
            naive, flash = by[phase, "naive", length], by[phase, "flash", length]
            assert naive["simulated_s"] > flash["simulated_s"] > 0
            assert naive["scores_bytes"] > flash["scores_bytes"] == 0
    assert by["prefill", "naive", 32]["scores_bytes"] == 4 * by["prefill", "naive", 16]["scores_bytes"]


def test_scores_that_would_fill_the_memory_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MOST_SCORES_GIB", 1e-9)
    rows = attention_curve(resolve_model("tiny-opt"), resolve_device("h100-80gb"), CPU, Coefficients(), (16,))
    assert {row["kernel"] for row in rows} == {"flash"}


def test_attention_is_the_part_of_a_step_that_grows_with_the_context() -> None:
    model = CostModel(resolve_model("llama-3.1-8b"), resolve_device("h100-80gb"))
    short, long = (Load(decode_seqs=8, decode_context=8 * length, samples=8) for length in (100, 4000))
    grown = (model.step_ns(long) - model.step_ns(short)) / 1e9
    assert model.attention_s(long) - model.attention_s(short) == pytest.approx(grown, abs=2e-9)
