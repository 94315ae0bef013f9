"""`validate`: what agrees, what is found when something is wrong, and what it says before it starts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM

import sim.decode
from analysis.errors import RunDirectoryError
from analysis.reading import open_directory
from sim.decode import elementwise, main_validate, numerics
from sim.decode.executor import TorchExecutor
from sim.decode.outcome import Validation
from sim.decode.runtime import choose_backend
from sim.decode.validate import validate
from sim.errors import UserError
from sim.models.geometry import resolve_model
from sim.models.shipped import read_config
from sim.runner import run
from tests.decode.room import CONFIGS, CPU, config, workload
from workloads.loader import load
from workloads.schema import PRESETS, Workload

if TYPE_CHECKING:
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving

TINY = PRESETS / "validate_tiny.yaml"
MODELS = {"tiny-llama": "0.00015", "tiny-gpt2": "0.0006", "tiny-falcon": "0.00015"}
"""Geometries and a pool of about 630 token slots for each, GiB."""


def short(*allocators: dict[str, object], **changes: Any) -> Workload:
    """Describe a workload that takes a second."""
    requests = {"count": 4, "lengths": {"kind": "fixed", "prompt": 12, "output": 6}}
    work = workload("tiny-llama", {"kind": "paged", "block_size": 4}, kv_kib=64, requests=requests)
    plain = {**work.resolved(), **changes}
    return Workload.model_validate(plain | ({"allocators": list(allocators)} if allocators else {}))


@pytest.fixture(scope="module", params=MODELS)
def validated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Validation, Path]:
    model = request.param
    out = tmp_path_factory.mktemp(model)
    work = load(str(TINY), [f"model={model}", f"device.kv_memory_gib={MODELS[model]}"])
    return validate(work, out, device="cpu"), out


def test_everything_agrees(validated: tuple[Validation, Path]) -> None:
    result, _ = validated
    assert result.passed, result.as_json()
    for finding in result.findings:
        assert finding.numerics is not None
        assert finding.numerics.equal == finding.numerics.tokens == result.findings[0].numerics.tokens > 400
    assert {finding.kind for finding in result.findings} >= {
        "no-cache",
        "growing",
        "preallocated",
        "contiguous",
        "paged",
        "radix",
    }
    assert list(result.not_run) == ["ideal"]


def test_every_mechanism_was_at_work(validated: tuple[Validation, Path]) -> None:
    result, _ = validated
    total = {name: sum(finding.exercised[name] for finding in result.findings) for name in result.findings[0].exercised}
    unused = {name for name, count in total.items() if not count}
    assert unused == {"most_tokens_left_behind_by_a_window"}
    assert {finding.preemption for finding in result.findings} == {"recompute", "swap"}


def test_what_is_written_can_be_read(validated: tuple[Validation, Path]) -> None:
    result, out = validated
    written = json.loads((out / "validation.json").read_text())
    assert written == json.loads(json.dumps(result.as_json()))
    assert (
        written["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    )  # CPU or CUDA behind it
    measured, simulated = (open_directory(out / name) for name in ("measured", "simulated"))
    assert [run.label for run in measured.runs] == [run.label for run in simulated.runs]
    assert measured.manifest["executor"]["device"] == result.device
    statuses = {status for run in measured.runs for status in run.requests(["status"])["status"]}
    assert statuses == {"finished"}


def test_only_so_many_logits_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "MOST_LOGITS", 2 * 6 * 256 * 4)
    result = validate(short(), tmp_path, device="cpu")
    found = result.findings[0].numerics
    assert found is not None
    assert (found.requests, found.tokens) == (2, 12)
    assert result.passed


@pytest.mark.parametrize("blocks", ["off", "sampled", "whole"])
def test_the_block_map_agrees_however_often_it_is_looked_at(tmp_path: Path, blocks: str) -> None:
    result = validate(short(telemetry={"blocks": blocks}), tmp_path, device="cpu", parts=("exact",))
    assert result.passed, result.as_json()
    (run,) = open_directory(tmp_path / "measured").runs
    looks = len(set(run.blocks()["time_s"].tolist())) if blocks != "off" else 0
    steps = result.findings[0].decisions.steps - 1  # the last one leaves nothing to look at
    assert {"off": looks == 0, "sampled": 0 < looks <= steps, "whole": looks == steps}[blocks]


def test_a_model_with_a_window_agrees(tmp_path: Path) -> None:
    name = config(tmp_path, "mistral")
    allocators = [{"kind": "paged", "block_size": 4}, {"kind": "growing"}, {"kind": "no-cache", "scheduler": "orca"}]
    requests = {"count": 6, "arrivals": {"kind": "batch"}, "lengths": {"kind": "fixed", "prompt": 30, "output": 12}}
    work = short(*allocators, model={"name": name}, requests=requests)
    result = validate(work, tmp_path / "out", device="cpu")
    assert result.passed, result.as_json()
    assert result.findings[0].exercised["most_tokens_left_behind_by_a_window"] > 0


def test_a_checkpoint_of_ones_own_agrees(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    result = validate(short(model={"name": folder.name}), tmp_path / "out", device="cpu", base=tmp_path)
    assert result.passed, result.as_json()
    assert result.weights == str(folder)


def printed(work: Workload, out: Path, **options: Any) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=160)
    status = main_validate(work, out, console, device="cpu", **options)
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()


def test_agreement_is_status_0(tmp_path: Path) -> None:
    status, text = printed(short(), tmp_path)
    assert status == 0
    assert "1 of 1 runs: everything agrees" in text
    assert "<html" in (tmp_path / "validation.html").read_text()[:200].lower()


def test_json_is_the_only_output(tmp_path: Path) -> None:
    status, text = printed(short(), tmp_path, as_json=True)
    assert status == 0
    assert json.loads(text) == json.loads((tmp_path / "validation.json").read_text())


def test_a_difference_is_status_1_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = elementwise.rotate_and_store

    def wrong(qkv: torch.Tensor, *given: Any) -> torch.Tensor:
        return right(qkv + 0.01, *given)

    monkeypatch.setattr(elementwise, "rotate_and_store", wrong)
    status, text = printed(short(), tmp_path)
    assert status == 1
    assert "paged, recompute: request 0, sample 0, output token 0: token" in text
    assert "DIFFER" in text


def test_a_decision_that_differs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TorchExecutor.run

    def meddling(self: TorchExecutor, plan: Plan, serving: Serving) -> int:
        duration = run(self, plan, serving)
        serving.allocator.table.blocks[serving.decoding.column(serving.decoding.ROW)[:1], -1] = 1
        return duration

    monkeypatch.setattr(TorchExecutor, "run", meddling)
    result = validate(short(), tmp_path, device="cpu")
    assert not result.passed
    assert "table" in str(result.findings[0].decisions.difference)


def test_out_of_memory_keeps_what_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, steps = TorchExecutor._run, []

    def full(self: TorchExecutor, plan: Plan, serving: Serving) -> int:
        steps.append(plan)
        if len(steps) == 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return inner(self, plan, serving)

    monkeypatch.setattr(TorchExecutor, "_run", full)
    work = short(
        {"kind": "paged", "block_size": 4},
        {"kind": "growing"},
        requests={
            "count": 4,
            "arrivals": {"kind": "fixed", "rate": 20},
            "lengths": {"kind": "fixed", "prompt": 12, "output": 6},
        },
    )
    result = validate(work, tmp_path, device="cpu")
    stopped, whole = result.findings
    assert not result.passed
    assert whole.passed
    assert str(stopped.stopped).startswith("CUDA out of memory: in a step of ")
    assert "token slots: live " in str(stopped.stopped)
    assert stopped.numerics is not None
    assert stopped.numerics.passed
    assert 6 <= stopped.numerics.tokens < 24
    assert set(open_directory(tmp_path / "measured").runs[0].requests()["status"]) >= {"finished", "unfinished"}


def checkpoint(folder: Path, **changes: object) -> Path:
    """Save a tiny Llama, then change its config.json."""
    where = folder / "checkpoint"
    values = dict(read_config("tiny-llama")[1])
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    network.save_pretrained(where)
    path = where / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return where


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"device": "cuda"}, "--device cuda: torch .* sees no CUDA GPU here; use --device cpu"),
        ({}, {"device": "gpu"}, "--device gpu: no such device"),
        ({}, {"device": "mps"}, "--device mps: K/V is kept on cpu or cuda only"),
        ({}, {"backend": "flashinfer"}, "--backend flashinfer: flashinfer runs on cuda only; use --backend torch"),
        ({}, {"backend": "flashinfr"}, r"--backend flashinfr: not known \(did you mean flashinfer\?\)"),
        ({"model": {"name": "tiny-llama", "kv_dtype": "fp8"}}, {}, "kv_dtype fp8: real decode keeps K/V in the model"),
        ({"model": {"name": "tiny-llama", "tensor_parallel": 2}}, {}, "tensor_parallel 2: real decode runs on one GPU"),
        (
            {"device": {"memory_gib": 1e6, "bandwidth_tbps": 1, "bf16_tflops": 1, "kv_memory_gib": 9e5}},
            {},
            "has .* free, .* too little for weights 0.46 MiB, the KV pool with its null block 900,000.00 GiB",
        ),
        ({"allocators": [{"kind": "ideal"}]}, {}, "allocators: none of them can run on a device: a bound"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(
    changes: dict[str, Any], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        validate(short(**changes), tmp_path, **{"device": "cpu", **options})
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_an_architecture_with_more_than_softmax_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gemma2.json"
    path.write_text(json.dumps({**CONFIGS["qwen2"], "model_type": "gemma2", "num_key_value_heads": 2, "head_dim": 8}))
    with pytest.raises(UserError, match="model type gemma2 cannot be decoded; known are gpt2, "):
        validate(short(model={"name": str(path)}), tmp_path / "out", device="cpu")


def test_beams_are_not_the_models_choice(tmp_path: Path) -> None:
    requests = {**short().resolved()["requests"], "samples": 2, "beam": True}
    with pytest.raises(UserError, match=r"requests\.beam"):
        validate(short(requests=requests), tmp_path, device="cpu")


def test_a_checkpoint_that_does_not_match_is_refused(tmp_path: Path) -> None:
    name = str(checkpoint(tmp_path, intermediate_size=200))
    with pytest.raises(
        UserError, match=r"gate_proj.weight is \[176, 64\], but its config.json asks for \[200, 64\]|down"
    ):
        validate(short(model={"name": name}), tmp_path / "out", device="cpu")


def test_a_checkpoint_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    name = str(checkpoint(tmp_path, num_hidden_layers=3))
    with pytest.raises(UserError, match=r"tensors of the model are missing, such as model\.layers\.2\."):
        validate(short(model={"name": name}), tmp_path / "out", device="cpu")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    (folder / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"model\.safetensors: not a safetensors file"):
        validate(short(model={"name": str(folder)}), tmp_path / "out", device="cpu")


def test_a_validation_replaces_none_of_another_workload(tmp_path: Path) -> None:
    out = tmp_path / "out"
    validate(short(), out, device="cpu", parts=("exact",))
    before = (out / "measured/manifest.json").read_bytes()
    with pytest.raises(UserError, match=r"out: holds other results \(seed was \d+, is 5\); give another"):
        validate(short(seed=5), out, device="cpu", parts=("timed",))
    assert (out / "measured/manifest.json").read_bytes() == before
    assert not (out / "timed").exists()
    validate(short(seed=5), out, device="cpu", parts=("exact",), force=True)
    assert open_directory(out / "measured").manifest["seed"] == 5
    with pytest.raises(
        RunDirectoryError, match=r"out: holds validation results; give one of those in it: \S*measured, "
    ):
        open_directory(out)
    with pytest.raises(UserError, match="holds validation results, not run results"):
        run(short(), out)


def test_a_validation_that_does_not_say_what_it_is_of_gives_way_to_force(tmp_path: Path) -> None:
    out = tmp_path / "out"
    validate(short(), out, device="cpu", parts=("exact",))
    (out / "manifest.json").unlink()  # older ones had none
    with pytest.raises(UserError, match=r"out: holds a validation that does not say .*; give .* or --force to replace"):
        validate(short(), out, device="cpu", parts=("exact",))
    validate(short(), out, device="cpu", parts=("exact",), force=True)
    validate(short(), out, device="cpu", parts=("exact",))


def test_missing_extras_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.decode, "find_spec", lambda name: None if name == "transformers" else object())
    with pytest.raises(
        UserError, match=r"transformers not installed; real decode needs: pip install torch transformers"
    ):
        main_validate(short(), tmp_path, Console())


def test_without_a_gpu_the_backend_is_torch() -> None:
    assert choose_backend(None, resolve_model("llama-3.2-1b"), CPU) == "torch"
