"""A capacity of a mix is the rate of all its parts together, and it is said where they hardly come together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.cli import main
from sim.planner.rates import together
from tests.small import settle
from workloads.loader import load
from workloads.read_once import Traces

Capture = pytest.CaptureFixture[str]
LENGTHS = "lengths: {kind: fixed, prompt: 24, output: 16}"
MIXED = f"""\
name: small
model: tiny-llama
device: {{name: h100-80gb, kv_memory_gib: 0.0005}}
engine: {{max_num_seqs: 8, max_model_len: 256}}
requests:
  mix:
    - {{name: chat, duration_s: 0.5, arrivals: {{kind: fixed, rate: 100}}, {LENGTHS}}}
    - {{name: long, duration_s: 0.5, arrivals: {{kind: fixed, rate: 10}}, {LENGTHS}}}
allocators: [{{kind: paged}}]
"""
COUNTED = ("requests.mix.chat.duration_s=null", "requests.mix.chat.count=11")
TOLD = "paged: at the rate sustained a part of the mix keeps coming for only {} % as long as another, so fewer come at "


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return settle(MIXED, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ((), 1.0),
        (COUNTED, 0.2),  # of which the last comes after 0.1 s
        ((*COUNTED, "requests.mix.chat.session={kind: turns, turns: 9}"), 0.02),  # two sessions, 0.01 s apart
        ((*COUNTED, "requests.rate_scale=2"), 0.1),
        (("requests.mix.chat={count: 4, arrivals: {kind: batch}}",), None),
        (("requests.mix.chat={count: 4, arrivals: {kind: closed, users: 2}}",), None),
        (("requests.mix.chat={name: chat, trace: t.csv}",), 0.25),
        (("requests={trace: t.csv}",), None),
    ],
)
def test_for_how_long_parts_come_together(settings: tuple[str, ...], share: float | None, mixed: Path) -> None:
    rows = "".join(f"{at},10,5\n" for at in (3, 3.05, 3.125))
    Path("t.csv").write_text(f"arrival_s,prompt_tokens,output_tokens\n{rows}", encoding="utf-8")
    whole = [text.replace("{count", f"{{name: chat, {LENGTHS}, count") for text in settings]
    assert together(load(mixed, whole), Traces()) == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize(("settings", "apart"), [((), False), (COUNTED, True)])
def test_it_is_said_where_parts_do_not_come_together(
    settings: tuple[str, ...], apart: bool, mixed: Path, capsys: Capture
) -> None:
    changed = [word for setting in settings for word in ("--set", setting)]
    line = ["capacity", str(mixed), "--slo", "e2e_s.p90=1", "--precision", "1", "--no-curves", "--quiet", "--out", "x"]
    assert main([*line, *changed, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert (answer["together"] < 0.7) is apart
    assert main([*line, *changed, "--resume"]) == 0
    said = TOLD.format(f"{100 * answer['together']:.0f}")
    for text in (capsys.readouterr().out, Path("x/report.html").read_text(encoding="utf-8")):
        assert (said in " ".join(text.split())) is apart
