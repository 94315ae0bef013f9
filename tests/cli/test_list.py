"""`list`, `new` and `schema`: what a file may say, and a file to start from."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import pytest

from allocators import registry
from allocators.ledger import Ledger
from analysis.figures import figure, is_figure
from analysis.saturation import Verdict
from sim.cli import main
from sim.cli.app import FAULT
from sim.cli.topics import TOPICS
from workloads.loader import load, presets
from workloads.schema import Engine

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_is_a_table_and_a_document(topic: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", topic, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["schema", topic]
    rows = document[topic]
    assert main(["list", topic]) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    for row in rows:
        assert str(next(iter(row.values()))) in shown


def test_generators_are_listed_with_their_keys(capsys: Capture) -> None:
    assert main(["list", "generators", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["generators"]
    kinds = {(row["block"], row["kind"]): row for row in rows}
    assert {"poisson", "gamma", "fixed", "batch", "on-off", "diurnal", "closed"} <= {kind for _, kind in kinds}
    assert {"turns", "tree", "replies"} == {kind for block, kind in kinds if block == "session"}
    assert [key["key"] for key in kinds["arrivals", "gamma"]["keys"]] == ["rate", "cv"]
    assert all(row["what"] and all(key["what"] for key in row["keys"]) for row in rows)


def test_every_key_of_the_engine_is_listed_with_its_default(capsys: Capture) -> None:
    assert main(["list", "keys", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["keys"]
    engine = {row["key"]: row for row in rows if row["of"] == "engine"}
    assert list(engine) == list(Engine.model_fields)
    assert engine["preemption"]["default"] == "recompute"
    assert "moves it to the host and back" in engine["preemption"]["what"]
    assert all(row["what"] for row in rows)


def test_presets_to_start_from_come_before_those_for_validation(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", "presets", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["presets"]
    assert sorted(row["preset"] for row in rows) == presets()
    by_purpose = {
        purpose: [row["preset"] for row in group] for purpose, group in groupby(rows, lambda row: row["purpose"])
    }
    start, paper, validation = by_purpose.values()
    assert {"quickstart", "chat", "rag"} <= set(start)
    assert all(name.startswith("sosp23_") for name in paper)
    assert all(name.startswith("validate_") for name in validation)
    said = [row["what"] for row in rows]
    assert len(set(said)) == len(said), "two presets that their descriptions do not tell apart"
    assert main(["list", "presets"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(part) for part in (*by_purpose, *(f" {names[0]} " for names in by_purpose.values()))]
    assert sorted(places) == [places[i] for i in (0, 3, 1, 4, 2, 5)]


def test_metrics_are_listed_with_the_terms_of_the_ledger(capsys: Capture, run_directory: Path) -> None:
    assert main(["list", "metrics", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["metrics"]
    said = {row["metric"]: row["formula"] for row in rows if row["purpose"].startswith("The ledger")}
    assert {"ttft_s", "kv_usage", "blocked_by"} <= {row["metric"] for row in rows} - set(said)
    assert set(Ledger._fields) <= {name.split(".")[-1] for name in said}
    (entry, *_) = json.loads((run_directory / "summary.json").read_text(encoding="utf-8"))["runs"]
    for name in (name.replace("NAME", "live") for name in said):
        assert is_figure(name)
        assert figure(entry, name) >= 0
    assert "internal fragmentation" in said["share.internal"]
    assert "external fragmentation" in said["share.external"]


def test_the_topics_are_listed(capsys: Capture) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(topic in shown for topic in TOPICS)


def test_every_verdict_is_listed_with_what_it_means_and_told_under_the_table(workload: Path, capsys: Capture) -> None:
    assert main(["list", "metrics", "--json"]) == 0
    listed = {row["metric"]: row["formula"] for row in json.loads(capsys.readouterr().out)["metrics"]}
    assert set(Verdict) <= set(listed)
    rate = "requests.arrivals={kind: fixed, rate: 250}"
    assert main(["run", str(workload), "--quiet", "--set", rate, "--set", "engine.max_num_seqs=1"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"BACKLOGGED: {listed['BACKLOGGED']}" in told


def test_allocators_are_listed_with_their_options(capsys: Capture) -> None:
    assert main(["list", "allocators", "--json"]) == 0
    listed = {row["allocator"]: row["options"] for row in json.loads(capsys.readouterr().out)["allocators"]}
    assert list(listed) == registry.names()
    assert {option["option"] for option in listed["contiguous"]} == {"block_size", "reserve", "placement"}


def test_what_takes_the_place_of_a_default_is_told(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list", "allocators"]) == 0
    told = capsys.readouterr().out
    assert "tokens that a token attends to; all of them if unset (the model's)" in told
    assert "blocks on the host for sequences swapped out (the engine's)" in told
    assert "keep tokens for sequences that begin alike (the workload's)" in told


@pytest.mark.parametrize("preset", presets())
def test_a_starter_file_is_the_preset(preset: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["new", preset]) == 0
    (path := tmp_path / "mine.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert load(path) == load(preset)


def test_a_starter_file_has_its_schema_beside_it(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "new" / "mine.yaml"
    for preset in presets()[:3]:
        path.unlink(missing_ok=True)
        assert main(["new", preset, "--out", str(path)]) == 0
        assert path.read_text(encoding="utf-8").splitlines()[0].endswith("$schema=workload.schema.json")
        json.loads((path.parent / "workload.schema.json").read_text(encoding="utf-8"))
        capsys.readouterr()
        assert main(["new", preset]) == 0
        assert capsys.readouterr().out == path.read_text(encoding="utf-8")


def test_a_file_that_exists_is_not_overwritten(workload: Path, capsys: Capture) -> None:
    before = workload.read_text(encoding="utf-8")
    assert main(["new", "quickstart", "--out", str(workload)]) == FAULT
    assert capsys.readouterr().err == f"{workload}: exists already; give another name\n"
    assert workload.read_text(encoding="utf-8") == before
    assert main(["new", "quikstart"]) == FAULT
    assert capsys.readouterr().err == "quikstart: no such preset (did you mean quickstart?)\n"
    assert main(["new", "xyzzy"]) == FAULT
    assert capsys.readouterr().err == "xyzzy: no such preset; `list presets` shows them\n"


def test_the_schema_names_every_allocator(capsys: Capture) -> None:
    assert main(["schema"]) == 0
    text = capsys.readouterr().out
    assert main(["schema", "--json"]) == 0
    assert capsys.readouterr().out == text
    assert json.loads(text)["title"]
    assert all(f'"{kind}"' in text for kind in registry.names())
