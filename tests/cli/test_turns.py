"""Engines that take turns at a trace: each replication has the requests of another one."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sim.cli import main
from sim.cli.app import FAULT

Capture = pytest.CaptureFixture[str]
OUTPUTS = [3 + at % 5 for at in range(12)]


def test_engines_for_which_there_is_no_request_are_told_before_any_runs(workload: Path, capsys: Capture) -> None:
    Path("t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,8,5\n1,8,5\n", encoding="utf-8")
    asked = ["--set", "requests={trace: t.csv, one_in: 4}", "--repeat", "3", "--out", "out", "--quiet"]
    assert main(["run", str(workload), *asked]) == FAULT
    assert capsys.readouterr().err.endswith("t.csv: one_in 4 leaves no request for replication 3\n")
    assert not [*Path("out").rglob("*.parquet")]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("duration_s: 1, arrivals: {kind: poisson, rate: 2}", ""), "requests: none arrives within 1 s at this rate"),
        (
            ("count: 3, arrivals: {kind: poisson, rate: 1}", "horizon_s=3"),
            "horizon_s: the run ends at 3 s, and no ",
        ),
    ],
)
def test_that_none_arrives_in_a_later_replication_is_told_of_it(
    changed: tuple[str, str], said: str, workload: Path, capsys: Capture
) -> None:
    requests = f"requests={{{changed[0]}, lengths: {{kind: fixed, prompt: 8, output: 2}}}}"
    settings = [word for one in (requests, changed[1]) if one for word in ("--set", one)]
    assert main(["run", str(workload), *settings, "--repeat", "40", "--out", "out", "--quiet"]) == FAULT
    told = capsys.readouterr().err
    done = len([*Path("out", "paged").rglob("requests.parquet")])
    assert said in told
    assert done
    assert told.endswith(f", as it happens in replication {done + 1}; another seed or a longer time may do\n")


@pytest.mark.parametrize(("repeat", "again"), [(2, False), (3, True)])
def test_replications_are_the_shares_of_the_engines(repeat: int, again: bool, workload: Path, capsys: Capture) -> None:
    rows = "".join(f"{at / 9},8,{output}\n" for at, output in enumerate(OUTPUTS))
    Path("t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n" + rows, encoding="utf-8")
    asked = ["--set", "requests={trace: t.csv, one_in: 2}", "--repeat", str(repeat)]
    assert main(["run", str(workload), *asked, "--out", "out", "--quiet"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "replications are the shares of 2 engines that take turns" in told
    assert ("from replication 3 on the shares of one_in come again" in told) is again
    folders = [Path("out", "paged"), *(Path("out", "paged", f"repeat-{other}") for other in range(1, repeat))]
    found = [pq.read_table(folder / "requests.parquet")["output_tokens"].to_pylist() for folder in folders]
    assert found == [OUTPUTS[::2], OUTPUTS[1::2], OUTPUTS[::2]][:repeat]
