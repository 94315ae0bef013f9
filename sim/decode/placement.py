"""Where the tensors of growing sequences would lie: the simulated side of `sim.decode.contiguous.Growing`.

The allocator `growing` counts its tensors as the scheduler plans; when they are really created and
dropped depends on the step: first sequences that ended or were preempted go, then forks are copied,
then a forward pass replaces tensors layer by layer, within each layer sequence by sequence.  As blocks
split and join, this order decides which segments are needed.  So a simulation that is compared with a
real run has its plans placed here, in that order, by the same model of PyTorch's caching allocator.
The pool's size does not limit PyTorch, which takes what the device has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocators.tensors import PlacedTensors
from sim.engine.executor import Executor

if TYPE_CHECKING:
    from sim.case import Case
    from sim.engine.plan import Plan
    from sim.engine.serving import Serving
    from sim.setup import Setup


class Placing(Executor):
    """Runs plans on another executor after placing their tensors."""

    def __init__(self, executor: Executor, setup: Setup, case: Case) -> None:
        """Place what `executor` is asked to run of one case."""
        self._executor = executor
        self._most = setup.workload.engine.max_num_seqs
        self._tensors = PlacedTensors(
            int(case.facts["kv_tensors"] or 0),
            int(case.facts["tensor_token_bytes"] or 0),
            setup.device.memory_bytes,
            expandable_segments=bool(case.spec.options.get("expandable_segments", False)),
        )

    @property
    def peaks(self) -> dict[str, int]:
        """Largest sums of bytes in tensors, and of bytes in segments."""
        device = self._tensors.device
        return {"peak_allocated": device.peak_allocated, "peak_reserved": device.peak_reserved}

    def run(self, plan: Plan, serving: Serving) -> int:
        """Place the tensors of a step, then run it."""
        tensors, decoding = self._tensors, serving.decoding
        alive = {self._name(job.index, sample) for job in serving.running.values() for sample in range(len(job.rows))}
        alive -= {self._name(job.index, sample) for job in plan.preempted for sample in range(job.samples)}
        for name in sorted(tensors.rows - alive):
            tensors.drop(name)
        names, targets = [], []
        lengths = decoding.column(decoding.LENGTH)[: plan.decodes].tolist()
        rows = decoding.column(decoding.ROW)[: plan.decodes].tolist()
        for job, row, length in zip(decoding.owners[: plan.decodes], rows, lengths, strict=True):
            name = self._name(job.index, list(job.rows).index(row))
            if name not in tensors.rows:
                tensors.add(name, length)
            names.append(name)
            targets.append(length + 1)
        names += [self._name(chunk.job.index, 0) for chunk in plan.chunks]
        targets += [chunk.start + chunk.tokens for chunk in plan.chunks]
        tensors.concatenate(names, targets)
        return self._executor.run(plan, serving)

    def _name(self, request: int, sample: int) -> int:
        return request * self._most + sample
