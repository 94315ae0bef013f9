"""Contiguous reservation: one run of consecutive blocks per sequence (Orca, as the PagedAttention paper models it).

Three policies determine the length of the run (PagedAttention, section 6.1):

* `max`: `max_model_len`, which is all that a real system can do without knowing the output.
* `pow2`: the prompt, plus the output rounded up to a power of two; it "over-reserves ... by at most 2x".
* `oracle`: exactly what will be written, prompt + output - 1 (the last token's K/V is never needed).

The last two read the true output length.  Three placements determine where the run goes: `buddy`, as in
the paper, `first-fit` and `best-fit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

from allocators.buddy import Buddy
from allocators.compiled import mypyc_attr
from allocators.holes import BestFit, FirstFit
from allocators.options import BLOCK_SIZE, Option
from allocators.reserving import RunAllocator

Reserve: TypeAlias = Literal["max", "pow2", "oracle"]
Fit: TypeAlias = Literal["buddy", "first-fit", "best-fit"]
PLACEMENTS: Mapping[Fit, type[Buddy | FirstFit]] = MappingProxyType(
    {"buddy": Buddy, "first-fit": FirstFit, "best-fit": BestFit}
)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class ContiguousAllocator(RunAllocator):
    """A run of blocks per sequence, sized by `reserve` and placed by `placement`."""

    kind = "contiguous"
    options = MappingProxyType(
        {
            "block_size": BLOCK_SIZE._replace(default=1),
            "reserve": Option(str, "max", "how much a sequence reserves", choices=("max", "pow2", "oracle")),
            "placement": Option(str, "buddy", "where a run is placed", choices=tuple(PLACEMENTS)),
        }
    )

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        max_model_len: int,
        max_rows: int = 256,
        *,
        reserve: Reserve = "max",
        placement: Fit = "buddy",
    ) -> None:
        """Make an empty pool."""
        super().__init__(PLACEMENTS[placement](num_blocks), num_blocks, block_size, max_model_len, max_rows)
        self.reserve = reserve

    @property
    def oracle(self) -> bool:
        """See `Allocator.oracle`."""
        return self.reserve != "max"

    def reservation(self, prompt: int, output: int | None) -> int:
        """See `RunAllocator.reservation`; the docstring of this module has the formulas."""
        if self.reserve == "max":
            return self.max_model_len
        output = self.told(output)
        if self.reserve == "pow2":
            return min(self.max_model_len, prompt + (1 << (output - 1).bit_length()))
        return prompt + output - 1
