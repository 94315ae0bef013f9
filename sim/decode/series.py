"""Series: steps that follow one another, some of which prefill, as a GPU's clock may fall meanwhile.

What they tell is found by `sim.costs.power`.  Chips of one name differ in it: prefills of the 8B in a row took up to
11 to 14 % longer on seven H200s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from sim.costs.power import REST, SETTLED, Series, orders
from sim.decode.scene import Scene
from sim.decode.testbed import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from sim.decode.grid import Extent

SOME = 8
"""Decodes in the steps of a series ..."""
PARTS = (10, 5)
"""... and parts of the longest prefill that the prefills of series are."""


class Timing(Protocol):
    """Times steps that follow one another."""

    def times(self, scene: Scene, prefills: Sequence[bool]) -> npt.NDArray[np.float64]:
        """See `sim.decode.stage.Stage.times`."""


def series(
    stage: Timing, extent: Extent, captured: int, progress: Callable[[Progress], None] | None = None
) -> list[Series]:
    """Run steps in several orders, as in service, some of which prefill: a GPU's clock may fall meanwhile.

    Args:
        stage: where they run.
        extent: of the grid.
        captured: prefill tokens up to which steps are replayed, not launched.
        progress: called before each prefill length.

    """
    found = []
    for number, part in enumerate(PARTS):
        tokens = extent.tokens // part
        scene = Scene("series", (extent.longest // 9,) * SOME, ((0, tokens),))
        if progress is not None:
            progress(Progress(f"prefills of {tokens} in a row", number, len(PARTS)))
        first = stage.times(scene, [False] * REST + [True] * 3)
        for order in orders(float(np.median(first[REST:])), float(np.median(first[SETTLED:REST]))):
            seconds = stage.times(scene, [step == "p" for step in order]).tolist()
            found.append(Series(tokens, tokens > captured, order, seconds))
    return found
