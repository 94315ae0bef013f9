"""GPUs against the figures of their makers."""

from __future__ import annotations

import pytest

from sim.devices import CHANGES, GIB, Device, resolve_device, shipped_devices
from sim.errors import UserError
from sim.setup import prepare
from workloads.loader import load
from workloads.machine import Device as WorkloadDevice

DATASHEETS = [
    # device, GB on the box, TB/s, dense bf16 TFLOP/s, MiB that nvidia-smi or rocm-smi shows
    ("a100-40gb", 40, 1.555, 312, 40_960),
    ("a100-80gb", 80, 2.039, 312, 81_920),
    ("h100-80gb", 80, 3.35, 989, 81_559),
    ("h200", 141, 4.8, 989, 143_771),
    ("l4", 24, 0.3, 121, 23_034),
    ("a10g", 24, 0.6, 70, 23_028),
    ("rtx-4090", 24, 1.008, 165.2, 24_564),
    ("mi300x", 192, 5.3, 1307.4, 196_592),
]


@pytest.mark.parametrize(("name", "gigabytes", "bandwidth", "tflops", "shown"), DATASHEETS)
def test_a_shipped_device_is_as_its_datasheet(
    name: str, gigabytes: float, bandwidth: float, tflops: float, shown: int
) -> None:
    device = resolve_device(name)
    assert device.bandwidth == bandwidth * 1e12
    assert device.peak("bf16") == device.peak("fp16") == tflops * 1e12
    # A program gets 1 to 5 % less than is shown: the driver and error correction keep that.
    assert 0.95 * shown < device.memory_bytes / 2**20 < shown
    assert device.memory_bytes == pytest.approx(gigabytes * GIB, rel=0.09)
    assert name.partition("-")[0].upper() in device.source.upper()


def test_every_shipped_device_is_checked() -> None:
    assert [name for name, *_ in DATASHEETS] == list(shipped_devices())


def test_a_dtype_without_its_own_unit_runs_at_the_rate_of_bf16() -> None:
    assert resolve_device("a100-80gb").peak("fp8") == 312e12
    assert resolve_device("h100-80gb").peak("fp8") == 1979e12
    assert resolve_device("h100-80gb").peak("fp32") == 67e12


def test_a_device_may_be_varied() -> None:
    device = resolve_device({"name": "H100-80GB", "kv_memory_gib": 12, "bandwidth_tbps": 4, "bf16_tflops": 500})
    assert (device.kv_memory_bytes, device.bandwidth) == (12 * GIB, 4e12)
    assert (device.peak("bf16"), device.peak("fp16"), device.peak("fp8")) == (500e12, 500e12, 1979e12)
    assert device.memory_bytes == resolve_device("h100-80gb").memory_bytes


def test_a_workload_file_may_say_all_that_can_be_said_of_a_device() -> None:
    assert {*WorkloadDevice.model_fields} == {"name", *CHANGES}


def test_a_device_may_be_described() -> None:
    spec = {
        "memory_gib": 32,
        "bandwidth_tbps": 1.8,
        "bf16_tflops": 210,
        "fp8_tflops": 420,
        "pcie_gbps": 64,
        "link_gbps": 50,
    }
    device = resolve_device(spec)
    assert device == Device(
        name="custom",
        memory_bytes=32 * GIB,
        bandwidth=1.8e12,
        flops={"bf16": 210e12, "fp16": 210e12, "fp8": 420e12},
        pcie_bandwidth=64e9,
        link_bandwidth=50e9,
        source=device.source,
    )
    assert ("GPU memory", "32.00 GiB") in device.explain()


def test_a_figure_in_another_unit_is_doubted() -> None:
    in_gb_a_second = resolve_device({"memory_gib": 80, "bandwidth_tbps": 2000, "bf16_tflops": 312})
    assert in_gb_a_second.doubts() == [
        "device: bandwidth_tbps 2,000 is 377 times that of any GPU listed: look at its unit"
    ]
    assert not any(device.doubts() for device in shipped_devices().values())


def test_the_rate_that_fp32_is_assumed_to_have_is_told() -> None:
    device = "device={memory_gib: 80, bandwidth_tbps: 2, bf16_tflops: 312%s}"
    (note,) = prepare(
        load("quickstart", ["model={name: gpt2, dtype: fp32}", "engine={max_model_len: 1024}", device % ""])
    ).notes
    assert note.startswith("gpt2 is fp32 and custom has no fp32_tflops: its bf16 rate is assumed, which GPUs reach a")
    given = ["model={name: gpt2, dtype: fp32}", "engine={max_model_len: 1024}", device % ", fp32_tflops: 19.5"]
    assert not prepare(load("quickstart", given)).notes
    assert not prepare(load("quickstart", ["model=gpt2", "engine={max_model_len: 1024}", device % ""])).notes


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("h100", "h100 is not known (did you mean h100-80gb?); known are a100-40gb"),
        ("abacus", "abacus is not known; known are"),
        ({"name": 3}, "3 is not known"),
        ({}, "memory_gib, bandwidth_tbps, bf16_tflops missing"),
        ({"memory_gib": 80, "bf16_tflops": 9}, "bandwidth_tbps missing (give a name, or"),
        ({"name": "l4", "bandwith_tbps": 1}, "unknown key bandwith_tbps (did you mean bandwidth_tbps?)"),
        ({"name": "l4", "memory_gib": 0}, "memory_gib: 0 is not a positive number"),
        ({"name": "l4", "memory_gib": "24"}, 'memory_gib: "24" is not a positive number'),
        ({"name": "l4", "kv_memory_gib": 1e300}, "kv_memory_gib: 1e+300 is not a positive number up to 1e+09"),
        ({"name": "l4", "kv_memory_gib": float("inf")}, "kv_memory_gib: .inf is not a positive number"),
        ({"name": "l4", "pcie_gbps": float("nan")}, "pcie_gbps: .nan is not a positive number"),
        ({"name": "l4", "link_gbps": True}, "link_gbps: true is not a positive number"),
    ],
)
def test_a_bad_device_gets_one_line(spec: str | dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as error:
        resolve_device(spec)
    assert str(error.value).startswith("device: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
