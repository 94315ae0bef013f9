"""What `run` cannot do: a line for each fault, which says where and what, and what would be right."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sim.cli import main
from sim.cli.app import FAULT

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("engine.max_model_len=10000000000000", "engine: preallocated: {} 2,097 blocks and 8 sequences of up to "),
        (f"engine.max_num_seqs={10**22}", "engine: preallocated: {} 2,097 blocks and 10,000,000,"),
        (f"allocators.paged.host_blocks={10**30}", "allocators: paged: {} 131 blocks, 1,000,000,"),
        ("engine.swap_space_gib=1000000000.0", "engine: paged: {} 131 blocks, 262,144,000,"),
    ],
)
def test_tables_too_large_for_this_machine_are_one_line(
    setting: str, said: str, workload: Path, capsys: Capture
) -> None:
    """Whether the system has no room for them, or no array can be so large."""
    assert main(["run", str(workload), "--out", "x", "--quiet", "--set", setting]) == FAULT
    told = capsys.readouterr().err
    assert told.startswith(f"--set {setting}: {said.format('this machine has no memory for the tables of')}")
    assert told.count("\n") == 1


@pytest.mark.parametrize("table", ["steps", "requests"])
def test_a_disk_that_is_full_when_a_table_ends_is_one_line_and_leaves_no_part_of_a_run(
    table: str, workload: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = pq.ParquetWriter.close

    def fill(writer: pq.ParquetWriter) -> None:
        close(writer)
        if Path("x/paged").exists() and ("status" in writer.schema.names) is (table == "requests"):
            raise OSError(errno.ENOSPC, "Error writing bytes to file")

    monkeypatch.setattr(pq.ParquetWriter, "close", fill)
    assert main(["run", str(workload), "--out", "x", "--quiet"]) == FAULT
    assert capsys.readouterr().err == f"x/paged/{table}.parquet: No space left on device\n"
    assert not list(Path("x/paged").iterdir())
    assert Path("x/preallocated/requests.parquet").exists()


def test_a_disk_that_is_full_while_an_engine_runs_is_one_line(workload: Path, capsys: Capture) -> None:
    """The engine stops for it, and hands on what it has: the file that is closed by then was a traceback."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    many = ["--set", "requests.count=30000", "--set", "requests.arrivals.rate=1.0", "--set", "telemetry.blocks=off"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert main(["run", str(workload), "--out", "x", "--quiet", *many]) == FAULT
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capsys.readouterr().err == "x/preallocated/steps.parquet: File too large\n"
    assert not list(Path("x/preallocated").iterdir())


@pytest.mark.parametrize("out", ["small.yaml", "small.yaml/deeper"])
def test_a_directory_that_cannot_be_made_is_one_line(workload: Path, capsys: Capture, out: str) -> None:
    assert main(["run", str(workload), "--out", out]) == FAULT
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "small.yaml" in err


def test_every_fault_of_a_file_is_a_line_with_its_place(workload: Path, capsys: Capture) -> None:
    text = workload.read_text(encoding="utf-8").replace("kind: paged", "kind: paged, block_sise: 8")
    workload.write_text(text.replace("count: 40", "count: forty"), encoding="utf-8")
    assert main(["run", "small.yaml"]) == FAULT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "small.yaml:5:19: requests.count: must be a whole number, got forty",
        "small.yaml:8:19: allocators.1.block_sise: unknown key (did you mean block_size?)",
    ]
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_trace_format_that_is_none_is_a_line_with_its_place(command: str, workload: Path, capsys: Capture) -> None:
    lines = workload.read_text(encoding="utf-8").splitlines()
    lines[4] = "requests: {trace: mine.csv, format: azur}"
    Path("small.yaml").write_text("\n".join(lines), encoding="utf-8")
    Path("mine.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,9,9\n", encoding="utf-8")
    assert main([command, "small.yaml"]) == FAULT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("small.yaml:5:37: requests.format: unknown trace format azur (did you mean azure?)")


def test_weights_that_do_not_fit_are_one_line_that_says_by_how_much(workload: Path, capsys: Capture) -> None:
    for command in ("run", "check"):
        assert main([command, str(workload), "--set", "model=opt-175b", "--set", "device=l4"]) == FAULT
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert "opt-175b" in err
        assert "GiB" in err


def test_a_bug_shows_its_traceback(workload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sim.cli.run.run_workload", broken)
    with pytest.raises(ZeroDivisionError):
        main(["run", str(workload)])


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(
    ("option", "message"),
    [("--repeat 0", "must be at least 1, got 0"), ("--seed -1", "must be at least 0, got -1")],
)
def test_a_bad_number_is_told_as_it_was_given(
    workload: Path, command: str, option: str, message: str, capsys: Capture
) -> None:
    assert main([command, str(workload), *option.split()]) == FAULT
    assert capsys.readouterr().err == f"{option}: {message}\n"


@pytest.mark.parametrize(
    "line",
    [
        ["run", "small.yaml", "--set", "engine.max_num_seqs=a\nb"],
        ["run", "small.yaml", "--set", "foo\nbar=3"],
        ["run", "small.yaml", "--repeat", "x\ny"],
        ["run", "no\nfile.yaml"],
        ["run", "small.yaml", "--fo\rce"],
        ["check", "small.yaml", "--set", "device.name=h100\x1b[31m"],
        ["report", "no\u2028where"],
        ["compare", "a\x85b"],
        ["capacity", "small.yaml", "--slo", "a\nb=2"],
        ["sweep", "small.yaml", "--vary", "a\vb"],
        ["advise", "small.yaml", "--allocator", "pa\nged"],
        ["trace", "describe", "a\nb"],
        ["replay", "a\nb"],
        ["new", "a\u202eb"],
        ["list", "a\nb"],
        ["a\nb"],
    ],
)
@pytest.mark.usefixtures("workload")
def test_an_error_is_one_line_whatever_it_quotes(line: list[str], capsys: Capture) -> None:
    assert main(line) == FAULT
    said = capsys.readouterr().err
    assert said.endswith("\n")
    assert said[:-1].isprintable()


def test_every_fault_of_a_file_has_its_own_line_whatever_it_quotes(workload: Path, capsys: Capture) -> None:
    assert main(["run", str(workload), "--set", "a\nb=1", "--set", "c\td=2"]) == FAULT
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(r"--set a\nb=1: ")
    assert second.startswith(r"--set c\td=2: ")
