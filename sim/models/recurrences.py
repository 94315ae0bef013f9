"""Sizes of the recurrent mixers, from a config: Mamba, Mamba-2, gated delta net.

Counted tensor by tensor as transformers builds them; what a sequence keeps is the recurrent
state and the last inputs of the short convolution (vLLM's `MambaStateShapeCalculator`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.models.layers import StateSpace

if TYPE_CHECKING:
    from sim.models.config import Config


def recurrence(config: Config, hidden: int) -> StateSpace:
    """Make the recurrent mixer that the config describes.  Raises UserError if it describes none."""
    if "linear_num_value_heads" in config:
        return gated_delta_net(config, hidden)
    if "mamba_n_heads" in config:
        return mamba2(config, hidden)
    if "mamba_d_state" in config:
        return mamba(config, hidden)
    raise config.error("has recurrent layers, but neither mamba_d_state nor linear_num_value_heads says of what size")


def mamba(config: Config, hidden: int) -> StateSpace:
    """Selective state space (Mamba; Jamba adds norms for dt, B and C)."""
    inner = config.number("mamba_expand") * hidden
    state, kernel = config.number("mamba_d_state"), config.number("mamba_d_conv")
    rank = -(-hidden // 16) if config.values.get("mamba_dt_rank") == "auto" else config.number("mamba_dt_rank")
    projections = hidden * 2 * inner + inner * (rank + 2 * state) + rank * inner + inner * hidden
    bias = config.flag("mamba_proj_bias", default=False) * (2 * inner + hidden)
    convolution = inner * kernel + inner * config.flag("mamba_conv_bias", default=True)
    small = inner * state + 2 * inner + rank + 2 * state
    return StateSpace(projections, convolution + bias + small, inner * state, inner * (kernel - 1))


def mamba2(config: Config, hidden: int) -> StateSpace:
    """State-space duality (Mamba-2; Bamba, Granite 4): one scalar decay a head, B and C shared by a group."""
    heads, groups, state, kernel = (
        config.number(f"mamba_{name}") for name in ("n_heads", "n_groups", "d_state", "d_conv")
    )
    inner = config.number("mamba_expand") * hidden
    mixed = inner + 2 * groups * state
    projections = hidden * (inner + mixed + heads) + inner * hidden
    bias = config.flag("mamba_proj_bias", default=False) * (inner + mixed + heads + hidden)
    convolution = mixed * kernel + mixed * config.flag("mamba_conv_bias", default=True)
    return StateSpace(projections, convolution + bias + 3 * heads + inner, inner * state, mixed * (kernel - 1))


def gated_delta_net(config: Config, hidden: int) -> StateSpace:
    """Gated delta rule (Qwen3-Next): a matrix of key_dim x value_dim for each value head."""
    key_heads, value_heads = config.number("linear_num_key_heads"), config.number("linear_num_value_heads")
    key_dim, value_dim = config.number("linear_key_head_dim"), config.number("linear_value_head_dim")
    kernel = config.number("linear_conv_kernel_dim")
    keys, values = key_heads * key_dim, value_heads * value_dim
    mixed = 2 * keys + values
    projections = hidden * (mixed + values) + hidden * 2 * value_heads + values * hidden
    small = mixed * kernel + 2 * value_heads + value_dim
    return StateSpace(projections, small, value_heads * key_dim * value_dim, mixed * (kernel - 1))
