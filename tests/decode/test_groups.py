"""Hybrid models decode through a block table for each group of layers, whatever the pages are cut into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from allocators.grouprows import GroupRows
from allocators.groups import PAGINGS
from sim.decode.groups import GroupCache, PooledStore, places_of
from sim.decode.validate import validate
from sim.models.geometry import resolve_model
from tests.decode.room import CPU, config, decode, workload
from workloads.loader import load

if TYPE_CHECKING:
    from pathlib import Path

    from sim.decode.runtime import Runtime
    from sim.decode.trace import Step
    from sim.engine.executor import Executor

HYBRID = {"kind": "hybrid", "block_size": 4}
KIB = {"uniform": 190, "even": 150, "common-multiple": 130}
"""Pools in which requests run out of memory."""


def model(folder: Path) -> str:
    return config(folder, "qwen2-mixed")


def moved(steps: list[Step]) -> set[str]:
    return {kind for step in steps for kind, _, _ in step.moves}


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("fuse", [False, True])
def test_every_group_attends_through_its_own_table(paging: str, *, fuse: bool, tmp_path: Path) -> None:
    ran = decode(workload(model(tmp_path), {**HYBRID, "paging": paging}, kv_kib=512), fuse=fuse)
    assert isinstance(ran.allocator, GroupRows)
    assert len(ran.allocator.pieces) == (3 if paging == "even" else 2)
    assert any(step.usage.dropped for step in ran.recorded.steps)  # windows left blocks behind
    assert ran.numerics().passed, ran.numerics().as_json()
    assert ran.numerics().largest_error < 1e-5


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_groups_survive_preemption_forks_and_prefix_hits(paging: str, preemption: str, tmp_path: Path) -> None:
    options = {**HYBRID, "paging": paging, "prefix_cache": True, "host_blocks": 800}
    engine = {"scheduler": "vllm-v0", "preemption": preemption, "max_num_seqs": 24}
    shared = {"samples": 2, "shared": [{"tokens": 24, "pool": 2}]}
    work = workload(model(tmp_path), options, kv_kib=KIB[paging], engine=engine, requests=shared)
    ran = decode(work)
    steps = ran.recorded.steps
    assert any(step.preempted for step in steps)
    assert any(start for step in steps for request, _, start, _ in step.chunks if request in step.admitted)
    assert {"copy"} | ({"out", "in"} if preemption == "swap" else set()) <= moved(steps)
    assert ran.numerics().passed, ran.numerics().as_json()


def test_the_preset_agrees_and_puts_everything_to_work(tmp_path: Path) -> None:
    result = validate(load("validate_hybrid"), tmp_path, device="cpu", parts=("exact",))
    assert result.passed, result.as_json()
    hybrid = [finding.exercised for finding in result.findings if finding.kind == "hybrid"]
    assert len(hybrid) == 2 * len(PAGINGS)
    for what in ("preemptions", "blocks_copied", "most_tokens_left_behind_by_a_window"):
        assert all(exercised[what] for exercised in hybrid), what
    for what in ("blocks_swapped_out", "blocks_swapped_in", "prefix_hit_tokens"):
        assert any(exercised[what] for exercised in hybrid), what


def test_a_wrong_group_table_is_noticed(tmp_path: Path) -> None:
    def confuse(executor: Any, _: Runtime) -> Executor:
        groups = executor._backend
        groups._tables = groups._tables[1:] + groups._tables[:1]
        return executor

    assert not decode(workload(model(tmp_path), HYBRID, kv_kib=512), wrap=confuse).numerics().passed


def test_layers_fill_their_groups_in_order(tmp_path: Path) -> None:
    ran = decode(workload(model(tmp_path), HYBRID, kv_kib=512))
    pieces = [ran.allocator.pieces[group] for group in ran.allocator.attention]
    assert places_of(pieces, resolve_model(model(tmp_path))) == [(0, 0), (1, 0), (1, 1), (0, 1), (2, 0)]


def test_pieces_of_several_blocks_lie_apart(tmp_path: Path) -> None:
    ran = decode(workload(model(tmp_path), {**HYBRID, "paging": "common-multiple"}, kv_kib=512))
    allocator, geometry = ran.allocator, resolve_model(model(tmp_path))
    pieces = [allocator.pieces[group] for group in allocator.attention]
    assert {piece.blocks for piece in pieces} == {2, 3}
    store = PooledStore(12, allocator.block_size * allocator.cut.slot_bytes, torch.float32, CPU)
    for piece in pieces:
        store.blocks.zero_()
        cache = GroupCache(store, piece, geometry)
        first = 1 + piece.blocks
        slots = torch.from_numpy(np.arange(piece.tokens) + first * piece.tokens)
        states = torch.ones(piece.tokens, geometry.kv_heads, geometry.head_dim)
        for layer in range(piece.group.layers):
            cache.write(layer, slots, states, states)
        held = slice(first, first + piece.blocks)
        assert store.blocks[held].eq(1).all()
        assert int(store.blocks.count_nonzero()) == store.blocks[held].numel()
