"""Replays vLLM's V1 scheduler, step by step: the same requests through the engine that `run` uses.

The recording numbers its steps; here a step lasts one tick of the clock, so that requests arrive before
the same step as in the recording.  What the engine plans, holds and finishes in each step is compared with
the recording field by field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from allocators.content import Content, Tokens
from allocators.paged import PagedAllocator
from sim.engine.executor import Executor
from sim.engine.loop import Engine
from sim.limits import Limits
from sim.replay.recording import Difference, Replay, Report
from sim.schedulers import VllmV1
from workloads.requests import Requests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sim.engine.plan import Plan
    from sim.engine.serving import Serving

TICK = 1_000_000_000
"""Nanoseconds a step: arrivals are given in seconds."""


class ScheduleReplay(Replay):
    """Steps of a Scheduler against `sim.schedulers.VllmV1`."""

    def run(self) -> Report:
        """Replay all requests at once and compare every step.

        Raises:
            UserError: a line lacks what it must have.

        """
        path, config = str(self.recording.path), {"config": self.recording.config}
        with self.recording.faults():
            numbered = [(1, config), *((self.recording.line, line) for line in self.recording)]
        with self.recording.faults():
            differences = list(differences_of([line for _, line in numbered]))
        self.report.ops = sum("step" in line for _, line in numbered)
        self.report.differences = [
            Difference(path, numbered[place - 1][0], "step", field, recorded, ours)
            for place, field, recorded, ours in differences
        ]
        return self.report


class _OneTick(Executor):
    """An executor for which every step lasts one tick and nothing can be foreseen."""

    def run(self, plan: Plan, serving: Serving) -> int:
        return TICK


class _Nothing:
    """A sink that keeps nothing."""

    def write(self, table: str, columns: Mapping[str, object]) -> None:
        return None


class _Watched(Engine):
    """An engine that notes what a recorded step notes."""

    names: Sequence[str]
    seen: dict[int, dict[str, Any]]

    def _start(self, plan: Plan) -> int:
        serving, table = self.serving, self.serving.allocator.table
        decoding = serving.decoding
        computed = dict(zip((job.index for job in decoding.owners), decoding.column(decoding.LENGTH), strict=True))
        scheduled = {job.ticket: (job, 1) for job in decoding.owners[: plan.decodes]}
        scheduled |= {chunk.job.ticket: (chunk.job, chunk.tokens) for chunk in plan.chunks}
        # Running requests come first, in running order; tickets are given in that order.
        jobs = [scheduled[ticket] for ticket in sorted(scheduled)]
        self.seen[self.now // TICK] = {
            "sched": {self.names[job.index]: tokens for job, tokens in jobs},
            "preempted": sorted(self.names[job.index] for job in plan.preempted),
            "new": [
                self.names[job.index]
                for again in (False, True)
                for job in plan.admitted
                if (job.preemptions > 0) is again
            ],
            "computed_before": {self.names[job.index]: int(computed.get(job.index, job.computed)) for job, _ in jobs},
            "blocks": {self.names[job.index]: table.row(job.rows[0]).tolist() for job, _ in jobs},
            "free": self._free(),
            "finished": [],
        }
        return super()._start(plan)

    def _book(self, plan: Plan) -> None:
        start = self.now - TICK
        step = self.seen[start // TICK]
        before = dict.fromkeys(job.index for job in self.serving.running.values())
        super()._book(plan)
        after = {job.index for job in self.serving.running.values()}
        step["finished"] = [self.names[index] for index in before if index not in after]
        step["free_after"] = self._free()
        step["running"] = [self.names[job.index] for job in self.serving.running.values()]
        step["waiting"] = [self.names[job.index] for job in self.serving.waiting if job.arrival <= start]

    def _free(self) -> int:
        """Blocks in the free queue, evictable ones included."""
        usage = self.serving.allocator.usage()
        return (self.serving.allocator.capacity - usage.held) // self.serving.allocator.block_size


def differences_of(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str, object, object]]:
    """Run a recorded schedule and yield (line, field, recorded, ours) for every difference.

    vLLM keeps the preempted ids of a step as a set, and names resumed requests behind the new ones or apart from
    them, depending on its model runner; both are compared as one.

    Args:
        lines: the parsed lines of a `sched_*` recording; line numbers count from 1.

    """
    config = lines[0]["config"]
    asked = sorted((line["req"] for line in lines[1:] if "req" in line), key=lambda each: int(each["arrival"]))
    names = [str(each["id"]) for each in asked]
    longest = max(len(each["prompt_token_ids"]) + len(each["output_token_ids"]) for each in asked)
    max_model_len = max(int(config.get("max_model_len", 0)), longest + 1)

    def content(index: int) -> Content:
        return Tokens([*asked[index]["prompt_token_ids"], *asked[index]["output_token_ids"]])

    engine = _Watched(
        Requests(
            np.array([float(each["arrival"]) for each in asked]),
            np.array([len(each["prompt_token_ids"]) for each in asked]),
            np.array([len(each["output_token_ids"]) for each in asked]),
        ),
        content,
        PagedAllocator(
            int(config["num_blocks"]) - 1,
            int(config["block_size"]),
            max_model_len,
            int(config["max_num_seqs"]),
            prefix_cache=bool(config["caching"]),
        ),
        VllmV1(
            Limits(
                max_num_seqs=int(config["max_num_seqs"]),
                max_num_batched_tokens=int(config["max_num_batched_tokens"]),
                max_model_len=max_model_len,
                chunked_prefill=bool(config.get("chunked", True)),
                long_prefill_token_threshold=int(config.get("long_prefill_token_threshold", 0)),
                full_prompt_gate=bool(config.get("reserve_full_isl", True)),
                watermark=float(config.get("watermark", 0.0)),
            )
        ),
        _OneTick(),
        _Nothing(),
        instants=0,
        leaps=False,
    )
    engine.names, engine.seen = names, {}
    engine.run()
    idle: dict[str, Any] = {
        "sched": {},
        "preempted": [],
        "new": [],
        "computed_before": {},
        "blocks": {},
        "finished": [],
    }
    for number, line in enumerate(lines, 1):
        if "step" in line:
            ours = engine.seen.get(int(line["step"]), idle)
            noted = dict(line) | {"preempted": sorted(line["preempted"]), "new": [*line["new"], *line["resumed"]]}
            for field, recorded in noted.items():
                if field in ours and (ours[field] != recorded or _order(ours[field]) != _order(recorded)):
                    yield number, field, recorded, ours[field]


def _order(value: object) -> list[object]:
    """Order in which a mapping or a list names things: it is part of the answer."""
    return list(value) if isinstance(value, (dict, list)) else []
