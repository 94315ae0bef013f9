"""A trace that many runs replay: what is read once is what each would read by itself."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sim.cli import main
from sim.planner.grid import Base
from tests.workloads.conftest import Small
from tests.workloads.samples import FILES
from workloads.errors import WorkloadError
from workloads.generate import requests
from workloads.read_once import Traces
from workloads.traces.files import TraceFile


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each trace is opened, by its file's name."""
    times: Counter[str] = Counter()
    begin = TraceFile.__init__

    def counted(self: TraceFile, path: str | Path) -> None:
        times[Path(path).name] += 1
        begin(self, path)

    monkeypatch.setattr(TraceFile, "__init__", counted)
    return times


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a trace of ticks, with links and a bad row, and two others."""
    rows = "".join(f"{at // 9 * 3},{at % 7 + 1},{at % 5}\n" for at in range(400))
    (tmp_path / "ticks.csv").write_text(f"arrival_s,prompt_tokens,output_tokens\n{rows}-,3,3\n", encoding="utf-8")
    (tmp_path / "linked.jsonl").write_text(FILES["aiperf"], encoding="utf-8")
    (tmp_path / "hashed.jsonl").write_text(FILES["mooncake"], encoding="utf-8")
    return tmp_path


def test_every_way_of_replaying_is_as_if_the_trace_were_read_anew(
    small: Small, folder: Path, opened: Counter[str]
) -> None:
    traces = Traces()
    bad = f"trace: {folder}/ticks.csv, on_bad_rows: skip"
    for how in (
        "",
        ", rate_scale: 3",
        ", count: 50",
        ", one_in: 4",
        ", spread: false",
        ", arrivals: {kind: poisson, rate: 4}",
    ):
        for repeat in range(3):
            workload = small(f"requests={{{bad}{how}}}")
            kept, anew = requests(workload, repeat, traces=traces), requests(workload, repeat)
            assert kept.same_as(anew)
            assert kept.notes == anew.notes
    assert opened["ticks.csv"] == 1 + 18
    for name in ("linked", "hashed"):
        workload = small(f"requests={{trace: {folder}/{name}.jsonl, rate_scale: 2}}")
        first, again, anew = (requests(workload, traces=where) for where in (traces, traces, Traces()))
        assert first.same_as(anew)
        assert again.same_as(anew)
        assert np.array_equal(again.after, anew.after)
    assert opened["linked.jsonl"] == opened["hashed.jsonl"] == 2


def test_what_reads_the_file_otherwise_reads_it_again(small: Small, folder: Path) -> None:
    traces = Traces()
    file = f"trace: {folder}/ticks.csv"
    assert len(requests(small(f"requests={{{file}, on_bad_rows: skip}}"), traces=traces)) == 320
    with pytest.raises(WorkloadError, match=r"ticks.csv: 1 of 401 rows is bad"):
        requests(small(f"requests={{{file}}}"), traces=traces)
    with pytest.raises(WorkloadError, match=r"ticks.csv"):
        requests(small(f"requests={{{file}, on_bad_rows: skip, format: mooncake}}"), traces=traces)


def test_parts_of_a_mix_are_read_once_and_what_is_no_longer_replayed_is_forgotten(
    small: Small, folder: Path, opened: Counter[str]
) -> None:
    traces = Traces()
    parts = [f"{{name: {name}, trace: {folder}/{name}.jsonl}}" for name in ("linked", "hashed")]
    mix = small(f"requests={{mix: [{', '.join(parts)}]}}")
    for _ in range(3):
        requests(mix, traces=traces)
    assert opened == {"linked.jsonl": 1, "hashed.jsonl": 1}
    requests(small(f"requests={{trace: {folder}/hashed.jsonl}}"), traces=traces)
    assert opened["hashed.jsonl"] == 1
    requests(mix, traces=traces)
    assert opened == {"linked.jsonl": 2, "hashed.jsonl": 1}


@pytest.mark.parametrize(
    "line", ["capacity FILE --slo ttft_s.p99=1", "sweep FILE --vary engine.max_num_seqs=8,16", "advise FILE"]
)
def test_a_command_that_simulates_many_times_reads_its_trace_once(
    folder: Path, opened: Counter[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "small.yaml"
    file.write_text(
        "name: x\nmodel: llama-3.1-8b\ndevice: h100-80gb\nallocators: [paged]\n"
        "slo: {ttft_s: 1}\nrequests: {trace: hashed.jsonl}\n",
        encoding="utf-8",
    )
    assert main([*line.replace("FILE", str(file)).split(), "--quiet", "--out", str(folder / "out")]) == 0
    assert opened == {"hashed.jsonl": 1}
    capsys.readouterr()


def test_a_job_takes_along_no_trace_that_was_read(folder: Path) -> None:
    file = folder / "w.yaml"
    file.write_text(
        "name: x\nmodel: llama-3.1-8b\ndevice: h100-80gb\nallocators: [paged]\nrequests: {trace: hashed.jsonl}\n",
        encoding="utf-8",
    )
    base = Base(str(file))
    job = base.job(base.workload, 0, 0)
    before = len(pickle.dumps(job))
    read = requests(job.workload, traces=job.traces)
    assert len(pickle.dumps(job)) == before
    sent = pickle.loads(pickle.dumps(job))  # noqa: S301  (as a process does that is sent it)
    assert sent == job
    assert requests(sent.workload, traces=sent.traces).same_as(read)
