"""The requests of a workload: drawn at random, read from a trace, or both of it mixed.

Drawing lays out units (requests, sessions, trees) one after the other, starts each at its
arrival, and sorts all requests by time.  Every purpose has its own random stream, and so has every part of a mix.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from workloads.arrivals import Batch, Closed, Process
from workloads.errors import NoArrivalError, WorkloadError
from workloads.lengths import tokens
from workloads.mix import merge
from workloads.read_once import Traces
from workloads.replies import Replies
from workloads.requests import LATEST_S, MOST, MOST_SAMPLES, Requests
from workloads.sessions import Turns
from workloads.source import NOMINAL_TOKEN_S, Generated, Mix
from workloads.streams import stream
from workloads.trace import Trace
from workloads.units import Scene, Single, Units

if TYPE_CHECKING:
    from workloads.requests import Floats, Ints
    from workloads.schema import Workload
    from workloads.trees import Tree
    from workloads.units import Streams


SELDOM = 0.01
"""Requests that a part of a mix may expect at least: if it has none by chance, that is no mistake in the file."""


def requests(
    workload: Workload, repeat: int = 0, max_model_len: int | None = None, traces: Traces | None = None
) -> Requests:
    """Make the requests of replication `repeat`; the same workload and repeat give the same requests.

    A replayed trace is the same in every replication, except for random choices that the workload asks for, and for
    whose share it is of engines that take turns (`one_in`).

    Args:
        workload: as loaded.
        repeat: number of the replication, from 0.
        max_model_len: the model's context in tokens, used if the workload does not set `engine.max_model_len`.
        traces: where traces are read that other runs replay, too.

    Raises:
        WorkloadError: a data file or trace is bad, no request arrives until the run ends, or one does after `LATEST_S`.

    """
    source, longest = workload.requests, workload.engine.max_model_len or max_model_len
    traces = traces or Traces()
    if isinstance(source, Mix):
        made = _mixed(source, workload.seed, repeat, longest, traces)
    else:
        made = _made(source, partial(_stream, workload.seed, repeat), longest, repeat, traces)
    traces.keep(source)
    if (last := float(made.arrival_s[-1])) > LATEST_S:
        raise WorkloadError(f"requests: the last one arrives at {last:.3g} s; {LATEST_S:.0e} s, 32 years, is the most")
    if workload.horizon_s is not None and (first := float(made.arrival_s[0])) > workload.horizon_s:
        raise NoArrivalError(
            f"horizon_s: the run ends at {workload.horizon_s:g} s, and no request arrives by then; "
            f"the first one does at {first:.4g} s"
        )
    return made


def generate(source: Generated | Mix) -> Requests:
    """Draw requests for no model in particular, whose sessions may become as long as they like.

    Raises:
        WorkloadError: a data file is bad, or no request arrives.

    """
    if isinstance(source, Mix):
        return _mixed(source, 0, 0, None, Traces())
    return _made(source, partial(_stream, 0, 0), None, 0, Traces())


def _mixed(mix: Mix, seed: int, repeat: int, max_model_len: int | None, traces: Traces) -> Requests:
    """Make the requests of each part by itself, with random streams that are named after it, and merge them.

    A part of which none happens to arrive is without requests, unless all parts are.
    """
    parts: dict[str, Requests] = {}
    nobody: list[str] = []
    for place, part in enumerate(mix.mix):
        streams = partial(_stream, seed, repeat, part=f"{part.name}/")
        try:
            parts[part.name] = _made(part, streams, max_model_len, repeat, traces, mix.rate_scale)
        except WorkloadError as error:
            lines = [re.sub(r"^requests\b", f"requests.mix.{place}", line) for line in error.lines]
            if not isinstance(error, NoArrivalError):
                raise WorkloadError(*lines) from error
            parts[part.name] = Requests.none(str(error).removeprefix("requests: "))
            nobody += lines
    if len(nobody) == len(parts):
        raise NoArrivalError(*nobody)
    if (count := sum(map(len, parts.values()))) > MOST:
        raise WorkloadError(f"requests.mix: its parts make {count:,} requests; at most {MOST:,} are drawn")
    return merge(parts)


def _made(
    source: Generated | Trace,
    streams: Streams,
    max_model_len: int | None,
    repeat: int,
    traces: Traces,
    rate_scale: float = 1.0,
) -> Requests:
    """Draw or replay requests, `rate_scale` times as fast as the source says."""
    if isinstance(source, Generated):
        return _generated(source, streams, max_model_len, rate_scale)
    return _replayed(source, streams, repeat, traces, rate_scale)


def _generated(source: Generated, streams: Streams, max_model_len: int | None, rate_scale: float) -> Requests:
    scene = Scene(source.lengths, source.shared, source.token_s, max_model_len, streams)
    starts = None if source.count is not None else _starts_within(source, streams, rate_scale)
    units = _lay_out(source, scene, starts)
    made = _pace(units, source.arrivals, starts, source.token_s, streams, rate_scale)
    samples = tokens(source.samples.draw(streams("samples"), len(made)))
    if (most := int(samples.max())) > MOST_SAMPLES:
        raise WorkloadError(f"requests.samples: a request asks for {most:,}; at most {MOST_SAMPLES:,}")
    return replace(
        made,
        samples=samples if (samples > 1).any() else made.samples,
        beam=source.beam,
        notes=_outgrown(source.session, units, max_model_len),
    )


def _outgrown(session: Turns | Tree | Replies | None, units: Units, max_model_len: int | None) -> tuple[str, ...]:
    """Say how many conversations ended early because of the limit on their length."""
    count = np.count_nonzero(units.outgrown)
    if not count or not isinstance(session, Turns | Replies):
        return ()
    of = len(units.unit) if isinstance(session, Replies) else units.unit[-1] + 1
    return (f"{count:,} of {of:,} {session.outgrown} {session.max_tokens or max_model_len:,} tokens",)


def _stream(seed: int, repeat: int, name: str, part: str = "") -> np.random.Generator:
    return stream(seed, part + name, repeat)


def _replayed(trace: Trace, streams: Streams, repeat: int, traces: Traces, rate_scale: float) -> Requests:
    """Replay a trace, and replace its arrivals if the workload asks for it."""
    from workloads.traces.rows import replayed  # noqa: PLC0415  (start-up time of what is drawn)

    whole, form = traces.recorded(trace)
    faster = trace.model_copy(update={"rate_scale": trace.rate_scale * rate_scale})
    made = replayed(whole, faster, streams("spread"), repeat)
    notes = (*made.notes, f"trace read as {form}")
    if trace.arrivals is None:
        return replace(made, notes=notes)
    count = len(made)
    none, rest = np.full(count, -1), np.zeros(count)
    units = Units(np.arange(count), rest, made.prompt_tokens, made.output_tokens, none, rest, made.prefixes)
    return replace(_pace(units, trace.arrivals, None, NOMINAL_TOKEN_S, streams, rate_scale), notes=notes)


def _draw(arrivals: Process | Batch | Closed, streams: Streams, count: int, rate_scale: float) -> Floats:
    """Draw the starts of `count` units."""
    if isinstance(arrivals, Process):
        return arrivals.draw(streams("arrivals"), count) / rate_scale
    return np.full(count, arrivals.at_s if isinstance(arrivals, Batch) else 0.0)


def _starts_within(source: Generated, streams: Streams, rate_scale: float) -> Floats:
    """Draw the starts of all units that start within the duration."""
    duration = source.duration_s or 0.0
    expected = source.arrivals.mean_rate() * rate_scale * duration if isinstance(source.arrivals, Process) else 0.0
    guess = expected
    while True:
        count = math.ceil(guess + 6 * math.sqrt(guess) + 16)
        if count > MOST:
            raise WorkloadError(f"requests: about {guess:,.0f} requests in {duration:g} s; at most {MOST:,} are drawn")
        starts = _draw(source.arrivals, streams, count, rate_scale)
        if starts[-1] >= duration:
            break
        guess = 2 * count
    starts = starts[starts < duration]
    if len(starts) == 0:
        told = f"requests: none arrives within {duration:g} s at this rate"
        raise NoArrivalError(told) if expected > SELDOM else WorkloadError(told)
    return starts


def _lay_out(source: Generated, scene: Scene, starts: Floats | None) -> Units:
    """Lay out as many units as have a start, or as make the count."""
    session = source.session or Single()
    if starts is not None:
        return session.lay_out(scene, len(starts))
    count = source.count or 0
    guess = session.units_for(count)
    while True:
        units = session.lay_out(scene, guess)
        if len(units.unit) >= count:
            return units.first(count)
        guess = min(2 * guess, count)


def _closed(closed: Closed, units: Units, token_s: float, streams: Streams) -> tuple[Floats, Ints, Floats]:
    """Assign the units to the users in turn: each starts after its user's previous one.

    Returns:
        Nominal starts of the units; and for each request, including the first of a unit, the request that it follows
        and its delay.

    """
    count = int(units.unit[-1]) + 1
    end = units.offset_s + units.output * token_s
    # The request of each unit that ends last, by the nominal pace; the next unit waits for it.
    order = np.lexsort((end, units.unit))
    last = order[np.searchsorted(units.unit, np.arange(count), side="right") - 1]
    think = closed.think_s.draw(streams("user think"), count)
    after, delay = units.after.copy(), units.delay_s.copy()
    starts = np.zeros(count)
    users = min(closed.users, count)
    starts[:users] = np.arange(users) * (closed.ramp_s / users)
    for begin in range(users, count, users):
        now = np.arange(begin, min(begin + users, count))
        before = now - users
        starts[now] = starts[before] + end[last[before]] + think[now]
    waiting = (after < 0) & (units.unit >= users)
    after[waiting] = last[units.unit[waiting] - users]
    delay[waiting] = think[units.unit[waiting]]
    return starts, after, delay


def _pace(
    units: Units,
    arrivals: Process | Batch | Closed,
    starts: Floats | None,
    token_s: float,
    streams: Streams,
    rate_scale: float,
) -> Requests:
    """Start each unit, sort the requests by arrival, and renumber the requests that others follow."""
    after, delay = units.after, units.delay_s
    if isinstance(arrivals, Closed):
        starts, after, delay = _closed(arrivals, units, token_s, streams)
    elif starts is None:
        starts = _draw(arrivals, streams, int(units.unit[-1]) + 1, rate_scale)
    arrival = starts[units.unit] + units.offset_s
    order = np.argsort(arrival, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    linked = bool((after >= 0).any())
    return Requests(
        arrival_s=arrival[order],
        prompt_tokens=units.prompt[order],
        output_tokens=units.output[order],
        prefixes=None if units.prefixes is None else units.prefixes.take(order),
        after=np.where(after[order] < 0, -1, place[after[order]]) if linked else np.zeros(0, np.int64),
        delay_s=delay[order] if linked else np.zeros(0),
    )
