"""How long whole runs take, from the command line to a written run directory.

    python -m pytest tests/benchmarks/test_run.py --benchmark-enable

Times are wall-clock; the CPU seconds and the peak memory of the fastest round stand beside them, as
they hang less on what else the machine does.  A peer that is installed is timed in the same run:

    KVSIM_PEER='blis run --trace {trace}' python -m pytest tests/benchmarks/test_run.py --benchmark-enable

`{trace}` stands for the file of requests, unpacked.  Nothing is asserted about time.
"""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from allocators import compiled, registry
from analysis.reading import open_directory
from sim.engine.loop import Engine
from sim.serve import contents, simulated
from sim.setup import prepare
from tests.benchmarks.stages import STAGES
from workloads.generate import requests as make_requests
from workloads.loader import load

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("KVSIM_SHARED", ROOT.parent / "shared"))
PEER = os.environ.get("KVSIM_PEER")
RATES = (2, 20)
WORKLOAD = """\
name: bench
model: llama-2-7b
device: a100-80gb
engine: {{scheduler: vllm-v1, max_num_seqs: 256, max_num_batched_tokens: 2048, max_model_len: 4096}}
requests: {requests}
allocators: [{allocator}]
"""
GENERATED = """\
{{count: {count}, arrivals: {{kind: poisson, rate: {rate}}}, lengths: {{kind: lognormal,
  prompt: {{mean: 161.3, sigma: 1.1, min: 4, max: 1024}}, output: {{mean: 338, sigma: 0.8, min: 4, max: 1536}}}}}}"""
"""Requests like those of the files: their rate and the distributions of their lengths."""
PAGED = "{kind: paged, block_size: 16}"
VARIANTS = (
    "growing, expandable_segments: true",
    "contiguous, reserve: oracle, placement: best-fit",
    "virtual, page_kib: 64",
    "virtual, page_kib: 64, overlap: false",
    "virtual, page_kib: 64, deferred: false",
    "paged, block_size: 1",
    "paged, prefix_cache: true",
    "paged, block_size: 1, prefix_cache: true",
    "paged, sliding_window: 128",
    "paged, sliding_window: 128, prefix_cache: true",
    "radix, block_size: 16",
    "ideal, prefix_cache: true",
    "hybrid, block_size: 1",
    "hybrid, prefix_cache: true",
)
"""Options that change what an allocator does at every step."""


class Cost(NamedTuple):
    """What a process took."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    status: int


def cost(command: list[str], **more: str) -> Cost:
    """Run a command to its end, where Python keeps what it has compiled, as it does for whoever installs us."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir(), "kvsim-benchmarks")), **more}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begin = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begin
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, child.returncode)


def bench(rate: int) -> Path:
    """The file of 10,000 requests at a rate."""
    path = SHARED / "data" / "bench" / f"w10000_r{rate}.csv.gz"
    if not path.is_file():
        pytest.skip(f"no requests at {path}; set KVSIM_SHARED to the folder that holds data/bench")
    return path


def timed(benchmark: Any, command: list[str], rounds: int = 3) -> list[Cost]:
    """Time a command, and put what it took besides into the report."""
    costs: list[Cost] = []
    benchmark.pedantic(lambda: costs.append(cost(command)), rounds=rounds)
    assert {each.status for each in costs} == {0}
    benchmark.extra_info["CPU s"] = round(min(each.cpu_s for each in costs), 2)
    benchmark.extra_info["peak MiB"] = round(max(each.peak_mib for each in costs))
    return costs


def run_command(folder: Path, requests: str, allocator: str = PAGED) -> list[str]:
    """Write a workload and say how to run it."""
    path = folder / "bench.yaml"
    path.write_text(WORKLOAD.format(requests=requests, allocator=allocator), encoding="utf-8")
    return [sys.executable, "-m", "sim", "run", str(path), "--out", str(folder / "out"), "--quiet"]


@pytest.mark.parametrize("rate", RATES)
def test_ten_thousand_requests(benchmark: Any, rate: int, tmp_path: Path) -> None:
    trace, count = bench(rate), 10_000 if benchmark.enabled else 300
    ours = timed(benchmark, run_command(tmp_path, f"{{trace: {trace}, format: vidur, count: {count}}}"))
    (entry,) = open_directory(tmp_path / "out").summary()
    assert entry["requests"]["finished"] == count
    assert (tmp_path / "out" / "report.html").stat().st_size > 1_000_000
    if PEER:
        plain = tmp_path / "trace.csv"
        plain.write_bytes(gzip.decompress(trace.read_bytes()))
        theirs = [cost(shlex.split(PEER.format(trace=plain))) for _ in ours]
        assert {each.status for each in theirs} == {0}, f"KVSIM_PEER failed: {PEER}"
        benchmark.extra_info["peer CPU s"] = round(min(each.cpu_s for each in theirs), 2)
        benchmark.extra_info["peer / ours"] = round(
            min(each.wall_s for each in theirs) / min(each.wall_s for each in ours), 2
        )


@pytest.mark.skipif(not compiled.active(), reason="nothing is compiled; python -m sim.native does it")
@pytest.mark.parametrize("rate", RATES)
def test_compiled_against_plain(benchmark: Any, rate: int, tmp_path: Path) -> None:
    """CPU seconds of ten thousand requests compiled and in plain Python, interleaved."""
    for room in ("allocators", "analysis", "sim", "workloads"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("*.so", "*.pyd", "compiled.txt"))
    count = 10_000 if benchmark.enabled else 300
    python, *line = run_command(tmp_path, f"{{trace: {bench(rate)}, format: vidur, count: {count}}}")
    pairs: list[list[Cost]] = []

    def both() -> None:
        pairs.append([cost([python, "-P", *line], PYTHONPATH=str(folder)) for folder in (ROOT, tmp_path)])

    benchmark.pedantic(both, rounds=3)
    assert {each.status for pair in pairs for each in pair} == {0}
    ours, plain = (min(each.cpu_s for each in column) for column in zip(*pairs, strict=True))
    benchmark.extra_info["CPU s"], benchmark.extra_info["plain / compiled"] = round(ours, 2), round(plain / ours, 2)


def test_generated_requests(benchmark: Any, tmp_path: Path) -> None:
    """As many as KVSIM_REQUESTS says (a million, say): cost a request should not depend on it."""
    count = int(os.environ.get("KVSIM_REQUESTS", "200"))
    costs = timed(benchmark, run_command(tmp_path, GENERATED.format(count=count, rate=20)), rounds=1)
    (entry,) = open_directory(tmp_path / "out").summary()
    assert entry["requests"]["finished"] == count
    benchmark.extra_info["CPU us a request"] = round(1e6 * costs[0].cpu_s / count)


def test_start_up(benchmark: Any) -> None:
    timed(benchmark, [sys.executable, "-m", "sim", "--help"], rounds=5)


def engine_cpu_s(folder: Path, allocator: str, count: int, rate: int) -> tuple[float, int]:
    """Run the engine alone; returns CPU seconds and the requests that finished."""
    path = folder / "engine.yaml"
    path.write_text(
        WORKLOAD.format(requests=GENERATED.format(count=count, rate=rate), allocator=allocator), encoding="utf-8"
    )
    setup = prepare(load(path))
    requests = make_requests(setup.workload)
    (case,) = setup.cases
    made = case.allocator()
    with simulated(setup, case, requests, made, Nowhere()) as (executor, sink):
        engine = Engine(requests, contents(requests), made, case.make_scheduler(), executor, sink)
        begin = time.process_time()
        outcome = engine.run()
    return time.process_time() - begin, outcome.finished


class Nowhere:
    """A sink for nothing but time."""

    def write(self, table: str, columns: Any) -> None:
        """Drop the rows."""


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", [*registry.names(), *VARIANTS])
def test_a_family_against_paged(benchmark: Any, kind: str, rate: int, tmp_path: Path) -> None:
    """CPU seconds of the engine beside those of the paged allocator, one after the other in each round."""
    count = int(os.environ.get("KVSIM_FAMILY_REQUESTS", "20" if benchmark.disabled else "1000"))  # 20 tell nothing
    pairs: list[tuple[float, float]] = []

    def both() -> None:
        paged, _ = engine_cpu_s(tmp_path, PAGED, count, rate)
        other, finished = engine_cpu_s(tmp_path, f"{{kind: {kind}}}", count, rate)
        assert finished == count
        pairs.append((paged, other))

    benchmark.pedantic(both, rounds=2)
    paged, other = (min(each) for each in zip(*pairs, strict=True))
    benchmark.extra_info["times paged"] = round(other / paged, 2)


def test_stages_cover_a_run(tmp_path: Path) -> None:
    """The table of stages accounts for the process; the table itself is for people."""
    command = run_command(tmp_path, GENERATED.format(count=200, rate=20))
    told = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.stages", command[4]],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stderr
    spent = {line[:30].strip(): int(line.split()[-2]) for line in told.splitlines() if line.endswith(" ms")}
    assert set(STAGES) < set(spent)
    assert spent["engine"] > 0
    assert sum(spent.values()) - spent["whole process"] <= spent["whole process"]
