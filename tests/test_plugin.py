"""A stranger's allocator and scheduler, from their own wheel: listed, run, options checked, conduct too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent
WORKLOAD = """
name: plug-in
model: llama-3.2-1b
device: {name: h100-80gb, kv_memory_gib: 1}
engine: {max_model_len: 1024, max_num_seqs: 64}
requests:
  count: 40
  arrivals: {kind: batch}
  lengths: {kind: uniform, prompt: {min: 16, max: 256}, output: {min: 16, max: 256}}
allocators:
  - {kind: worst-fit, headroom: 1.5}
  - {kind: contiguous, reserve: oracle, placement: best-fit}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the example's wheel and install it into a folder of its own; needs no network."""
    folder = tmp_path_factory.mktemp("plugin")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-python-version-warning"]
    wheel = [*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", str(folder)]
    subprocess.run([*wheel, str(ROOT / "tests" / "plugin_example")], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    target = [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site")]
    subprocess.run([*target, str(built)], check=True, capture_output=True)
    return folder / "site"


def python(site: Path, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python with the plug-in installed."""
    environment = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "COLUMNS": "200", "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )


def test_it_is_listed(site: Path) -> None:
    done = python(site, "-m", "sim", "list", "allocators", "--json")
    assert done.returncode == 0, done.stderr
    assert "worst-fit" in done.stdout
    assert "reserved output as a multiple of the true one" in done.stdout


def test_it_runs_beside_the_others(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "workload.yaml"
    file.write_text(WORKLOAD)
    done = python(site, "-m", "sim", "run", str(file), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "out" / "summary.json").read_text())["runs"]
    assert [run["kind"] for run in runs] == ["worst-fit", "contiguous"]
    assert all(run["requests"]["finished"] == 40 for run in runs)
    internal = [run["ledger"]["mean"]["internal"] for run in runs]
    assert internal[0] > internal[1] == 0, "half as much again is reserved, and never used"


def median_ttft(path: Path) -> float:
    """Median seconds to the first token."""
    table = pq.read_table(path, columns=["arrival_s", "first_token_s"]).to_pandas()
    return float((table.first_token_s - table.arrival_s).median())


def test_a_scheduler_is_listed_and_runs_leaping_as_step_by_step(site: Path, tmp_path: Path) -> None:
    done = python(site, "-m", "sim", "list", "schedulers", "--json")
    assert "shortest-first" in done.stdout, done.stderr
    file = tmp_path / "workload.yaml"
    file.write_text(
        WORKLOAD.replace("{kind: worst-fit, headroom: 1.5}", "{kind: paged, scheduler: shortest-first}")
        .replace("{kind: contiguous, reserve: oracle, placement: best-fit}", "{kind: paged, scheduler: vllm-v1}")
        .replace("kv_memory_gib: 1", "kv_memory_gib: 0.05")
        .replace("count: 40", "count: 80")
    )
    both = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
from sim.runner import run_case
from sim.setup import prepare
from workloads.generate import requests
from workloads.loader import load
setup = prepare(load(sys.argv[1]))
case, made = setup.cases[0], requests(setup.workload, 0)
tables = []
for leaps in (True, False):
    folder = Path(sys.argv[2]) / str(leaps)
    run_case(setup, case, made, folder, leaps=leaps)
    tables.append({path.name: pq.read_table(path) for path in folder.glob("*.parquet")})
assert tables[0] and all(tables[0][name].equals(tables[1][name]) for name in tables[0])
"""
    done = python(site, "-c", both, str(file), str(tmp_path))
    assert done.returncode == 0, done.stderr
    done = python(site, "-m", "sim", "run", str(file), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "out" / "summary.json").read_text())["runs"]
    assert [run["scheduler"] for run in runs] == ["shortest-first", "vllm-v1"]
    assert all(run["requests"]["finished"] == 80 for run in runs)
    folders = [each["dir"] for each in json.loads((tmp_path / "out" / "manifest.json").read_text())["runs"]]
    waits = [median_ttft(tmp_path / "out" / folder / "requests.parquet") for folder in folders]
    assert waits[0] < waits[1], "short ones overtake"


def test_its_options_are_checked_like_any_other(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "workload.yaml"
    file.write_text(WORKLOAD.replace("headroom: 1.5", "headroom: 9"))
    done = python(site, "-m", "sim", "check", str(file))
    assert done.returncode == 2
    assert "headroom" in done.stderr + done.stdout
    assert "must be at most 4" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_it_passes_the_conformance_suite(site: Path) -> None:
    done = python(
        site, "-m", "pytest", "tests/conformance", "-q", "-k", "worst-fit or shortest-first", "-p", "no:cacheprovider"
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 100


BROKEN = """
from allocators.answers import Reason, Refusal, Usage
from allocators.paged import PagedAllocator

class Miscounting(PagedAllocator):
    kind = "miscounting"

    def usage(self):
        return Usage(self.capacity + 1)

class Leaking(PagedAllocator):
    kind = "leaking"

    def release(self, row):
        block = self.table.blocks[row, 0]
        super().release(row)
        self.pool.references[block] += 1

class Refusing(PagedAllocator):
    kind = "refusing"

    def admit(self, ask):
        return Refusal(Reason.BLOCKS, 1, 1)
"""


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("Miscounting", "its count is wrong: in step 0 -1 slots of the pool are free"),
        ("Leaking", "block 1 has 0 holders, counted "),
        ("Refusing", "no progress: request 0 ("),
    ],
)
def test_one_that_miscounts_is_told_instead_of_figures(tmp_path: Path, kind: str, fault: str) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[kvsim.allocators]\n{kind.lower()} = broken:{kind}\n")
    file = tmp_path / "workload.yaml"
    file.write_text(WORKLOAD.replace("{kind: worst-fit, headroom: 1.5}", f"{{kind: {kind.lower()}}}"))
    done = python(tmp_path, "-m", "sim", "run", str(file), "--out", str(tmp_path / "out"), "--quiet")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"allocator {kind.lower()}: {fault}")
    assert line.endswith("; tests/conformance tests what it must do")
    assert not (tmp_path / "out" / "summary.json").exists()


LAZY = """
from sim.engine.plan import Plan
from sim.schedulers import Scheduler

class Lazy(Scheduler):
    kind = "lazy"

    def plan(self, serving):
        return Plan()

class Greedy(Scheduler):
    kind = "greedy"

    def plan(self, serving):
        plan = Plan()
        for job in list(serving.waiting):
            self.admit(serving, plan, job, serving.lookup(job), 0)
        return plan
"""


@pytest.mark.parametrize(
    ("kind", "allocator", "said"),
    [
        ("Lazy", "paged", "scheduler lazy: no progress: request 0 ("),
        ("Greedy", "paged", "scheduler greedy: 0 token slots are not more than the 0 of the prefix hit; "),
        ("Lazy", "refusing", "allocator refusing and scheduler lazy: no progress: request 0 ("),
    ],
)
def test_a_scheduler_that_lets_nothing_go_on_is_told_in_one_line(
    tmp_path: Path, kind: str, allocator: str, said: str
) -> None:
    (tmp_path / "lazy.py").write_text(BROKEN + LAZY)
    metadata = tmp_path / "lazy-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lazy\nVersion: 1.0\n")
    schedulers = f"[kvsim.schedulers]\n{kind.lower()} = lazy:{kind}\n"
    (metadata / "entry_points.txt").write_text(f"[kvsim.allocators]\nrefusing = lazy:Refusing\n{schedulers}")
    file = tmp_path / "workload.yaml"
    chosen = f"{{kind: {allocator}, scheduler: {kind.lower()}}}"
    file.write_text(WORKLOAD.replace("{kind: worst-fit, headroom: 1.5}", chosen))
    done = python(tmp_path, "-m", "sim", "run", str(file), "--out", str(tmp_path / "out"), "--quiet")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)
    assert line.endswith(f"; tests/conformance tests what {'they' if ' and ' in said else 'it'} must do")


def test_without_it_nothing_has_changed(tmp_path: Path) -> None:
    done = python(tmp_path, "-m", "sim", "list", "allocators", "--json")
    assert done.returncode == 0, done.stderr
    assert "worst-fit" not in done.stdout
    file = tmp_path / "workload.yaml"
    file.write_text(WORKLOAD.replace("{kind: worst-fit, headroom: 1.5}", "{kind: paged, scheduler: shortest-first}"))
    done = python(tmp_path, "-m", "sim", "check", str(file))
    assert done.returncode == 2
    assert "must be one of static, orca, vllm-v0, vllm-v1, got shortest-first" in done.stderr
