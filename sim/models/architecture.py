"""A model as its config.json describes it: a stack of layers between two embeddings, and what that counts up to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sim.models.layers import Attention, Experts, LatentAttention, Layer, Mixer


class Weights(NamedTuple):
    """Numbers of weights on one GPU, by how a step uses them."""

    embedding: int
    """Input and position embeddings: rows are looked up."""
    dense: int
    """Matrices every token goes through."""
    routed: int
    """Matrices of all experts; a token goes through a few."""
    vectors: int
    """Biases, norms and other small tensors."""
    head: int
    """Output matrix, one row a vocabulary entry; the input embedding's own if the two are tied."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of one model.  Nothing here depends on how it is served."""

    model_type: str
    """Family, in the words of transformers."""
    hidden: int
    """Width of the residual stream."""
    vocab: int
    max_model_len: int
    """Longest sequence the model knows, in tokens."""
    stack: tuple[Layer, ...]
    """Its layers, first to last."""
    tied_embeddings: bool
    """Whether the output matrix is the input embedding."""
    dtype: str
    """Of weights and activations: fp32, fp16 or bf16."""
    compute_dtype: str
    """Of the matrix products: `dtype`, or fp8 where weights and activations are quantized to it."""
    final_norm: int
    """Weights after the last layer."""
    embedding_dim: int
    """Width of the embeddings; where it is not `hidden`, two more matrices stand between (OPT-350m)."""
    position_rows: int = 0
    """Learned positions, in rows of `hidden`."""
    head_bias: bool = False
    dense_bits: float = 0.0
    """Bits a weight of the layers' dense matrices, scales included, where quantized; 0 for those of `dtype`."""
    routed_bits: float = 0.0
    """The same for the experts' matrices."""
    notes: tuple[str, ...] = ()
    """What had to be assumed, for the user to see."""

    @property
    def quantized(self) -> str:
        """Which matrices take fewer bits a weight than `dtype` has, and how many, as words behind it; empty if none."""
        bits = {"dense": self.dense_bits, "experts'": self.routed_bits}
        if self.dense_bits == self.routed_bits:
            bits = {"layers'": self.dense_bits}
        return "".join(f"; {which} matrices in {some:.3g} bits a weight" for which, some in bits.items() if some)

    @property
    def attention(self) -> Attention | None:
        """The first layer of MHA, GQA or MQA; None if there is none."""
        return next((layer.mixer for layer in self.stack if isinstance(layer.mixer, Attention)), None)

    @property
    def latent(self) -> LatentAttention | None:
        """The first layer of MLA; None if there is none."""
        return next((layer.mixer for layer in self.stack if isinstance(layer.mixer, LatentAttention)), None)

    @cached_property
    def mixers(self) -> tuple[tuple[Mixer, int], ...]:
        """What mixes information between tokens, each different one with the number of its layers."""
        return tuple(Counter(layer.mixer for layer in self.stack).items())

    def weights(self, tp: int = 1) -> Weights:
        """Count the weights on one of `tp` GPUs.  Raises ValueError if the model cannot be divided so."""
        embedding = self.embedding_dim * -(-self.vocab // tp) + self.hidden * self.position_rows
        head = self.embedding_dim * -(-self.vocab // tp)
        dense = 2 * self.hidden * self.embedding_dim if self.embedding_dim != self.hidden else 0
        vectors = self.final_norm + self.vocab * self.head_bias
        routed = 0
        for layer in self.stack:
            mixer = layer.mixer.weights(self.hidden, tp)
            forward = layer.feed_forward.weights(self.hidden, tp)
            experts = layer.feed_forward.routed(self.hidden, tp)
            dense += mixer.matrices + forward.matrices
            routed += experts.matrices
            vectors += mixer.vectors + forward.vectors + experts.vectors + layer.norms
        return Weights(embedding, dense, routed, vectors, head)

    @property
    def parameters(self) -> int:
        """All weights, a tied matrix once."""
        count = self.weights()
        return sum(count) - (count.head if self.tied_embeddings else 0)

    @property
    def active_parameters(self) -> int:
        """Weights a token goes through: all but the experts it is not sent to."""
        idle = 0
        for layer in self.stack:
            part = layer.feed_forward
            if isinstance(part, Experts):
                idle += sum(part.routed(self.hidden, 1)) * (part.experts - part.active) // part.experts
        return self.parameters - idle

    @property
    def experts(self) -> Experts | None:
        """The first mixture of experts, or None."""
        return next((layer.feed_forward for layer in self.stack if isinstance(layer.feed_forward, Experts)), None)
