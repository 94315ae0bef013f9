"""Requests that a trace lists more than once, as exports that join several logs do."""

from __future__ import annotations

import numpy as np

from workloads.requests import Floats

CHANCE = 3
"""Standard deviations by which there must be more alike than lengths explain that are often the same."""


def repeated(arrival: Floats, prompt: Floats, output: Floats) -> int:
    """Count the requests that have the time and both lengths of an earlier one, if chance explains fewer; else 0.

    Of pairs that arrive at the same time, which a coarse clock has many of, as many have the same lengths by chance as
    of any pairs.  Where nearly all requests have the same lengths, nothing is told.

    Args:
        arrival: float64[n], seconds, ascending.
        prompt: float64[n], tokens.
        output: float64[n], tokens.

    """
    at_once = _pairs(_runs(arrival))
    if not at_once:
        return 0
    order = np.lexsort((output, prompt, arrival))
    alike = _runs(arrival[order], prompt[order], output[order])
    order = np.lexsort((output, prompt))
    share = _pairs(_runs(prompt[order], output[order])) / (len(arrival) * (len(arrival) - 1) / 2)
    by_chance = at_once * share
    if _pairs(alike) <= 2 * by_chance + CHANCE * by_chance**0.5:
        return 0
    return len(arrival) - len(alike)


def _runs(*columns: Floats) -> Floats:
    """Return how long each run of rows is that are the same in all columns; rows are sorted."""
    new = np.zeros(len(columns[0]), np.bool_)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.diff(np.append(np.flatnonzero(new), len(new))).astype(np.float64)


def _pairs(runs: Floats) -> float:
    """Return how many pairs of rows lie within one run."""
    return float(np.sum(runs * (runs - 1) / 2))
