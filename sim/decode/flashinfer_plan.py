"""Planning a FlashInfer wrapper again and again, with little host work.

Before a wrapper's kernel runs, its `plan` looks at the lengths of the sequences and lays out in its
workspace which part of the device does what.  That is a single call; around it, `plan` checks its
arguments, sends lists to the device that are already there, and finds the longest sequence with a
Python loop over a tensor, which together take several times as long as the call itself.  Only the
sequences ever change here, so the call is made alone, as `plan` of FlashInfer 0.5.3 makes it, and the
wrapper is told where their lists are.  Whether the installed FlashInfer does the same is tested before
the first plan of each wrapper, on sequences of many lengths: both ways must leave the same bytes, and
the lists where they are looked for, or else the wrapper's own `plan` is used from then on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from sim.models.geometry import Geometry


class Lists(NamedTuple):
    """What is said of n sequences, on the host or on the device."""

    queries: torch.Tensor
    """int32[n + 1]: where the new tokens of each begin."""
    offsets: torch.Tensor
    """int32[n + 1]: where its pages begin."""
    last: torch.Tensor
    """int32[n]: tokens in its last page."""


class Planned(NamedTuple):
    """What a wrapper is planned for: n sequences."""

    host: Lists
    device: Lists
    pages: torch.Tensor
    """int32[offsets[n]], on the device."""
    lengths: torch.Tensor
    """int32[n], on the host: tokens in all pages of each."""

    @property
    def tokens(self) -> int:
        """New tokens of all sequences."""
        return int(self.host.queries[-1])


@dataclass
class Planner:
    """Plans one wrapper of FlashInfer."""

    wrapper: Any
    chunks: bool
    """Whether it is a prefill wrapper, of sequences with several new tokens."""
    padded: int
    """New tokens in all, empty ones included, if it is one of padded steps; else 0."""
    geometry: Geometry
    page_size: int
    dtype: torch.dtype
    window: int | None
    scale: float
    copied: Any
    """Event that is recorded on the device once it has copied what was planned."""
    direct: bool | None = None
    """Whether the short way is taken; None until that has been tried out."""

    def plan(self, planned: Planned) -> None:
        """Have the wrapper's workspace laid out.

        It is copied to the device from pinned memory, so this waits until the plan before has been.
        """
        self.copied.synchronize()
        if self.direct:
            self.wrapper._plan_info = self._lay_out(planned)  # noqa: SLF001  see above
        else:
            if self.direct is None:
                self.direct = self._agree(varied(planned, self.page_size))
            self._at_length(planned)  # sends the lists, which those that were tried out may have overwritten
        if self.direct:
            for name, values in self._places(planned).items():
                setattr(self.wrapper, name, values)
        self.copied.record()

    def _at_length(self, planned: Planned) -> None:
        """Plan as FlashInfer documents it."""
        geometry = self.geometry
        self.wrapper.plan(
            *((planned.host.queries,) if self.chunks else ()),
            planned.host.offsets,
            planned.pages,
            planned.host.last,
            geometry.heads,
            geometry.kv_heads,
            geometry.head_dim,
            self.page_size,
            window_left=self._left,
            sm_scale=self.scale,
            q_data_type=self.dtype,
            kv_data_type=self.dtype,
            **({"causal": True} if self.chunks else {}),
        )

    def _lay_out(self, planned: Planned) -> Any:
        """Make the one call; returns what `run` of the wrapper must know of it."""
        wrapper, geometry, size = self.wrapper, self.geometry, self.geometry.head_dim
        return wrapper._cached_module.plan(  # noqa: SLF001  as its own plan does
            wrapper._float_workspace_buffer,  # noqa: SLF001  as its own plan does
            wrapper._int_workspace_buffer,  # noqa: SLF001  as its own plan does
            wrapper._pin_memory_int_workspace_buffer,  # noqa: SLF001  as its own plan does
            planned.host.queries,
            planned.host.offsets,
            planned.lengths,
            self.padded or planned.tokens,
            len(planned.lengths),
            geometry.heads,
            geometry.kv_heads,
            self.page_size,
            bool(self.padded),  # whether its kernel may be part of a CUDA graph
            size,
            size,
            self.chunks,
            self._left,
            -1,  # sequences are split as FlashInfer thinks best
            False,
            0,  # nothing else runs beside it
        )

    def _agree(self, planned: Planned) -> bool:
        """Plan the short way too; returns whether it leaves what the long way does."""
        try:
            host = self.wrapper._pin_memory_int_workspace_buffer  # noqa: SLF001  as its own plan does
            self._still(host)
            self._at_length(planned)
            self._still()
            expected, info = host.clone(), list(self.wrapper._plan_info)  # noqa: SLF001  as its own plan does
            self._still(host)
            found = list(self._lay_out(planned))
            self._still()
            places = self._places(planned).items()
            there = all(torch.equal(getattr(self.wrapper, name)[: len(values)], values) for name, values in places)
            return there and found == info and bool(torch.equal(host, expected))
        except Exception:  # noqa: BLE001  whatever another version says to a call that it does not know
            return False

    @staticmethod
    def _places(planned: Planned) -> dict[str, torch.Tensor]:
        """Return where a wrapper has the lists of its sequences, by the name of the attribute."""
        queries, offsets, last = planned.device
        return {
            "_qo_indptr_buf": queries,
            "_paged_kv_indptr_buf": offsets,
            "_paged_kv_indices_buf": planned.pages,
            "_paged_kv_last_page_len_buf": last,
        }

    @staticmethod
    def _still(emptied: torch.Tensor | None = None) -> None:
        """Wait until the device has copied what was planned; then empty the host's side of it, if it is given."""
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()
        if emptied is not None:
            emptied.zero_()

    @property
    def _left(self) -> int:
        return -1 if self.window is None else self.window - 1


def varied(planned: Planned, page_size: int) -> Planned:
    """Return as many sequences with as many new tokens, but of other lengths: up to two pages more than is new."""
    queries = planned.host.queries
    news = queries.diff()
    lengths = news + torch.arange(len(news), dtype=torch.int32) * 37 % (2 * page_size)
    lengths = lengths.clamp(min=1)
    counts = (lengths + page_size - 1) // page_size
    offsets = torch.zeros_like(queries)
    offsets[1:] = counts.cumsum(0)
    pages = planned.pages.new_zeros(int(offsets[-1]))
    host = Lists(queries, offsets, (lengths - 1) % page_size + 1)
    return Planned(host, Lists(*(values.to(pages.device) for values in host)), pages, lengths)
