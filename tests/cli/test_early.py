"""What is wrong with a file that a workload names is found before the first simulation, and before anything is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.cli import main
from sim.cli.app import FAULT

Capture = pytest.CaptureFixture[str]
GOOD = "arrival_s,prompt_tokens,output_tokens\n0,24,16\n0.1,24,16\n"
BAD = f"{GOOD}0.2,many,16\n"
VARIANTS = "variants: [{label: one}, {label: two, set: {requests.trace: two.csv}}]\n"


@pytest.fixture
def replayed(workload: Path) -> Path:
    """The workload, of a trace in two variants, the second of another that is bad."""
    kept = [line for line in workload.read_text(encoding="utf-8").splitlines() if not line.startswith("requests:")]
    text = "\n".join([*kept, "requests: {trace: one.csv}\n"])
    workload.write_text(text, encoding="utf-8")
    Path("variants.yaml").write_text(text + VARIANTS, encoding="utf-8")
    Path("one.csv").write_text(GOOD, encoding="utf-8")
    Path("two.csv").write_text(BAD, encoding="utf-8")
    return workload


def files(folder: str) -> list[Path]:
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.usefixtures("replayed")
def test_a_bad_trace_of_a_later_variant_is_told_before_the_first_one_runs(capsys: Capture) -> None:
    assert main(["check", "variants.yaml"]) == FAULT
    told = capsys.readouterr().err
    assert main(["run", "variants.yaml", "--out", "x"]) == FAULT
    assert capsys.readouterr().err == told
    assert "two.csv:4: prompt_tokens: not a number: many" in told
    assert files("x") == []


@pytest.mark.usefixtures("replayed")
@pytest.mark.parametrize("file", ["small.yaml", "variants.yaml"])
def test_results_do_not_give_way_to_a_workload_whose_trace_is_bad(file: str, capsys: Capture) -> None:
    Path("two.csv").write_text(GOOD, encoding="utf-8")
    assert main(["run", file, "--out", "x", "--quiet"]) == 0
    there = {path: path.read_bytes() for path in files("x")}
    for name in ("one.csv", "two.csv"):
        Path(name).write_text(BAD, encoding="utf-8")
    assert main(["run", file, "--out", "x", "--quiet", "--force"]) == FAULT
    assert "csv:4: prompt_tokens: not a number: many" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in files("x")} == there


def test_results_do_not_give_way_to_variants_of_which_one_cannot_be_written(replayed: Path, capsys: Capture) -> None:
    Path("two.csv").write_text(GOOD, encoding="utf-8")
    assert main(["run", "variants.yaml", "--out", "x", "--quiet"]) == 0
    there = {path: path.read_bytes() for path in files("x")}
    twice = "allocators: [{kind: paged, label: a}, {kind: ideal, label: A}]"
    more = VARIANTS.replace("two.csv", f"two.csv, {twice}")
    Path("variants.yaml").write_text(replayed.read_text(encoding="utf-8") + more, encoding="utf-8")
    capsys.readouterr()
    told = []
    for line in (["check"], ["run", "--out", "x", "--quiet", "--force"]):
        assert main([line[0], "variants.yaml", *line[1:]]) == FAULT
        told.append(capsys.readouterr().err)
    assert told[0] == told[1]
    assert "variants: two: allocators: two labels give the same folder name" in told[0]
    assert {path: path.read_bytes() for path in files("x")} == there


@pytest.mark.parametrize("command", ["sweep", "capacity"])
def test_a_bad_trace_of_a_later_point_is_told_before_the_first_one_runs(
    command: str, replayed: Path, capsys: Capture
) -> None:
    line = [command, str(replayed), "--vary", "requests.trace=one.csv,two.csv", "--out", "x"]
    assert main([*line, *(["--slo", "ttft_s=1"] if command == "capacity" else [])]) == FAULT
    assert "two.csv:4: prompt_tokens: not a number: many" in capsys.readouterr().err
    assert files("x") == []


@pytest.mark.parametrize("command", ["check", "run", "sweep", "capacity", "advise"])
def test_what_is_wrong_with_the_requests_is_placed_whatever_the_command(
    command: str, replayed: Path, capsys: Capture
) -> None:
    line = [command, str(replayed), *(["--slo", "ttft_s=1"] if command in ("capacity", "advise") else [])]
    fault = "requests.format: unknown trace format scv (did you mean csv?); known: "
    assert main([*line, "--set", "requests.format=scv"]) == FAULT
    assert capsys.readouterr().err.startswith(f"--set requests.format=scv: {fault}")
    text = replayed.read_text(encoding="utf-8").replace("{trace: one.csv}", "{trace: one.csv, format: scv}")
    replayed.write_text(text, encoding="utf-8")
    assert main(line) == FAULT
    assert capsys.readouterr().err.startswith(f"{replayed}:8:36: {fault}")
    if command in ("sweep", "capacity"):
        assert main([*line, "--vary", "requests.format=csv,scv"]) == FAULT
        assert capsys.readouterr().err.startswith(f"--vary requests.format=scv: {fault}")


def test_requests_without_a_rate_are_placed_too(workload: Path, capsys: Capture) -> None:
    batch = "requests.arrivals={kind: batch}"
    assert main(["capacity", str(workload), "--slo", "ttft_s=1", "--set", batch]) == FAULT
    assert capsys.readouterr().err.startswith(f"--set {batch}: requests.arrivals: a capacity is a rate, and batch ")


@pytest.mark.parametrize(
    "line",
    ["run", "check", "sweep --vary engine.max_num_seqs=4,8", "capacity --slo ttft_s=1", "advise --slo ttft_s=1"],
)
def test_a_run_that_ends_before_a_request_arrives_is_a_fault_of_the_file(
    line: str, workload: Path, capsys: Capture
) -> None:
    command, *more = line.split()
    assert main([command, str(workload), *more, "--set", "horizon_s=0.000001"]) == FAULT
    told = capsys.readouterr().err
    assert told.startswith("--set horizon_s=0.000001: horizon_s: the run ends at 1e-06 s, and no request arrives by ")
    assert told.count("\n") == 1
