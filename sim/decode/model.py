"""The model that decodes: a Hugging Face one, with random weights or those of a checkpoint.

A shipped geometry (or any config.json) gets random weights, drawn on the device itself in
the dtype they are used in.  Their spread is `hidden ** -0.5`, which keeps the variance from
layer to layer, so that attention matters and a wrong K/V shows in the logits.  A directory
with safetensors files beside its config.json is loaded as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sim.decode.attention import NAME, Binding, attention_layers, bind
from sim.decode.device import DTYPES
from sim.decode.fused import FusedNetwork, fusible
from sim.errors import UserError
from sim.models.shipped import path_of, read_config, shipped_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedConfig, PreTrainedModel

    from sim.decode.attention import AttentionBackend
    from sim.decode.batch import Batch
    from sim.models.geometry import Geometry

FAMILIES = ("gpt2", "gpt_bigcode", "opt", "llama", "mistral", "qwen2", "qwen3", "falcon")
"""Model types whose attention is softmax over K/V heads and nothing else."""


@dataclass(frozen=True)
class Decoder:
    """A model on its device."""

    network: PreTrainedModel
    geometry: Geometry
    device: torch.device
    weights: str
    """Where they come from, in words."""
    binding: Binding

    fused: FusedNetwork | None
    """The same weights as fewer and larger products, where the architecture is known; it decodes in their place."""
    tried: set[int] = field(default_factory=set, compare=False, repr=False)
    """Tokens of the steps that ran before the clock started (`sim.decode.warm`): what they need is loaded."""

    def logits(self, batch: Batch, backend: AttentionBackend) -> torch.Tensor:
        """Run one step through `backend`; returns [wanted places, vocab]."""
        backend.plan(batch)
        return self.run(batch.ids, batch.positions, batch.keep, backend)

    def run(
        self, ids: torch.Tensor, positions: torch.Tensor, keep: torch.Tensor | None, backend: AttentionBackend
    ) -> torch.Tensor:
        """Run packed tokens through `backend`, which has been planned for them.

        Args:
            ids: int64[t]
            positions: int64[t]
            keep: int64[n], the places whose logits are wanted; all if None.
            backend: attends.

        Returns:
            [n, vocab]

        """
        if self.fused is not None:
            return self.fused.logits(ids, positions, keep, backend)
        self.binding.backend = backend
        try:
            output = self.network(
                input_ids=ids[None],
                position_ids=positions[None],
                use_cache=False,
                logits_to_keep=0 if keep is None else keep,
            )
        finally:
            self.binding.backend = None
        logits: torch.Tensor = output.logits[0]
        return logits

    def settle(self) -> None:
        """Let a GPU go on with captured graphs as fast as it can, after something else has run there.

        On an H200 every graph of the Llama-3.2-1B geometry, large or small, takes 66 microseconds longer after some
        kernels that were launched singly (one of Llama-3.1-8B 160 to 200), and no longer does after others.  A long
        prefill is of the former, so are some copies of blocks; a small product that is split along its inner dimension
        is of the latter, so one is made.  That was found by trial: why it is so is not known, and to reset the
        persisting lines of the L2 cache does not help.
        """
        if self.fused is not None and self.device.type == "cuda":
            self.fused.settle()


def supported(name: str, geometry: Geometry, base: Path | None = None) -> dict[str, Any]:
    """Return a model's config.json, after making sure that it can be decoded as it is simulated.

    Raises:
        UserError: its architecture, number format or division over GPUs cannot be run here.

    """
    _, values = read_config(name, base or Path())
    kind = str(values.get("model_type", ""))
    if kind not in FAMILIES or values.get("alibi") or values.get("quantization_config"):
        what = "alibi positions" if values.get("alibi") else f"model type {kind or 'unnamed'}"
        what = "quantized weights" if values.get("quantization_config") else what
        raise UserError(f"model {name}: {what} cannot be decoded; known are {', '.join(FAMILIES)}")
    if geometry.tensor_parallel > 1:
        raise UserError(f"model {name}: tensor_parallel {geometry.tensor_parallel}: real decode runs on one GPU")
    for key, value in (("kv_dtype", geometry.kv_dtype), ("dtype", geometry.model.dtype)):
        if value != geometry.model.dtype or value not in DTYPES:
            raise UserError(f"model {name}: {key} {value}: real decode keeps K/V in the model's own fp32, fp16 or bf16")
    return values


def load(
    name: str,
    geometry: Geometry,
    device: torch.device,
    *,
    base: Path | None = None,
    seed: int = 0,
    fuse: bool = True,
) -> Decoder:
    """Put a model on a device.

    Args:
        name: as in the workload: shipped, or a path.
        geometry: what it resolved to; its dtype and K/V heads count.
        device: where it shall run.
        base: folder that relative paths start from.
        seed: of random weights.
        fuse: whether to decode with fused products, where the architecture allows; else transformers' own
            layers decode, through its attention interface.

    Raises:
        UserError: it is not supported, or the checkpoint does not match its config.

    """
    values = supported(name, geometry, base)
    config = _config(values, geometry)
    dtype = DTYPES[geometry.model.dtype]
    folder = path_of(name, base or Path())
    if name.lower() not in shipped_models() and folder.is_dir() and any(folder.glob("*.safetensors")):
        network = _from_checkpoint(folder, config, dtype, device)
        weights = str(folder)
    else:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
            torch.manual_seed(seed)
            network = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
        weights = f"random, seed {seed}"
    network.eval().requires_grad_(requires_grad=False)
    network.config._attn_implementation = NAME  # noqa: SLF001  Falcon's layers are made for sdpa and take it later
    found = sum(1 for _ in attention_layers(network))
    if found != geometry.layers:
        raise UserError(f"model {name}: {found} attention layers in transformers, {geometry.layers} in its config.json")
    fused = FusedNetwork(network) if fuse and fusible(network) else None
    return Decoder(network, geometry, device, weights, bind(network), fused)


def _config(values: dict[str, Any], geometry: Geometry) -> PreTrainedConfig:
    values = dict(values)
    kind = values.pop("model_type")
    spread = geometry.hidden**-0.5
    values |= {"init_std": spread} if kind == "opt" else {"initializer_range": spread}
    if "num_key_value_heads" in values:
        values["num_key_value_heads"] = geometry.kv_heads
    return AutoConfig.for_model(kind, **values)


def _from_checkpoint(
    folder: Path, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    _demand_shapes(folder, config)
    network, info = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        attn_implementation="sdpa",
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserError(f"{folder}: {len(missing)} tensors of the model are missing, such as {missing[0]}")
    return network.to(device)


def _demand_shapes(folder: Path, config: PreTrainedConfig) -> None:
    """Raise UserError where a tensor in the files has another shape than in the model; reads headers only."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in _named(AutoModelForCausalLM.from_config(config))}
    for path, name, shape in _headers(folder):
        for known in (name, f"transformer.{name}", f"model.{name}"):
            if known in shapes and shapes[known] != shape:
                raise UserError(f"{path}: {name} is {list(shape)}, but its config.json asks for {list(shapes[known])}")


def _named(network: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    return iter(network.state_dict().items())


def _headers(folder: Path) -> Iterator[tuple[Path, str, tuple[int, ...]]]:
    """Yield (file, tensor, shape) of every tensor in a checkpoint."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415  only checkpoints need it

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  not a mapping
                    yield path, name, tuple(file.get_slice(name).get_shape())
        except SafetensorError as error:
            raise UserError(f"{path}: not a safetensors file: {error}") from None
