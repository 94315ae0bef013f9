"""The best of several local minima of a least-squares problem, and how sure its parameters are.

A roofline has corners, so its fit has many minima, and which one a search ends in depends on where it begins and on
how a machine rounds.  Parameters are logarithms here: what is as good as nothing has a very negative one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from scipy.optimize import OptimizeResult

    Floats = npt.NDArray[np.float64]

STARTS = 8
"""Searches from places around the first guess ..."""
HOPS = 8
"""... and from the best place so far, of which `THROWN` parameters are thrown some way off."""
THROWN = 3
EXACT = 1e-30
"""Least squares that are as good as none: all is fitted but for rounding."""
NUDGE = 1e-3
"""Step of numerical derivatives: times come in whole nanoseconds."""


def deepest(descend: Callable[[Floats], OptimizeResult], first: Floats, nothing: float) -> OptimizeResult:
    """Return the best of the minima to which `descend` leads, from `first` and other places.

    Args:
        descend: searches from a place, float64[k].
        first: the first one.
        nothing: parameters below this stand for nothing.

    """

    def information(found: OptimizeResult) -> float:
        """Return Akaike's criterion (1974), less of which is better.

        Of two minima that are as deep but for noise the one counts in which fewer parameters matter: a floor that
        nearly all steps are above explains nothing.
        """
        errors = standard_errors(found.jac, 2 * found.cost)
        matter = sum(math.isfinite(error) and value > nothing for error, value in zip(errors, found.x, strict=True))
        criterion: float = len(found.fun) * math.log(max(found.cost, EXACT)) + 2 * matter
        return criterion

    rng, count = np.random.default_rng(0), len(first)
    found = [descend(first), *(descend(first + rng.normal(0, 0.5, count)) for _ in range(1, STARTS))]
    for _ in range(HOPS):
        thrown = rng.permutation(count) < THROWN
        found.append(descend(min(found, key=information).x + thrown * rng.normal(0, 1.5, count)))
    return min(found, key=information)


def standard_errors(slopes: Floats, squares: float) -> list[float]:
    """Return the standard error of each of k parameters of a least-squares fit (Gauss-Newton; see any textbook).

    Args:
        slopes: float64[n, k], of the weighted residuals by the parameters.
        squares: sum of the squared residuals.

    """
    count, parameters = slopes.shape
    scale = np.linalg.norm(slopes, axis=0)
    free = scale <= NUDGE * scale.max()  # nothing changes with it here
    scaled = slopes[:, ~free] / scale[~free]
    variance = squares / max(1, count - parameters)
    found = np.full(parameters, math.inf)
    found[~free] = np.sqrt(variance * np.diag(np.linalg.pinv(scaled.T @ scaled))) / scale[~free]
    return [float(error) for error in found]
