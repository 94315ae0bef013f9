"""Sequences that are tensors of their own, step by step: what each holds, and what is copied when it grows.

No block table lists such tensors, so no block map of them is recorded.  But a tensor that is replaced
at every step is as long as its sequence, and that follows from the recorded steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from analysis.observed import Columns
from analysis.page.frames import wish

SOON = 1e-9


class Tensor(NamedTuple):
    """One sequence while a step runs."""

    request: int
    tokens: int
    """Of its tensors once the step has run."""
    copied: int
    """Tokens copied from its tensors of the step before, which are freed then; 0 if it had none."""


class Step(NamedTuple):
    """One step."""

    row: int
    """Of steps.parquet."""
    tensors: list[Tensor]
    states: dict[int, str]
    """running, waiting or finished, by request that has arrived."""
    said: list[str]
    """What happens in it."""


def tensor_steps(requests: Columns, steps: Columns) -> Iterator[Step]:
    """Tell what runs in each step, of a run in which nobody is preempted and a request is one sequence.

    Args:
        requests: columns of requests.parquet, row i being request i.
        steps: columns of steps.parquet.

    """
    grown = np.zeros(len(requests["request_id"]), np.int64)
    before: dict[int, str] = {}
    for row, start in enumerate(np.asarray(steps["start_s"]).tolist()):
        states = dict(_states(requests, start))
        tensors = []
        for request in (request for request, state in states.items() if state == "running"):
            prompt = int(requests["prompt_tokens"][request])
            had = prompt + int(grown[request]) if requests["first_token_s"][request] <= start + SOON else 0
            tensors.append(Tensor(request, had + 1 if had else prompt, had))
            grown[request] += bool(had)
        yield Step(row, tensors, states, list(_story(before, states, tensors, requests)))
        before = states


def _states(requests: Columns, start: float) -> Iterator[tuple[int, str]]:
    for request, arrival in enumerate(np.asarray(requests["arrival_s"]).tolist()):
        if arrival > start + SOON:
            return
        if requests["finish_s"][request] <= start + SOON:
            yield request, "finished"
        else:
            yield request, "running" if requests["scheduled_s"][request] <= start + SOON else "waiting"


def _story(before: dict[int, str], states: dict[int, str], tensors: list[Tensor], requests: Columns) -> Iterator[str]:
    for request, state in states.items():
        if state == "finished" and before.get(request) == "running":
            yield f"Request {request} is done; its tensors are freed."
    for tensor in tensors:
        if not tensor.copied:
            yield f"Request {tensor.request} ({wish(requests, tensor.request)}) gets tensors of {tensor.tokens} tokens."
    growing = [tensor for tensor in tensors if tensor.copied]
    if growing:
        copied, new = sum(tensor.copied for tensor in growing), len(growing)
        yield f"To write {new} new token{'' if new == 1 else 's'}, {copied} old ones are copied into longer tensors."
    for request, state in states.items():
        if state == "waiting" and before.get(request) != "waiting":
            yield f"Request {request} waits: its tensors, and a copy of the largest, do not fit."
