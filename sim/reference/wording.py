"""A step in the form that executors expect: a plan, and what is being served, in running order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.engine.jobs import Job
from sim.engine.plan import Chunk, Plan
from sim.engine.serving import Serving

if TYPE_CHECKING:
    from sim.reference.requests import Request
    from sim.reference.room import Room, Step


def as_plan(step: Step) -> Plan:
    """Word a step as the executor reads it: the first so many of the decoding sequences, and chunks."""
    decodes = sum(len(request.sequences) for request in step.work if request.decoding)
    chunks = [Chunk(as_job(each), each.computed, tokens) for each, tokens in step.work.items() if not each.decoding]
    plan = Plan(decodes, chunks, copied_tokens=step.copied_tokens)
    plan.admitted = [as_job(each) for each in step.admitted]
    plan.preempted = [as_job(each) for each in step.preempted]
    plan.moves, plan.swapped_blocks, plan.mappings = step.moves, step.swapped_blocks, step.mappings
    return plan


def as_serving(room: Room) -> Serving:
    """Word who runs as the executor reads it: who decodes, and who holds memory besides."""
    serving = Serving(room.allocator)
    for ticket, request in enumerate(room.running):
        job = as_job(request)
        job.ticket, job.rows = ticket, [sequence.row for sequence in request.sequences]
        if request in room.finished:
            serving.lingering.append(job)
        elif not request.decoding:
            serving.prefilling[ticket] = job
        else:
            for row in job.rows:
                serving.decoding.insert(job, row, int(room.allocator.table.slots[row]))
            serving.context += request.computed * len(job.rows)
    return serving


def as_job(request: Request) -> Job:
    """Word a request as the executor reads it."""
    job = Job(request.index, request.arrival, request.prompt, request.output, request.samples, request.content)
    job.computed, job.generated = request.computed, request.generated
    job.last_token = request.last_token
    return job
