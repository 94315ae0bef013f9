"""What tests of workloads share: a smallest file, and the recorded traces where they are at hand."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from workloads.loader import load
from workloads.schema import Workload

SHARED = Path(os.environ.get("KVSIM_SHARED", Path(__file__).parents[2].parent / "shared"))

Small: TypeAlias = Callable[..., Workload]
"""Loads the smallest workload with some settings changed."""

SMALLEST = """\
name: small
model: llama-3.1-8b
device: h100-80gb
requests: {count: 100, arrivals: {kind: poisson, rate: 10}, lengths: {kind: fixed, prompt: 10, output: 5}}
allocators: [{kind: preallocated}]
"""


@pytest.fixture
def traces() -> Path:
    """Folder of the recorded traces."""
    folder = SHARED / "data" / "traces"
    if not folder.is_dir():
        pytest.skip(f"no recorded traces at {folder}; set KVSIM_SHARED to the folder that holds data/traces")
    return folder


@pytest.fixture(scope="session")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Load the smallest workload with some settings changed."""
    path = tmp_path_factory.mktemp("small") / "small.yaml"
    path.write_text(SMALLEST)

    def change(*settings: str) -> Workload:
        return load(path, settings)

    return change


@pytest.fixture
def small(small_file: Small) -> Small:
    """Do the same, for tests that are no property tests."""
    return small_file
