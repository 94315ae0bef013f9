"""What `--set` changes in a workload, and what it says of what it cannot."""

from pathlib import Path

import pytest

from tests.workloads.conftest import Small
from tests.workloads.test_loader import HEAD, REQUESTS
from workloads.errors import WorkloadError
from workloads.loader import load


class TestOverrides:
    def test_replace_and_add(self, small: Small) -> None:
        workload = small(
            "engine.max_num_seqs=8", "requests.arrivals.rate=2.5", "allocators.0.label=a", "slo={ttft_s: 1}"
        )
        assert workload.engine.max_num_seqs == 8
        assert workload.requests.arrivals.rate == 2.5
        assert workload.allocators[0].label == "a"
        assert workload.slo.ttft_s == 1

    def test_a_name_opens_into_its_mapping(self, small: Small) -> None:
        workload = small("model.kv_dtype=fp8", "device.kv_memory_gib=12")
        assert (workload.model.name, workload.model.kv_dtype) == ("llama-3.1-8b", "fp8")
        assert (workload.device.name, workload.device.kv_memory_gib) == ("h100-80gb", 12)

    def test_a_bare_allocator_opens_into_its_mapping(self, small: Small) -> None:
        workload = small("allocators=[paged, ideal]", "allocators.paged.block_size=8", "allocators.1.label=bound")
        paged, ideal = workload.allocators
        assert (paged.kind, paged.options) == ("paged", {"block_size": 8})
        assert (ideal.kind, ideal.label) == ("ideal", "bound")

    def test_a_later_one_wins(self, small: Small) -> None:
        assert small("seed=1", "seed=2").seed == 2

    def test_an_allocator_goes_by_label_kind_or_position(self, small: Small) -> None:
        workload = small(
            "allocators=[{kind: contiguous, reserve: pow2}, {kind: contiguous, reserve: oracle}, {kind: paged}]",
            "allocators.contiguous.placement=best-fit",
            "allocators.contiguous-oracle.placement=first-fit",
            "allocators.2.label=ours",
            "allocators.ours.block_size=8",
        )
        pow2, oracle, ours = workload.allocators
        assert pow2.options == {"reserve": "pow2", "placement": "best-fit"}
        assert oracle.options == {"reserve": "oracle", "placement": "first-fit"}
        assert (ours.label, ours.options) == ("ours", {"block_size": 8})

    def test_a_name_may_be_mended_in_a_file_that_is_wrong_elsewhere(self, tmp_path: Path) -> None:
        wrong = HEAD + REQUESTS + "allocators: [{kind: paged, block_size: x}, {kind: pagd, label: b}]\n"
        path = tmp_path / "w.yaml"
        path.write_text(wrong, encoding="utf-8")
        mended = load(path, ["allocators.paged.block_size=4", "allocators.b.kind=ideal"])
        assert [one.kind for one in mended.allocators] == ["paged", "ideal"]

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("seed", "--set seed: write it as key.key=value"),
            ("=3", "--set =3: write it as key.key=value"),
            ("seed=-1", "--set seed=-1: seed: must be at least 0, got -1"),
            ("--seed -1", "--seed -1: must be at least 0, got -1"),
            ("--seed x", "--seed x: must be a whole number, got x"),
            (
                "allocators.0.block_size=0",
                "--set allocators.0.block_size=0: allocators.0.block_size: must be at least 1, got 0",
            ),
            ("seed={", "--set seed={: not valid YAML"),
            ("seed.x=1", "--set seed.x=1: there is no seed.x: it would be inside 0"),
            (
                "allocators.3.label=x",
                "--set allocators.3.label=x: there is no allocators.3: it would be inside a list of 1",
            ),
            (
                "allocators.prealocated.label=x",
                "--set allocators.prealocated.label=x: no allocator has the label or kind prealocated (did you mean",
            ),
            (
                "allocators.preallocated.lable=x",
                "--set allocators.preallocated.lable=x: allocators.0.lable: unknown key (did you mean label?)",
            ),
            ("engine.max_seqs=3", "--set engine.max_seqs=3: engine.max_seqs: unknown key (did you mean max_num_seqs?)"),
        ],
    )
    def test_faults_name_the_override(self, small: Small, setting: str, message: str) -> None:
        with pytest.raises(WorkloadError) as error:
            small("seed=0", setting)
        assert str(error.value).startswith(message)
