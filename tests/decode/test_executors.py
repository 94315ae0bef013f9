"""Every kind of allocator decodes for real: through blocks, through tensors of its own, through nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from allocators.content import Segments
from sim.decode.device import moved
from sim.decode.numerics import Reference, compare
from sim.decode.store import KVStore
from sim.decode.trace import first_difference
from sim.decode.transcript import Transcript
from sim.engine.executor import Executor
from sim.models.geometry import resolve_model
from tests.decode.room import CPU, decode, workload
from workloads.requests import Prefixes, Requests

if TYPE_CHECKING:
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving

ALLOCATORS: dict[str, tuple[dict[str, object], float]] = {
    "no-cache": ({"kind": "no-cache", "scheduler": "orca"}, 64),
    "growing": ({"kind": "growing"}, 2048),
    "growing-expandable": ({"kind": "growing", "expandable_segments": True}, 64),
    "preallocated": ({"kind": "preallocated", "scheduler": "static"}, 96),
    "contiguous-max": ({"kind": "contiguous", "reserve": "max", "placement": "buddy"}, 96),
    "contiguous-pow2": ({"kind": "contiguous", "reserve": "pow2", "placement": "best-fit"}, 96),
    "contiguous-oracle": ({"kind": "contiguous", "reserve": "oracle", "placement": "first-fit"}, 96),
    "virtual": ({"kind": "virtual", "page_kib": 64}, 4096),
    "radix": ({"kind": "radix"}, 48),
    "paged": ({"kind": "paged", "block_size": 8}, 48),
}


@pytest.mark.parametrize("name", ALLOCATORS)
@pytest.mark.parametrize("samples", [1, 2])
def test_every_allocator_decodes_the_same_tokens(name: str, samples: int) -> None:
    allocator, kib = ALLOCATORS[name]
    ran = decode(workload("tiny-llama", allocator, kv_kib=kib, requests={"samples": samples}))
    assert ran.outcome.finished == 8
    assert ran.numerics().passed, ran.numerics().as_json()
    store = ran.runtime.store
    if store is not None:
        pool = ran.setup.cases[0].pool
        assert (store.num_blocks, store.pool_bytes) == (pool.num_blocks, pool.num_blocks * pool.block_bytes)


class Paced(Executor):
    """Decodes for real, at a pace drawn beforehand."""

    def __init__(self, executor: Executor, seed: int) -> None:
        self.executor = executor
        self.rng = np.random.default_rng(seed)

    def run(self, plan: Plan, serving: Serving) -> int:
        self.executor.run(plan, serving)
        return int(self.rng.integers(1_000_000, 40_000_000))


@pytest.mark.parametrize("scheduler", ["vllm-v1", "vllm-v0", "orca"])
@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_whatever_the_pace_tokens_are_right(scheduler: str, preemption: str) -> None:
    options = {"kind": "paged", "block_size": 4, "prefix_cache": True, "host_blocks": 500}
    requests = {
        "count": 16,
        "samples": 2,
        "arrivals": {"kind": "fixed", "rate": 100},
        "shared": [{"tokens": 12, "pool": 2}],
    }
    engine = {"scheduler": scheduler, "preemption": preemption, "max_num_seqs": 24}
    work = workload("tiny-llama", options, kv_kib=72, requests=requests, engine=engine)
    decoder = reference = None
    for seed in range(3):
        ran = decode(work, decoder=decoder, wrap=lambda executor, _, seed=seed: Paced(executor, seed))
        decoder = ran.decoder
        reference = reference or Reference(decoder)
        numerics = compare(reference, ran.recorder, ran.runtime.transcript, "fp32")
        assert numerics.passed, numerics.as_json()
        assert any(step.preempted for step in ran.recorded.steps)


def test_a_table_is_wrapped_not_copied() -> None:
    ran = decode(workload("tiny-llama", {"kind": "paged", "block_size": 4}))
    blocks = ran.allocator.table.blocks
    assert moved(blocks, CPU).data_ptr() == blocks.ctypes.data


def test_the_step_is_timed_in_nanoseconds() -> None:
    ran = decode(workload("tiny-llama", {"kind": "paged", "block_size": 4}))
    assert min(ran.recorded.durations) > 10_000
    assert ran.outcome.end_s >= sum(ran.recorded.durations) / 1e9


def test_a_replay_that_decides_otherwise_is_told_apart() -> None:
    work = workload(
        "tiny-llama", {"kind": "paged", "block_size": 4}, requests={"arrivals": {"kind": "fixed", "rate": 99}}
    )
    first = decode(work)
    steps = first.recorded.steps
    assert first_difference(steps, steps) is None
    assert first_difference(steps, steps[:-1]) == f"{len(steps)} steps against {len(steps) - 1}"
    other = [*steps[:3], steps[3]._replace(table=b"x"), *steps[4:]]
    difference = first_difference(steps, other)
    assert difference is not None
    assert difference.startswith("step 3: table ")


def pieces(*requests: list[tuple[int, int]], outputs: list[int]) -> Requests:
    """Make requests of 4 output tokens whose prompts are these pieces."""
    flat = [piece for pieces in requests for piece in pieces]
    offsets = np.cumsum([0, *(len(each) for each in requests)])
    ids, lengths = (np.array(column) for column in zip(*flat, strict=True))
    prompts = np.array([sum(length for _, length in each) for each in requests])
    return Requests(
        np.zeros(len(requests)),
        prompts,
        np.full(len(requests), 4),
        prefixes=Prefixes(ids, lengths, offsets, np.array(outputs)),
    )


def transcript_of(requests: Requests) -> Transcript:
    prefixes = requests.prefixes
    assert prefixes is not None
    return Transcript(requests, lambda i: Segments(prefixes.pieces(i), int(prefixes.outputs[i])), 1000, 0, CPU)


class Opened:
    """As much of a job as a transcript asks for."""

    def __init__(self, index: int) -> None:
        self.index = index


def test_equal_pieces_are_equal_tokens_wherever_they_stand() -> None:
    transcript = transcript_of(pieces([(7, 5), (1, 3)], [(2, 2), (7, 4)], outputs=[10, 11]))
    for index in range(2):
        transcript.open(Opened(index))
    one, other = transcript.sequence(0, 0), transcript.sequence(1, 0)
    assert one[:4] == other[2:6]
    assert len(set(one[:8] + other[:2])) > 5


def test_prompts_are_there_before_they_are_opened_but_for_what_is_yet_to_be_said() -> None:
    requests = pieces([(1, 3)], [(1, 3), (10, 4)], [(5, 2)], outputs=[10, 11, 12])
    transcript = transcript_of(requests)
    before = [transcript.sequence(index, 0) for index in range(3)]
    assert before[1] == [*before[0][:3], *[0] * 8]
    for index in range(3):
        transcript.open(Opened(index))
    opened = [transcript.sequence(index, 0) for index in range(3)]
    assert opened[0][:3] == opened[1][:3] == before[0][:3] != [0] * 3
    assert opened[2] == before[2] != [0] * 6


def test_a_later_prompt_repeats_what_was_said() -> None:
    transcript = transcript_of(pieces([(1, 3)], [(1, 3), (10, 4), (2, 2)], outputs=[10, 11]))
    transcript.open(Opened(0))
    transcript.say(np.array([3, 4, 5, 6]), torch.tensor([5, 6, 7, 8]))
    transcript.open(Opened(1))
    assert transcript.sequence(1, 0)[3:7] == [5, 6, 7, 8]
    assert not len(transcript.forced)


def test_what_was_said_stays_on_the_device_when_a_later_prompt_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = pieces([(1, 3)], [(2, 2), (10, 4), (1, 1), (10, 2)], outputs=[10, 11])
    requests = replace(requests, samples=np.array([1, 2]))
    transcript = transcript_of(requests)
    transcript.say(np.array([3, 4, 5, 6]), torch.tensor([5, 6, 7, 8]))
    before = [transcript.sequence(1, sample) for sample in range(2)]
    with monkeypatch.context() as patched:
        for read in ("cpu", "numpy", "tolist", "item"):
            patched.setattr(torch.Tensor, read, lambda *_: pytest.fail("the host reads it"))
        transcript.open(Opened(1))
    for sample in range(2):
        opened = transcript.sequence(1, sample)
        assert opened[:2] + opened[6:7] == before[sample][:2] + before[sample][6:7]
        assert opened[2:6] + opened[7:9] == [5, 6, 7, 8, 5, 6]


def test_what_a_later_prompt_needs_before_it_was_said_is_forced() -> None:
    transcript = transcript_of(pieces([(1, 3)], [(1, 3), (10, 3), (2, 2)], outputs=[10, 11]))
    transcript.open(Opened(0))
    transcript.say(np.array([3]), torch.tensor([5]))
    transcript.open(Opened(1))
    repeated = transcript.sequence(1, 0)[3:6]
    assert transcript.aim(np.array([4, 6])).tolist() == [transcript.spare, 6]
    transcript.say(np.array([4, 6]), torch.tensor([901, 902]))
    assert repeated[0] == 5
    assert transcript.sequence(0, 0)[3:] == [*repeated, 902]


def test_of_two_copies_to_one_block_the_later_counts() -> None:
    store = KVStore(resolve_model("tiny-llama"), 4, 2, torch.float32, CPU, host_blocks=2)
    for block in range(5):
        store.blocks[:, :, block] = block
    store.copy([(1, 3), (2, 3), (4, 1)])
    assert [float(store.blocks[0, 1, block].mean()) for block in range(5)] == [0, 4, 2, 2, 4]
    store.swap_out([(3, 1), (4, 2)])
    store.swap_in([(2, 2), (1, 4)])
    assert [float(store.blocks[1, 0, block].mean()) for block in range(5)] == [0, 4, 4, 2, 2]
