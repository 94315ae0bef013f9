"""Intake: an arriving request becomes a job, or is refused immediately because it could never run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocators.answers import MISS, Ask, Reason
from sim.engine.jobs import Job

if TYPE_CHECKING:
    from allocators.base import Allocator
    from allocators.content import Content
    from sim.engine.scheduler import Scheduler
    from workloads.requests import Requests


def job_of(requests: Requests, index: int, arrival: int, content: Content) -> Job:
    """Make the job of request `index`, which comes at `arrival` nanoseconds."""
    samples = requests.samples.item(index) if len(requests.samples) else 1
    prompt, output = requests.prompt_tokens.item(index), requests.output_tokens.item(index)
    return Job(index, arrival, prompt, output, samples, content)


def never_runs(job: Job, scheduler: Scheduler, allocator: Allocator) -> str:
    """Return why a job can never run, or an empty string; cut its output to the model's context."""
    limits = scheduler.limits
    budget = limits.max_num_batched_tokens if scheduler.has_budget else float("inf")
    if job.prompt >= limits.max_model_len:
        return Reason.LENGTH.value
    if not limits.chunked_prefill and job.prompt > budget:
        return "longer than a step's token budget"
    if job.samples > limits.max_num_seqs:
        return "more samples than seats"
    if job.samples > budget:
        return "more samples than a step's token budget"
    if job.prompt + job.output > limits.max_model_len:
        job.output = limits.max_model_len - job.prompt
        job.reason = "output cut at the model's context"
    output = job.output if allocator.oracle else None
    ask = Ask(job.content, job.prompt, job.prompt, MISS, 0, 0, output, job.samples)
    refusal = allocator.never(ask, job.final)
    return refusal.reason.value if refusal else ""
