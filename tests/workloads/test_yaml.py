"""YAML as a workload is written in it."""

from pathlib import Path

from tests.workloads.conftest import Small
from tests.workloads.test_loader import ALLOCATORS, HEAD, REQUESTS, faults
from workloads.document import WIDTH, Document, as_file
from workloads.loader import load


class TestYaml:
    def test_is_version_1_2(self, small: Small) -> None:
        workload = small("requests.duration_s=1e3", "requests.count=null", "name=on")
        assert workload.requests.duration_s == 1000
        assert workload.name == "on"

    def test_dates_are_words(self, small: Small) -> None:
        assert small("name=2026-11-01").name == "2026-11-01"

    def test_anchors_and_merges(self, tmp_path: Path) -> None:
        path = tmp_path / "w.yaml"
        path.write_text(
            f"{HEAD}{REQUESTS}allocators:\n"
            "  - &base {kind: contiguous, reserve: max}\n  - {<<: *base, reserve: pow2}\n"
        )
        workload = load(path)
        assert [entry.options["reserve"] for entry in workload.allocators] == ["max", "pow2"]
        assert workload.allocators[1].kind == "contiguous"

    def test_a_fault_behind_a_merge_points_to_the_anchor(self, tmp_path: Path) -> None:
        lines = faults(
            tmp_path,
            f"{HEAD}{REQUESTS}allocators:\n  - &base {{kind: contiguous, reserve: mox}}\n  - {{<<: *base, label: b}}\n",
        )
        assert [line.split(": ")[:2] for line in lines] == [
            ["w.yaml:6:39", "allocators.0.reserve"],
            ["w.yaml:6:39", "allocators.1.reserve"],
        ]

    def test_a_bomb_of_aliases_is_no_bomb(self, tmp_path: Path) -> None:
        layers = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 20)}]\n" for n in range(1, 12))
        lines = faults(tmp_path, f"x0: &x0 [1]\n{layers}{HEAD}{REQUESTS}{ALLOCATORS}slo: *x11\n")
        assert "slo: must be a mapping, got [[...], [...], [...], [...], [...], [...], ...]; keys: " in lines[-1]

    def test_what_is_written_reads_back_and_fills_its_lines(self) -> None:
        content = {"name": "a", "numbers": list(range(100)), "inside": {"list": [{"kind": "paged"}]}}
        text = as_file(content)
        assert 80 < max(map(len, text.splitlines())) <= WIDTH
        assert Document(text, "it").data == content
