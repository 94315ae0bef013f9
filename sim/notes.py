"""What is to be known of the requests of a run's replications: notes of its manifest, which commands print."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from workloads.source import turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.setup import Setup
    from workloads.requests import Requests

NUMBER = re.compile(r"(?<![\w-])\d[\d,.]*")
"""One that is no end of a name."""
ALIKE = "nothing of these requests is drawn at random: replications are all alike, and intervals over them mean nothing"
SHARES = "replications are the shares of {} engines that take turns: intervals tell how they differ, not other days"
TURNED = "from replication {} on the shares of one_in come again, and intervals over them are too narrow"


def alike(setup: Setup, first: Requests) -> list[str]:
    """Say what replications mean of requests that are not drawn; `first` are those of the first one."""
    repeat, again = setup.workload.repeat, turns(setup.workload.requests)
    if again > 1:
        setup.requests(min(repeat, again) - 1)  # if there are fewer conversations than shares, before all runs
    if repeat == 1 or not first.same_as(setup.requests(again)):
        return []
    if again == 1:
        return [ALIKE]
    return [SHARES.format(f"{again:,}"), *([TURNED.format(f"{again + 1:,}")] if repeat > again else [])]


def once(said: Sequence[Sequence[str]], repeats: int) -> list[str]:
    """Tell what is to be known of the requests of replications: each thing once, with the numbers of the first of them.

    Within a replication notes that differ in numbers only, as of parts named chat 1 and chat 2, are different things.

    Args:
        said: notes of each replication so far.
        repeats: how many there will be.

    """
    told: dict[tuple[str, int], dict[int, str]] = {}
    for repeat, notes in enumerate(said, start=1):
        times: Counter[str] = Counter()
        for note in notes:
            words = NUMBER.sub("", note)
            told.setdefault((words, times[words]), {})[repeat] = note
            times[words] += 1
    return [
        note if len(by) == len(said) and set(by.values()) == {note} else f"{note} (replication {repeat} of {repeats})"
        for by in told.values()
        for repeat, note in [next(iter(by.items()))]
    ]


def too_late(requests: Requests, horizon_s: float | None) -> list[str]:
    """Say how many requests arrive when the simulation has ended; of those that follow an answer nobody knows."""
    if horizon_s is None:
        return []
    late = requests.arrival_s > horizon_s
    if len(requests.after):
        late &= requests.after < 0
    count = int(np.count_nonzero(late))
    return [f"{count:,} of {len(requests):,} requests arrive after horizon_s and are in no table"] if count else []
