"""The same sweep on a real Ray and a real Dask cluster of this machine, with a worker killed in its midst."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sim.cli import main
from sim.cli.app import FAULT
from sim.errors import UserError
from sim.planner.backends import Kind, make
from sim.planner.execute import BatchProgress
from sim.planner.grid import Base
from sim.planner.sweep import sweep

needs_dask = pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="distributed is not installed")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
RAY = """
import ray, sys
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20, _temp_dir=sys.argv[1],
    _node_ip_address="127.0.0.2")  # Ray takes 127.0.0.1 for the address of the network card
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""
OVER = ["requests.arrivals.rate=200,400,800"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(*line: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )


@contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield the address of a scheduler, and its two workers."""
    address = f"tcp://127.0.0.1:{free_port()}"
    scheduler = start("-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard")
    common = ("-m", "distributed.cli.dask_worker", address, "--host", "127.0.0.1", "--nthreads", "1")
    workers = [
        start(*common, "--no-nanny", "--no-dashboard", "--local-directory", str(folder / name)) for name in ("a", "b")
    ]
    try:
        yield address, [worker.pid for worker in workers]
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.communicate()


def await_workers(address: str, wanted: int) -> None:
    """Wait until the scheduler answers and so many workers have come to it."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with suppress(UserError):  # nobody answers yet
            backend = make("dask", address=address)
            come = backend.workers
            backend.close()
            if come == wanted:
                return
        time.sleep(0.2)
    pytest.fail(f"{wanted} workers did not come in time")


@contextmanager
def ray_cluster() -> Iterator[tuple[str, Path]]:
    """Yield the address of a Ray instance, and its folder: a short name, as sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        cluster = start("-c", RAY, folder)
        try:
            assert cluster.stdout is not None
            address = cluster.stdout.readline().strip()
            assert address, "Ray did not start"
            yield address, Path(folder)
        finally:
            cluster.communicate()  # the end of its input is the sign to go


def ray_worker(folder: Path) -> int:
    """Return a process that does a job for the instance of this folder; one that waits, if none works just now."""
    found = {}
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name = command.read_bytes()
            if name.startswith((b"ray::work", b"ray::IDLE")) and str(folder) in _parent_line(command.parent):
                found[int(command.parent.name)] = name.startswith(b"ray::work")
        except OSError:  # it has gone
            continue
    return max(found, key=lambda process: found[process])


def _parent_line(process: Path) -> str:
    """Return the command line of a process's parent, which for a worker is the raylet of its instance."""
    parent = process.joinpath("stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
    return Path(f"/proc/{parent}/cmdline").read_bytes().decode().replace("\0", " ")


def swept(base: Base, kind: Kind, address: str, out: Path, at: int, kill: object) -> None:
    """Sweep on a cluster; call `kill` when so many jobs are done."""
    backend = make(kind, address=address)
    killed = []

    def watch(step: BatchProgress) -> None:
        if step.done >= at and not killed:
            killed.append(step.done)
            kill()  # type: ignore[operator]  # any callable

    try:
        assert backend.workers == 2
        sweep(base, base.axes(OVER), out, backend, progress=watch)
    finally:
        backend.close()
    assert killed


@pytest.fixture
def calm(base: Base) -> bytes:
    """What the sweep gives in this process."""
    sweep(base, base.axes(OVER), Path("calm"), make())
    return Path("calm/results.parquet").read_bytes()


@needs_dask
def test_a_dask_cluster_gives_the_same_with_a_worker_killed(base: Base, calm: bytes, tmp_path: Path) -> None:
    with dask_cluster(tmp_path) as (address, workers):
        await_workers(address, len(workers))
        swept(base, "dask", address, Path("x"), 3, lambda: os.kill(workers[0], signal.SIGKILL))
    assert Path("x/results.parquet").read_bytes() == calm


@needs_ray
def test_a_ray_cluster_gives_the_same_with_a_worker_killed(
    base: Base, calm: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with ray_cluster() as (address, folder):
        swept(base, "ray", address, Path("x"), 3, lambda: os.kill(ray_worker(folder), signal.SIGKILL))
    assert Path("x/results.parquet").read_bytes() == calm


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        pytest.param("dask", "tcp://127.0.0.1:9", marks=needs_dask),
        pytest.param("dask", "nonsense://x", marks=needs_dask),
        pytest.param("ray", "127.0.0.1:9", marks=needs_ray),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(
    kind: Kind, address: str, workload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(workload), "--backend", kind, "--address", address]) == FAULT
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(f"--backend {kind}: no ")
    assert not Path("runs").exists()
