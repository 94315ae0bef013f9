"""The four schedulers, written from their descriptions.

Each decides one step: which requests decode, which prefill how much, which are admitted and which are
preempted.  The samples of a request stay together.  The queue is first come, first served: its head is
never overtaken, and nothing is admitted in a step that preempts a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sim.reference.room import Step

if TYPE_CHECKING:
    from allocators.answers import Refusal
    from sim.limits import Limits
    from sim.reference.requests import Request
    from sim.reference.room import Room


class Policy(Protocol):
    """Decides steps."""

    def plan(self, room: Room) -> Step:
        """Decide one step; memory is taken and given back at once."""


def watermark(limits: Limits, room: Room) -> int:
    """Blocks that admission leaves free: a share of the pool, its null block counted; none if nothing runs."""
    return int(limits.watermark * (room.allocator.num_blocks + 1)) if room.running else 0


def headroom(limits: Limits, room: Room, request: Request) -> int:
    """Blocks that coming back leaves free: the watermark, and one for the next token of each sample."""
    return watermark(limits, room) + request.samples if room.running else 0


def decode_all(room: Room, step: Step) -> None:
    """Let every decoding request advance by a token, in running order."""
    for request in room.active:
        if request.decoding and request in room.running and room.grow_or_preempt(step, request, 1):
            step.work[request] = 1


def go_on(room: Room, step: Step, request: Request, tokens: int) -> bool:
    """Let a request that just came back compute in this very step, if there is room; else it does in the next."""
    for sequence in request.sequences:
        if room.grow(step, request, sequence, tokens) is not None:
            return False
    step.work[request] = tokens
    return True


class Orca:
    """Every step runs all that are in; requests join with their whole prompt and leave one by one."""

    def __init__(self, limits: Limits) -> None:
        """Decide within `limits`."""
        self.limits = limits

    def plan(self, room: Room) -> Step:
        """Decode; then let in while seats and memory last."""
        step = Step()
        decode_all(room, step)
        self.let_in(room, step)
        return step

    def let_in(self, room: Room, step: Step) -> None:
        """Admit whole prompts, or bring back from the host who goes on in this step."""
        while room.waiting and not step.preempted:
            head = room.waiting[0]
            if room.seats + head.samples > self.limits.max_num_seqs:
                return step.block("seats")
            refusal: Refusal | None
            if head.swapped:
                refusal = room.restore(step, headroom(self.limits, room, head))
                if refusal is None:
                    go_on(room, step, head, 1)
            else:
                hit = room.allocator.lookup(head.content, head.known)
                spare = watermark(self.limits, room)
                refusal = room.admit(step, head.known - hit.tokens, hit, spare=spare)
            if refusal is not None:
                return step.block("memory", refusal)
        return None


class Static(Orca):
    """A batch is let in only when the one before has ended; its early finishers keep their memory until then."""

    def plan(self, room: Room) -> Step:
        """Continue the batch, or take a new one; requests in the queue wait until it has ended."""
        step = Step()
        if room.running:
            decode_all(room, step)
        else:
            self.let_in(room, step)
        if room.waiting and not step.preempted and step.work:
            step.block("order")
        return step


class VllmV0:
    """Prompts first: a step is either whole prompts from the queue, or one token of everybody."""

    def __init__(self, limits: Limits) -> None:
        """Decide within `limits`."""
        self.limits = limits

    def plan(self, room: Room) -> Step:
        """Prefill if the queue moves, else decode, and then bring back from the host."""
        step = Step()
        self._prefill(room, step)
        if not step.work:
            decode_all(room, step)
            if step.preempted:
                step.block("")
            self._bring_back(room, step)
        return step

    def _prefill(self, room: Room, step: Step) -> None:
        budget = self.limits.max_num_batched_tokens
        while room.waiting:
            head = room.waiting[0]
            if head.swapped:  # it comes back before anybody else is let in
                return step.block("order")
            if room.seats + head.samples > self.limits.max_num_seqs:
                return step.block("seats")
            hit = room.allocator.lookup(head.content, head.known)
            tokens = head.known - hit.tokens
            if tokens > budget and step.work:  # the first may exceed it: what was preempted may have grown beyond
                return step.block("budget")
            refusal = room.admit(step, tokens, hit, spare=watermark(self.limits, room))
            if refusal is not None:
                return step.block("memory", refusal)
            budget -= tokens
        return None

    def _bring_back(self, room: Room, step: Step) -> None:
        while room.waiting and room.waiting[0].swapped and not step.preempted:
            head = room.waiting[0]
            if room.seats + head.samples > self.limits.max_num_seqs:
                return step.block("seats")
            refusal = room.restore(step, headroom(self.limits, room, head))
            if refusal is not None:
                return step.block("memory", refusal)
            step.block("")
            go_on(room, step, head, 1)
        return None


class VllmV1:
    """A budget of tokens a step; running requests first, in order, then the queue; prompts in chunks."""

    def __init__(self, limits: Limits) -> None:
        """Decide within `limits`."""
        self.limits = limits

    def plan(self, room: Room) -> Step:
        """Spend the budget."""
        step = Step()
        budget = self._run_on(room, step, self.limits.max_num_batched_tokens)
        self._let_in(room, step, budget)
        return step

    def _run_on(self, room: Room, step: Step, budget: int) -> int:
        """Give each running request what it has still to compute, as far as budget and memory go."""
        for request in list(room.running):
            if request not in room.running:  # preempted, and with it all that came after
                break
            tokens = self._wants(room, request, budget)
            cost = tokens * request.samples if request.decoding else tokens
            if tokens == 0 or cost > budget:
                return 0
            if not room.grow_or_preempt(step, request, tokens):
                break
            step.work[request] = tokens
            budget -= cost
        return budget

    def _wants(self, room: Room, request: Request, budget: int) -> int:
        """Tokens a running request would compute of each sequence."""
        if request.decoding:
            return 1
        return min(request.known - request.computed, self._cap(room, request), budget)

    def _cap(self, room: Room, request: Request) -> int:
        """Most tokens of one prompt a step; one that is alone has no cap."""
        cap = self.limits.long_prefill_token_threshold
        alone = len(room.running) + len(room.waiting) == 1
        return cap if cap and not alone else request.known

    def _let_in(self, room: Room, step: Step, budget: int) -> None:
        limits = self.limits
        while room.waiting and not step.preempted:
            head = room.waiting[0]
            if room.seats + head.samples > limits.max_num_seqs:
                return step.block("seats")
            if budget <= 0:
                return step.block("budget")
            if head.swapped:
                refusal = room.restore(step, headroom(limits, room, head))
                if refusal is not None:
                    return step.block("memory", refusal)
                tokens = self._wants(room, head, budget)
                if go_on(room, step, head, tokens):
                    budget -= tokens * head.samples if head.decoding else tokens
                continue
            hit = room.allocator.lookup(head.content, head.known)
            tokens = min(head.known - hit.tokens, self._cap(room, head))
            if limits.chunked_prefill:
                tokens = min(tokens, budget)
            elif tokens > budget and step.work:  # the first may exceed it: what was preempted may have grown beyond
                return step.block("budget")
            whole = head.known if limits.full_prompt_gate else 0
            refusal = room.admit(step, tokens, hit, whole=whole, spare=watermark(limits, room))
            if refusal is not None:
                return step.block("memory", refusal)
            budget -= tokens
        return None


POLICIES: dict[str, type[Orca | VllmV0 | VllmV1]] = {
    "static": Static,
    "orca": Orca,
    "vllm-v0": VllmV0,
    "vllm-v1": VllmV1,
}
