"""Calibration files: all that was measured is in them, and a bad one gets one line."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from sim.costs import calibration
from sim.costs.calibration import (
    Calibration,
    Point,
    find_calibration,
    load_calibration,
    load_coefficients,
    shipped_for,
)
from sim.costs.calibration_text import save_calibration
from sim.costs.evidence import seconds
from sim.costs.load import Load
from sim.costs.power import Series
from sim.errors import UserError
from sim.setup import prepare
from tests.planted import H100, LLAMA, TRUE, points
from workloads.loader import load


def made() -> Calibration:
    small = Point("in small blocks", Load(decode_seqs=4, samples=4, decode_context=400), 1.0, block_size=1)
    measured = (*points(), small._replace(measured_s=float(seconds([small], LLAMA, H100, TRUE)[0])))
    return Calibration(
        model="llama-3.1-8b",
        dtype="bf16",
        device="h100-80gb",
        peaks={},
        measured_on='a "device"',
        backend="torch",
        versions={"python": "3.12", "flashinfer-python": "0.5.3"},
        date="2026-01-02T03:04:05+00:00",
        coefficients=TRUE,
        fitted=("memory_efficiency", "launch_lead_s", "copy_efficiency"),
        uncertain=(0.0123, math.inf, 0.5),
        points=measured,
        fitted_s=tuple(seconds(measured, LLAMA, H100, TRUE).tolist()),
        series=(Series(819, False, "dp", [0.004, 0.021]), Series(1638, True, "pd", [0.035, 0.005])),
    )


def test_a_file_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    save_calibration(made(), path)
    again = load_calibration(path)
    assert again.name == "h100-80gb-llama-3.1-8b"
    assert again.coefficients == TRUE
    assert [point.load for point in again.points] == [point.load for point in made().points]
    assert [point.block_size for point in again.points] == [point.block_size for point in made().points]
    assert again.residuals == pytest.approx(made().residuals, abs=1e-4)
    assert replace(again, points=(), fitted_s=()) == replace(made(), points=(), fitted_s=())
    text = path.read_text(encoding="utf-8")
    assert "# share of memory bandwidth that matrix products reach (fitted, ± 1.2%)" in text
    assert "(fitted, hardly determined)\nlaunch_lead_s = " in text
    path.write_text(text.replace("uncertain = ", "# before it was told: "), encoding="utf-8")
    older = load_calibration(path)
    assert older.uncertain == ()
    assert older.how_fitted("launch_lead_s") == "fitted"
    errors = again.errors()
    assert 0 < errors["median"] < errors["p90"] < errors["largest"] < 0.02


def test_a_workload_names_a_file_beside_it_or_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_calibration(made(), tmp_path / "mine.toml")
    monkeypatch.setattr(calibration, "CALIBRATIONS", tmp_path)
    for name in ("mine", "mine.toml"):
        file = tmp_path / "w.yaml"
        file.write_text(
            "name: w\nmodel: llama-3.1-8b\ndevice: h100-80gb\nallocators: [{kind: paged}]\n"
            "requests: {count: 1, arrivals: {kind: batch}, lengths: {kind: fixed, prompt: 1, output: 1}}\n"
            f"costs: {{calibration: {name}, page_map_s: 0.5}}\n"
        )
        assert prepare(load(file)).coefficients == replace(TRUE, page_map_s=0.5)
    assert shipped_for("llama-3.1-8b", "h100-80gb", "bf16") == "mine"
    assert shipped_for("llama-3.1-8b", "h200", "bf16") is None
    with pytest.raises(UserError, match=r"costs.calibration: mime is neither shipped nor a file \(did you mean mine"):
        find_calibration("mime")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("{", "not TOML"),
        ("[coefficients]", "not a calibration"),
        ("schema = 2\n[coefficients]", "not a calibration"),
        ("schema = 1\n[coefficients]\nspeed = 1", "unknown coefficient speed"),
        ("schema = 1\n[coefficients]\nstep_overhead_s = 0.002", "not a whole calibration"),
    ],
)
def test_a_bad_file_gets_one_line(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "calibration.toml"
    if text is not None:
        path.write_text(text)
    read = load_calibration if words == "not a whole calibration" else load_coefficients
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
