"""From a workload to its requests: drawn, or read from a trace.

Drawing lays out units (requests, sessions, trees) one after the other, starts each at its
arrival, and sorts by time.  Every purpose has a random stream of its own.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from workloads.arrivals import Batch, Closed, Process
from workloads.errors import WorkloadError
from workloads.lengths import tokens
from workloads.requests import Requests
from workloads.schema import MOST, Generated, Workload
from workloads.streams import stream
from workloads.units import Scene, Single, Units

if TYPE_CHECKING:
    from workloads.requests import Floats, Ints
    from workloads.units import Streams


def requests(workload: Workload, repeat: int = 0) -> Requests:
    """Make the requests of replication `repeat`; the same workload and repeat give the same requests.

    A replayed trace is the same in every replication.

    Raises:
        WorkloadError: a data file or trace is bad, or no request arrives.

    """
    source = workload.requests
    if not isinstance(source, Generated):
        from workloads.traces import read  # noqa: PLC0415 - generated workloads need no reader

        return read(source)
    streams = partial(_stream, workload.seed, repeat)
    scene = Scene(source.lengths, source.shared, source.token_s, workload.engine.max_model_len, streams)
    starts = None if source.count is not None else _starts_within(source, streams)
    units = _lay_out(source, scene, starts)
    after, delay = units.after, units.delay_s
    if isinstance(source.arrivals, Closed):
        starts, after, delay = _closed(source.arrivals, units, source.token_s, streams)
    elif starts is None:
        starts = _draw(source.arrivals, streams, int(units.unit[-1]) + 1)
    return _in_order(source, units, starts[units.unit] + units.offset_s, after, delay, streams)


def _stream(seed: int, repeat: int, name: str) -> np.random.Generator:
    return stream(seed, name, repeat)


def _draw(arrivals: Process | Batch | Closed, streams: Streams, count: int) -> Floats:
    """Draw the starts of `count` units."""
    if isinstance(arrivals, Process):
        return arrivals.draw(streams("arrivals"), count)
    return np.full(count, arrivals.at_s if isinstance(arrivals, Batch) else 0.0)


def _starts_within(source: Generated, streams: Streams) -> Floats:
    """Draw the starts of all units that start within the duration."""
    duration = source.duration_s or 0.0
    guess = source.arrivals.mean_rate() * duration if isinstance(source.arrivals, Process) else 0.0
    while True:
        count = math.ceil(guess + 6 * math.sqrt(guess) + 16)
        if count > MOST:
            raise WorkloadError(f"requests: about {guess:,.0f} requests in {duration:g} s; at most {MOST:,} are drawn")
        starts = _draw(source.arrivals, streams, count)
        if starts[-1] >= duration:
            break
        guess = 2 * count
    starts = starts[starts < duration]
    if len(starts) == 0:
        raise WorkloadError(f"requests: none arrives within {duration:g} s at this rate")
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
    """Give the units to the users in turn: each starts after its user's last one.

    Returns:
        Nominal starts of the units; and links and delays of the requests, first ones of units included.

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


def _in_order(
    source: Generated, units: Units, arrival: Floats, after: Ints, delay: Floats, streams: Streams
) -> Requests:
    """Sort by arrival and lead the links to the new places."""
    order = np.argsort(arrival, kind="stable")
    count = len(order)
    linked = bool((after >= 0).any())
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    samples = tokens(source.samples.draw(streams("samples"), count))[order]
    return Requests(
        arrival[order],
        units.prompt[order],
        units.output[order],
        samples if (samples > 1).any() else np.zeros(0, np.int64),
        source.beam,
        None if units.prefixes is None else units.prefixes.take(order),
        np.where(after[order] < 0, -1, place[after[order]]) if linked else np.zeros(0, np.int64),
        delay[order] if linked else np.zeros(0),
    )
