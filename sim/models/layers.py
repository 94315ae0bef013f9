"""What one layer of a transformer is made of, in counts: weights, K/V elements, arithmetic.

A layer is a *mixer* (attention of some kind, or a recurrence) followed by a *feed-forward* part.
Each part is a frozen record of its sizes, and computes for one GPU of `tp` that share the model by
tensor parallelism: how many weights it has, what it keeps for every token or sequence, and how
much arithmetic a token takes.  `tp = 1` is the whole model.  Parts of equal sizes compare equal, so
layers can be grouped by what they keep.

Tensor parallelism is Megatron's, as in vLLM: heads and feed-forward columns are divided,
norms, routers and MLA's down-projections are replicated, and so are K/V heads where there
are fewer of them than GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Count(NamedTuple):
    """Numbers of weights on one GPU."""

    matrices: int
    """In matrix products: 2 floating-point operations a token each."""
    vectors: int = 0
    """Biases, norms and other small tensors."""


def share(number: int, what: str, tp: int) -> int:
    """Divide `number` over `tp` GPUs.  Raises ValueError with words for the user where it does not divide."""
    if number % tp:
        raise ValueError(f"{number} {what} cannot be divided over tensor_parallel {tp}")
    return number // tp


@dataclass(frozen=True)
class Mixer:
    """What mixes information between tokens."""

    @property
    def kind(self) -> str:
        """`full`, `sliding`, `latent` or `state`."""
        return "state"

    def weights(self, hidden: int, tp: int) -> Count:
        """Weights on one GPU."""
        raise NotImplementedError

    def kept(self, tp: int) -> tuple[tuple[int, int], ...]:
        """(count, length) of the vectors kept for every token on one GPU; () if nothing grows with the tokens."""
        return ()

    def state(self, tp: int) -> int:
        """Elements kept for every sequence on one GPU, however long it is."""
        return 0

    def pair_flops(self, tp: int, *, decode: bool) -> int:
        """Floating-point operations for one query-key pair on one GPU: scores and weighted sum."""
        return 0

    def scores(self, tp: int) -> int:
        """Attention scores a query-key pair has on one GPU: its heads."""
        return 0

    def expansion_flops(self, tp: int) -> int:
        """Floating-point operations to unpack one token of earlier context for a prefill on one GPU."""
        return 0


@dataclass(frozen=True)
class Attention(Mixer):
    """Softmax attention: MHA (`kv_heads == heads`), GQA, or MQA (`kv_heads == 1`)."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    """Keys a query sees, its own included; None for all of them."""
    qkv_bias: bool = False
    out_bias: bool = False
    gated: bool = False
    """The query projection also makes a gate for the output (Qwen3-Next)."""
    extra: int = 0
    """Weights of query and key norms, and of attention sinks."""

    @property
    def kind(self) -> str:
        """`full` or `sliding`."""
        return "full" if self.window is None else "sliding"

    def local_kv_heads(self, tp: int) -> int:
        """K/V heads on one GPU: divided while there are enough of them, then replicated."""
        return 1 if tp % self.kv_heads == 0 else share(self.kv_heads, "K/V heads", tp)

    def weights(self, hidden: int, tp: int) -> Count:
        """q, k, v and output projections."""
        query = share(self.heads, "attention heads", tp) * self.head_dim
        qkv = query * (2 if self.gated else 1) + 2 * self.local_kv_heads(tp) * self.head_dim
        biases = qkv * self.qkv_bias + hidden * self.out_bias
        return Count(hidden * (qkv + query), biases + self.extra)

    def kept(self, tp: int) -> tuple[tuple[int, int], ...]:
        """One K and one V vector a K/V head."""
        return ((2 * self.local_kv_heads(tp), self.head_dim),)

    def pair_flops(self, tp: int, *, decode: bool) -> int:
        """2 x heads x head_dim for the score and as many for the weighted sum."""
        return 4 * self.scores(tp) * self.head_dim

    def scores(self, tp: int) -> int:
        """One score a head."""
        return share(self.heads, "attention heads", tp)


@dataclass(frozen=True)
class LatentAttention(Mixer):
    """Multi-head latent attention (DeepSeek-V2, section 2.1): one compressed vector a token serves all heads.

    Decoding attends to the compressed vectors themselves (the up-projection absorbed into the
    query); prefill unpacks them to heads first.
    """

    heads: int
    kv_rank: int
    q_rank: int | None
    nope_dim: int
    rope_dim: int
    value_dim: int

    @property
    def kind(self) -> str:
        """`latent`."""
        return "latent"

    def weights(self, hidden: int, tp: int) -> Count:
        """Down-projections (replicated) and up-projections (divided), with the norms between them."""
        heads = self.scores(tp)
        query = heads * (self.nope_dim + self.rope_dim)
        down = hidden * (self.kv_rank + self.rope_dim)
        up = self.kv_rank * heads * (self.nope_dim + self.value_dim) + heads * self.value_dim * hidden
        if self.q_rank is None:
            return Count(down + up + hidden * query, self.kv_rank)
        return Count(down + up + self.q_rank * (hidden + query), self.kv_rank + self.q_rank)

    def kept(self, tp: int) -> tuple[tuple[int, int], ...]:
        """One vector of `kv_rank + rope_dim`, the same on every GPU."""
        return ((1, self.kv_rank + self.rope_dim),)

    def pair_flops(self, tp: int, *, decode: bool) -> int:
        """Decode works in the compressed space, prefill in that of the heads."""
        if decode:
            return 2 * self.scores(tp) * (2 * self.kv_rank + self.rope_dim)
        return 2 * self.scores(tp) * (self.nope_dim + self.rope_dim + self.value_dim)

    def scores(self, tp: int) -> int:
        """One score a head."""
        return share(self.heads, "attention heads", tp)

    def expansion_flops(self, tp: int) -> int:
        """Unpack one cached vector to keys and values of every head."""
        return 2 * self.kv_rank * self.scores(tp) * (self.nope_dim + self.value_dim)


@dataclass(frozen=True)
class StateSpace(Mixer):
    """A recurrence with a state of fixed size (Mamba, Mamba-2, gated delta net), given by its counts.

    Everything in it is divided over the GPUs by channel or head.
    """

    matrices: int
    vectors: int
    state_elements: int
    """Elements of recurrent state a sequence."""
    convolution_elements: int
    """Elements of convolution state a sequence."""

    def weights(self, hidden: int, tp: int) -> Count:
        """Projections, and the rest."""
        return Count(-(-self.matrices // tp), -(-self.vectors // tp))

    def state(self, tp: int) -> int:
        """Recurrent and convolution state."""
        return -(-(self.state_elements + self.convolution_elements) // tp)


@dataclass(frozen=True)
class FeedForward:
    """A dense feed-forward part; `gated` ones (SwiGLU) have three matrices, others two."""

    width: int
    gated: bool = True
    bias: bool = False

    @property
    def activations(self) -> int:
        """Elements a token makes between the matrices: (gate,) up, and what goes down."""
        return (3 if self.gated else 2) * self.width

    def weights(self, hidden: int, tp: int) -> Count:
        """Up (and gate) projections and the down projection."""
        width = share(self.width, "feed-forward columns", tp)
        ups = 2 if self.gated else 1
        return Count((ups + 1) * hidden * width, (ups * width + hidden) * self.bias)

    def routed(self, hidden: int, tp: int) -> Count:
        """Weights of all the experts together: none here."""
        return Count(0)


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: `active` of `experts` for a token, and a shared dense part for every token."""

    experts: int
    active: int
    expert: FeedForward
    shared: FeedForward | None = None
    shared_gate: bool = False
    """The shared part is scaled by a gate of its own (Qwen2-MoE)."""
    router_bias: bool = False

    @property
    def activations(self) -> int:
        """Elements a token makes in the experts it is sent to and in the shared part."""
        return self.active * self.expert.activations + (self.shared.activations if self.shared else 0)

    def weights(self, hidden: int, tp: int) -> Count:
        """Router and shared part: what every token goes through."""
        dense = self.shared.weights(hidden, tp) if self.shared else Count(0)
        router = hidden * (self.experts + self.shared_gate)
        return Count(dense.matrices + router, dense.vectors + self.experts * self.router_bias)

    def routed(self, hidden: int, tp: int) -> Count:
        """Weights of all the experts together, each divided over the GPUs."""
        one = self.expert.weights(hidden, tp)
        return Count(self.experts * one.matrices, self.experts * one.vectors)


@dataclass(frozen=True)
class Layer:
    """One decoder layer."""

    mixer: Mixer
    feed_forward: FeedForward | Experts
    norms: int
    """Weights of its norms, replicated on every GPU."""
