"""How long a step takes: a roofline model of what the step computes and moves.

    t = step_overhead_s + sequence_overhead_s x sequences
      + (layer_overhead_s + prefill_layer_s if the step prefills) x layers
      + products + head + decode + prefill + all-reduce     (running the model)
      + copies + swaps + pages                              (moving memory: `sim.costs.moves`)

and all of it times step_factor, and times compute_factor if the step prefills and is bound by compute.  (Captured steps
are looked up instead: `sim.costs.captured`.)

F is the peak FLOP/s and B the memory bandwidth of one GPU, n the number of tokens computed, g the number of GPUs:

    products    matrix products: compute takes 2 n x weights / (F x compute_efficiency), and memory traffic
                (weight bytes + n x activation bytes) / (B x memory_efficiency).  The time is the longer of the two plus
                `overlap_loss` x the shorter.  Of a mixture of experts, only the experts that n tokens are expected
                to reach are read
    head        the same for the output matrix, for those sequences that need logits
    decode      attention of decodes: the longer of K/V bytes / (B x attention_memory_efficiency) and pairs x 4 x heads
                x head_dim / (F x attention_compute_efficiency), times 1 + paged_attention_overhead +
                paged_block_overhead / block size.  If several of the sequences share a block, all but the first read
                a share `repeated_reads_cached` of it from the L2 cache (not in sliding windows)
    prefill     attention of prefills: the same formula for their query-key pairs and their context, without the
                paged overheads; latent attention also unpacks what was computed earlier
    naive       adds memory traffic of naive_passes x scores x bytes, and computes the whole square of scores
    all-reduce  two per layer: allreduce_latency_s, and 2 (g - 1) / g x n x hidden x bytes / (link x link_efficiency)
    recurrent   layers read and write their state once per sequence; their scan is not counted otherwise
    captured    where a calibration has it, a step of a captured shape takes the time that was measured
                (`sim.costs.captured`), corrected as above where decodes read blocks of another size, and for chunks
                that are fewer, or split otherwise (`sim.costs.splitting`), than those measured; only attention of
                chunks to what comes before them, moves and waiting are added
    power       where a step prefills and is bound by compute, all of the above takes up to power_throttle longer once
                such steps, those before included as far as they count (power_constant_s), have lasted
                power_reserve_s: the device draws more power than its limit, and its clock falls (`sim.costs.heat`).
                Any other step takes up to power_slowdown longer behind them
    host        a captured step that prefills waits for as much of prefill_host_s as the step before it does not hide.
                None does if it was launched kernel by kernel, as the host waits for its end, or if no step ran just
                before; then steps of decodes wait for prefill_host_s as well (`CostModel.unhidden_ns`)
    launches    a step that prefills more than captured_tokens begins later by launch_lead_s, or prefill_host_s if that
                is longer, as far as the step before does not hide it in the same way.  It takes at least
                step_overhead_s + launch_layer_s x layers, and launch_beside_layer_s x layers if some decode, not
                counting moves, less as much of the step before.  Where tensors grow, any step takes at least
                step_overhead_s + (separate_launch_layer_s + sequence_launch_layer_s x sequences) x layers, copies
                included, as the device copies meanwhile; where nothing is cached, step_overhead_s +
                recompute_launch_layer_s x layers, and recompute_slowdown takes the place of power_throttle, from the
                beginning

The same formula serves a single step and a leap of many: the same floating-point operations in the same order, on
numbers or on arrays, so both give the same nanoseconds to the last bit.  (A term that is absent may be skipped,
because adding 0.0 changes nothing.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sim.costs.attention import Attention
from sim.costs.coefficients import Coefficients
from sim.costs.heat import Heat, Throttling
from sim.costs.host import Host
from sim.costs.load import Load, Route
from sim.costs.moves import LARGE_PAGE, Moves
from sim.costs.products import Products
from sim.costs.replay import Replay

if TYPE_CHECKING:
    import numpy.typing as npt

    from sim.costs.captured import CapturedSteps
    from sim.costs.splitting import Splitting
    from sim.devices import Device
    from sim.models.geometry import Geometry

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

USUAL_BLOCK = 16
"""Token slots per block in vLLM by default."""


class CostModel:
    """Step times of one geometry on one device."""

    def __init__(
        self,
        geometry: Geometry,
        device: Device,
        coefficients: Coefficients | None = None,
        *,
        attention: Literal["flash", "naive"] = "flash",
        paged: bool = True,
        route: Route = "blocks",
        block_size: int = USUAL_BLOCK,
        page_bytes: int = LARGE_PAGE,
        captured: CapturedSteps | None = None,
    ) -> None:
        """Turn sizes, rates and coefficients into seconds for each unit of load.

        Args:
            geometry: the model, as split over GPUs.
            device: one of those GPUs.
            coefficients: None for the defaults.
            attention: `naive` stores the scores in device memory, `flash` does not.
            paged: whether decode attention reads through a block table (`paged_attention_overhead` applies).
            route: where attention finds K/V; unless that is in blocks, every step is launched kernel by kernel.
            block_size: token slots per block.
            page_bytes: size of the physical pages that are mapped on demand, if any are.
            captured: measured times of captured steps; None to use the roofline for all steps.

        """
        self.geometry, self.device, self.attention = geometry, device, attention
        self.coefficients = c = coefficients or Coefficients()
        self._products = Products(geometry, device, c)
        self._separate = separate = route != "blocks"
        self._host = Host(geometry.layers, c, route)
        self._captured = c.captured_tokens
        self._power = Throttling(c, route)
        slower = 1 + (c.paged_attention_overhead + c.paged_block_overhead / block_size) * paged
        self._attention = Attention(geometry, device, c, naive=attention == "naive", slower=slower)
        usual = 1 + c.paged_attention_overhead + c.paged_block_overhead / USUAL_BLOCK  # which was measured
        cached = c.repeated_reads_cached
        self._replay = (
            None if captured is None else Replay(captured, self._attention, slower=slower / usual, cached=cached)
        )
        self._second = 1e9 * c.step_factor
        """Nanoseconds that a step takes for each second of the formula."""
        self._uneven = c.compute_factor - 1
        """Share by which other steps than replayed ones take longer besides if they are bound by compute."""
        self.moves = Moves(geometry, device, c, page_bytes, copies=not separate)
        """The cost of moving memory, which is added."""

    @property
    def throttles(self) -> bool:
        """Whether step times depend on `Load.heat_ns`."""
        return self._power.counts

    def heat(self) -> Heat:
        """Return a `Heat` at rest, which keeps track of `Load.heat_ns` during a run."""
        return self._power.heat()

    def computes(self, load: Load) -> Any:
        """Whether a step prefills and is bound by compute."""
        return (load.prefill_tokens > 0) * (load.prefill_tokens + load.decode_seqs >= self._products.bound)

    def heats(self, load: Load) -> Any:
        """Whether a step draws so much power that the clock may fall: if what it prefills is bound by compute alone.

        What decodes beside it draw is in the times of captured steps.
        """
        return (load.prefill_tokens > 0) * (load.prefill_tokens >= self._products.bound)

    def launches(self, load: Load) -> bool:
        """Whether a step of a paged cache is launched kernel by kernel; the host waits for its end."""
        if self._replay is None or not load.prefill_tokens:
            return bool(load.prefill_tokens > self._captured)
        return self._replay.steps.launches(load.decode_seqs, load.prefill_tokens, load.prefill_seqs)

    @property
    def hosted(self) -> bool:
        """Whether what the host does for a step makes a difference."""
        return self._host.work_s > 0

    def unhidden_ns(self, load: Load) -> int:
        """Return the nanoseconds more that a step takes if no step before hides what the host does for it."""
        return 0 if load.prefill_tokens else round(self._host.work_s * 1e9)  # where it prefills, its time has them

    @property
    def splitting(self) -> Splitting | None:
        """The rule that `Load.prefill_merged` is counted by, if it makes a difference."""
        return None if self._replay is None else self._replay.steps.splitting

    @property
    def spreads(self) -> bool:
        """Whether `Load.decode_longest` makes a difference."""
        return self._replay is not None and self._replay.steps.spreads

    @property
    def spares(self) -> bool:
        """Whether step times depend on `Load.decode_repeated`."""
        return self._attention.spares

    def step_ns(self, load: Load) -> int:
        """Return the nanoseconds that one step takes."""
        replayed = None if self._replay is None else self._replayed(self._replay, load)
        seconds = self._roofline(load) if replayed is None else replayed
        if self._uneven and replayed is None:  # what is replayed was told for itself (`sim.costs.captured.on_machine`)
            seconds *= 1 + self.computes(load) * self._uneven
        if load.copied_tokens or load.swapped_bytes or load.transfers or load.mapped_pages or load.unmapped_pages:
            seconds += self.moves.seconds(load, max)
        nanoseconds: int = round(seconds * self._second)
        return nanoseconds

    def leap_ns(self, load: Load, **changing: Ints | Floats) -> Ints:
        """Return int64[n]: the nanoseconds of each of several steps, each equal to its `step_ns`.

        Args:
            load: the fields that are the same in all steps.
            changing: int64[n] for each other field.

        """
        if changing:
            load = load._replace(**changing)
        if self._replay is not None:
            fields = np.broadcast_arrays(*load)
            each = zip(*(field.ravel().tolist() for field in fields), strict=True)
            return np.array([self.step_ns(Load(*values)) for values in each], np.int64).reshape(fields[0].shape)
        seconds = self._products.seconds_each(load) + self._attention.decode(load, np.maximum)
        if not _absent(load.prefill_tokens):
            seconds = seconds + self._attention.prefill(load, np.maximum)
        if self._power.matters:
            seconds = seconds + self._power.lost(self.heats(load), load.heat_ns, seconds, np.maximum)
        if self._separate:
            seconds = np.maximum(seconds + load.copied_tokens * self.moves.copy_s, self._host.floor(load))
        elif not _absent(load.prefill_tokens):
            launched = np.greater(load.prefill_tokens, self._captured)
            replayed = np.logical_not(launched) & np.greater(load.prefill_tokens, 0)
            seconds = seconds + launched * self._host.lead(load, np.maximum)
            seconds = np.maximum(seconds, launched * self._host.floor(load))
            seconds = seconds + replayed * self._host.unhidden(load, np.maximum)
        if self._uneven:
            seconds = seconds * (1 + self.computes(load) * self._uneven)
        moves = load.copied_tokens, load.swapped_bytes, load.transfers, load.mapped_pages, load.unmapped_pages
        if not all(map(_absent, moves)):
            seconds = seconds + self.moves.seconds(load, np.maximum)
        steps: Ints = np.rint(seconds * self._second).astype(np.int64)
        return steps

    def decode_ns(
        self, seqs: int, contexts: Floats, repeated: int = 0, *, longest: Ints | None = None, copied: bool = False
    ) -> Ints:
        """Nanoseconds of each of several pure decode steps of `seqs` sequences, `contexts[i]` K/V tokens in step i.

        (`contexts` are whole numbers, as floats.)  In each step `repeated` of the tokens are read again, the longest
        sequence has `longest[i]` of them (None where that does not matter: see `spreads`), and if `copied` all but the
        newest are copied first.  Equal to `leap_ns`: of two products with the same number, the
        one with the larger factor is larger, rounded or not.
        """
        if self._attention.windowed:
            load = Load(decode_seqs=seqs, samples=seqs, decode_repeated=repeated)
            return self.leap_ns(load, decode_context=contexts, copied_tokens=copied * (contexts - seqs))
        seconds = None if self._replay is None else self._replay.decodes(seqs, contexts, repeated, longest)
        if seconds is None:
            if repeated:
                seconds = self._attention.decode(Load(decode_context=contexts, decode_repeated=repeated), np.maximum)
            else:
                seconds = contexts * self._attention.token_s
            seconds += self._products.alone(seqs)
        if copied:
            seconds += (contexts - seqs) * self.moves.copy_s
        if self._separate:  # and so not captured
            seconds = np.maximum(seconds, self._host.floor(Load(decode_seqs=seqs)))
        seconds *= self._second
        steps: Ints = np.rint(seconds, out=seconds).astype(np.int64)
        return steps

    def attention_s(self, load: Load) -> float:
        """Return the seconds of a step that attention takes, over all layers."""
        return float(self._attention.decode(load, max) + self._attention.prefill(load, max))

    def explain(self) -> list[tuple[str, str]]:
        """List all assumptions as (what, how much) rows: the model, the device, every coefficient."""
        attention = ("attention kernel", self.attention)
        return [*self.geometry.explain(), *self.device.explain(), attention, *self.coefficients.explain()]

    def _roofline(self, load: Load) -> float:
        """Seconds of a step by the roofline, without moves of memory."""
        seconds: float
        if load.prefill_tokens or load.prefill_seqs or load.samples != load.decode_seqs:
            seconds = self._products.seconds(load)
        else:
            seconds = self._products.alone(load.decode_seqs)
        if load.decode_seqs:
            seconds += self._attention.decode(load, max)
        if load.prefill_tokens:
            seconds += self._attention.prefill(load, max)
        if self._power.matters:
            seconds += self._power.lost(self.heats(load), load.heat_ns, seconds, max)
        if self._separate:
            seconds = max(seconds + load.copied_tokens * self.moves.copy_s, self._host.floor(load))
        elif self.launches(load):
            seconds = max(seconds + self._host.lead(load, max), self._host.floor(load))
        elif load.prefill_tokens:
            seconds += self._host.unhidden(load, max)
        return seconds

    def _replayed(self, replay: Replay, load: Load) -> float | None:
        """Seconds of a captured step, without moves of memory; None if the step is not captured."""
        seconds = replay.seconds(load)
        if seconds is None:
            return None
        if load.heat_ns or (self._power.matters and load.prefill_tokens):
            seconds += self._power.lost(self.heats(load), load.heat_ns, seconds, max)
        if load.prefill_tokens:
            seconds += self._host.unhidden(load, max)
        return seconds


def _absent(amount: Any) -> bool:
    """Whether an amount is 0 in all steps."""
    return isinstance(amount, int) and not amount
