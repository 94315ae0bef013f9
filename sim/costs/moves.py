"""How long moving memory takes in a step, which the cost model (`sim.costs.model`) adds to the computation.

copies      are read and written: 2 x bytes / (B x copy_efficiency), with B the memory bandwidth
swaps       swap_overhead_s, bytes / (PCIe x pcie_efficiency), and transfer_overhead_s for each block and tensor (K
            and V of each layer)
pages       page_map_s and page_unmap_s for each page of 2 MiB; for smaller ones small_page_map_s plus
            small_page_doubling_s for each doubling from 64 KiB, and small_page_unmap_s.  Pages that were foreseen are
            mapped while the step before runs, and only what takes longer than that step counts
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING, Any, TypeAlias

from sim.costs.load import Amount, Load, Maximum

if TYPE_CHECKING:
    from allocators.answers import Mappings
    from sim.costs.coefficients import Coefficients
    from sim.devices import Device
    from sim.models.geometry import Geometry

LARGE_PAGE = 2 << 20
"""Bytes of the only pages that CUDA's own driver maps."""
SMALLEST_PAGE = 64 << 10
"""Bytes of the smallest that vAttention's driver maps."""
Calls: TypeAlias = tuple[Amount, Amount, Amount, Amount]
"""Pages, as in `Mappings`."""


class Moves:
    """Seconds for what is copied, swapped and mapped."""

    def __init__(
        self, geometry: Geometry, device: Device, c: Coefficients, page_bytes: int, *, copies: bool = True
    ) -> None:
        """Turn sizes, rates and coefficients into seconds.

        Args:
            geometry: the model.
            device: the GPU.
            c: the coefficients.
            page_bytes: size of the pages that are mapped on demand.
            copies: whether copies take time of their own, and do not run while later kernels are launched.

        """
        self.copy_s = 2 * geometry.kv_bytes_per_token / (device.bandwidth * c.copy_efficiency)
        """Seconds for each token slot copied."""
        self._added = self.copy_s if copies else 0.0
        self._swap = 1 / (device.pcie_bandwidth * c.pcie_efficiency)
        self._swapping = c.swap_overhead_s
        self._transfer = c.transfer_overhead_s * geometry.kv_tensors
        self._map, self._unmap = c.page_map_s, c.page_unmap_s
        if page_bytes < LARGE_PAGE:
            self._map = c.small_page_map_s + c.small_page_doubling_s * log2(page_bytes / SMALLEST_PAGE)
            self._unmap = c.small_page_unmap_s

    def seconds(self, load: Load, maximum: Maximum) -> Any:
        """Copies on the device, swaps over PCIe, page mappings."""
        return (
            load.copied_tokens * self._added
            + load.swapped_bytes * self._swap
            + (load.transfers > 0) * self._swapping
            + load.transfers * self._transfer
            + self._mapping(_calls(load), load.before_ns, maximum)
        )

    def mapping_ns(self, load: Load) -> tuple[int, int]:
        """Nanoseconds of calls for pages that the step before hides, and of those that this step waits for."""
        calls = _calls(load)
        exposed = self._mapping(calls, load.before_ns, max)
        return round((self._total(calls) - exposed) * 1e9), round(exposed * 1e9)

    def hidden_ns(self, calls: Mappings, before_ns: int) -> int | None:
        """Nanoseconds of calls for pages if a step that takes `before_ns` hides all of them; None if it does not."""
        return None if self._mapping(calls, before_ns, max) else round(self._total(calls) * 1e9)

    def _total(self, calls: Calls) -> Any:
        """Seconds of all calls for pages."""
        mapped, unmapped, _, _ = calls
        return mapped * self._map + unmapped * self._unmap

    def _mapping(self, calls: Calls, before_ns: Amount, maximum: Maximum) -> Any:
        """Seconds of calls for pages that the step waits for: those not foreseen, and what of the others is left."""
        mapped, unmapped, mapped_ahead, unmapped_ahead = calls
        ahead = mapped_ahead * self._map + unmapped_ahead * self._unmap
        now = (mapped - mapped_ahead) * self._map
        now = now + (unmapped - unmapped_ahead) * self._unmap
        return now + maximum(ahead - before_ns / 1e9, 0.0)


def _calls(load: Load) -> Calls:
    return load.mapped_pages, load.unmapped_pages, load.mapped_ahead, load.unmapped_ahead
