"""What tensors take of a full pool beyond their sizes: the constants of `allocators.tensors.Footprints`.  Run by hand.

    python -m tests.benchmarks.footprints      two minutes; prints the fit and how it does on pools it has not seen

The exact placement of every tensor (`tests.full_pool`) keeps pools full.  What it holds, less one copy of
the largest tensor, is fitted by least squares of the relative error over the sums of sizes of small,
large and huge tensors and the number of large ones.
"""

from __future__ import annotations

import numpy as np
from rich.console import Console

from allocators.cuda_caching import MIN_LARGE, SMALL_SIZE
from allocators.table import Ints
from allocators.tensors import Footprints
from tests.full_pool import Case, FullPool, states

SEEN = (
    Case(80, 10240, 6, (8, 400), (8, 600)),
    Case(80, 10240, 10, (8, 200), (100, 600)),
    Case(80, 10240, 12, (8, 700), (100, 600)),
    Case(64, 2048, 4, (8, 2000), (8, 600)),
    Case(64, 2048, 8, (100, 4000), (100, 600)),
    Case(64, 2048, 6, (100, 800), (100, 600)),
    Case(64, 2048, 12, (2000, 7000), (100, 600)),
    Case(64, 2048, 16, (4000, 14000), (100, 600)),
    Case(32, 4096, 4, (8, 400), (100, 600)),
    Case(32, 1024, 3, (100, 4000), (100, 600)),
    Case(80, 8192, 10, (300, 1200), (50, 300)),
    Case(48, 6144, 4, (50, 700), (50, 300)),
    Case(64, 1024, 3, (50, 700), (50, 300)),
)
UNSEEN = (
    Case(96, 2048, 5, (20, 1500), (20, 900)),
    Case(56, 4096, 6, (30, 1800), (20, 600)),
    Case(80, 10240, 9, (20, 700), (20, 500)),
    Case(36, 5120, 5, (10, 500), (100, 700)),
    Case(64, 2048, 8, (300, 3000), (100, 900)),
    Case(32, 8192, 6, (100, 1000), (50, 300)),
)
STEPS, WARM = 100, 50


def terms(case: Case, lengths: Ints, *, expandable: bool) -> list[int]:
    """Sum the sizes of small, large and huge tensors, and count the large ones."""
    sizes = lengths * case.token_bytes
    small, huge = sizes <= SMALL_SIZE, (sizes >= MIN_LARGE) & (not expandable)
    large = ~small & ~huge
    return [case.tensors * int(of.sum()) for of in (sizes[small], sizes[large], large, sizes[huge])][: 4 - expandable]


def fit(*, expandable: bool) -> list[float]:
    """Return what each term counts."""
    rows = []
    for seed, case in enumerate(SEEN):
        for lengths, held in states(FullPool(case, seed, expandable_segments=expandable), STEPS, WARM):
            copy = int(lengths.max()) * case.token_bytes
            rows.append(np.array(terms(case, lengths, expandable=expandable)) / (held - copy))
    found, *_ = np.linalg.lstsq(np.array(rows), np.ones(len(rows)), rcond=None)
    return [float(each) for each in found]


def ratios(case: Case, seed: int, *, expandable: bool, steps: int = STEPS, warm: int = WARM) -> Ints:
    """Return float64[n]: what the closed form counts, over what is held, in each state of a full pool."""
    memory = Footprints(case.tensors, case.token_bytes, case.capacity, case.longest, expandable_segments=expandable)
    pool = FullPool(case, seed, expandable_segments=expandable)
    return np.array(
        [
            (memory.footprints[lengths].sum() + memory.sizes[lengths.max()]) / held
            for lengths, held in states(pool, steps, warm)
        ]
    )


def main() -> None:
    """Print the fit, and the closed form's ratio on pools of both kinds."""
    console = Console(highlight=False, soft_wrap=True)
    for expandable in (False, True):
        small, large, rest, *huge = fit(expandable=expandable)
        own = f", huge {huge[0]:.3f}" if huge else ""
        console.print(f"expandable {expandable}: small {small:.3f}, large {large:.3f} + {rest:,.0f} bytes{own}")
        for name, cases in (("seen", SEEN), ("unseen", UNSEEN)):
            for seed, case in enumerate(cases):
                found = ratios(case, 100 + seed, expandable=expandable)
                console.print(f"  {name:6} {case}: {found.mean():.3f} +- {found.std():.3f}")


if __name__ == "__main__":
    main()
