"""Steps of recurring shapes, which are most steps of a busy engine.

A step is padded to one of a few shapes (`sim.costs.shapes`), so that a CUDA graph captured for each shape can
run it.  Everything that the device needs is laid out here, on the host, from the allocator's own block
table: three numbers per token, two per sequence, and the list of its pages.  Empty lanes read and write
the null block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.decode.paging import Pages, Paging, pages_of

if TYPE_CHECKING:
    from sim.costs.shapes import Shape

Ints = npt.NDArray[np.int64]
Ints32 = npt.NDArray[np.int32]
NULL = np.zeros(1, np.int64)
"""The null block."""


class Sequences(NamedTuple):
    """Sequences that take part in a step."""

    rows: Ints
    """int64[n]: of the block table."""
    names: Ints
    """int64[n]: where each begins in the transcript."""
    starts: Ints
    """int64[n]: tokens in the cache."""
    counts: Ints
    """int64[n]: new tokens."""
    said: Ints
    """int64[n]: where in the transcript the token that each says is written: its place, or one that nobody reads."""
    says: npt.NDArray[np.bool_]
    """bool[n]: whether it says one; a chunk that is not its prompt's last does not."""

    @property
    def contexts(self) -> Ints:
        """int64[n]: tokens of each after the step."""
        return self.starts + self.counts


@dataclass(frozen=True)
class Lanes:
    """A padded step, on the host."""

    shape: Shape
    inputs: Ints
    """int64[3, shape.width], a token: where in the transcript it stands, its position, the slot its K/V goes to."""
    outputs: Ints
    """int64[2, shape.rows], a sequence: its last token in the row of all tokens, and where its next token goes."""
    decodes: Pages
    """Pages of every lane of a decode, the one of the new token included."""
    chunks: Pages
    """Pages of every lane of a chunk."""
    queries: Ints32
    """int32[shape.chunks + 1]: where each chunk begins among the tokens of chunks."""
    picks: Ints
    """int64[m]: for each token said, the row of the logits it is taken from."""
    targets: Ints
    """int64[m]: where in the transcript it belongs."""

    @property
    def contexts(self) -> Ints:
        """int64[shape.decodes]: tokens of each decode after the step."""
        contexts: Ints = self.inputs[1, : self.shape.decodes] + 1
        return contexts


def make_lanes(
    table: Ints32, paging: Paging, shape: Shape, decodes: Sequences, chunks: Sequences | None, spare: int
) -> Lanes:
    """Lay out a step.

    Args:
        table: int32[rows, width], the block table.
        paging: how its blocks are read.
        shape: has room for the sequences.
        decodes: say one token each.
        chunks: compute several; None if the shape has none.
        spare: a place in the transcript that belongs to no sequence.

    """
    count, block_size = len(decodes.rows), paging.block_size
    inputs, outputs = np.zeros((3, shape.width), np.int64), np.zeros((2, shape.rows), np.int64)
    inputs[0], outputs[1] = spare, spare
    starts = decodes.starts
    inputs[0, :count] = decodes.names + starts
    inputs[1, :count] = starts
    inputs[2, :count] = table[decodes.rows, starts // block_size].astype(np.int64) * block_size + starts % block_size
    outputs[0, : shape.decodes] = np.arange(shape.decodes)
    outputs[1, :count] = decodes.said
    pages = pages_of(table, decodes.rows, decodes.contexts, paging, shape.decodes)
    picks, targets = np.arange(count), decodes.names + decodes.contexts
    if chunks is None:
        none = np.zeros(0, np.int32)
        return Lanes(shape, inputs, outputs, pages, Pages(none, none, none), none, picks, targets)
    many = len(chunks.rows)
    queries = np.full(shape.chunks + 1, chunks.counts.sum(), np.int32)
    queries[0] = 0
    chunks.counts.cumsum(out=queries[1 : many + 1])
    owner = np.repeat(np.arange(many), chunks.counts)
    positions = np.arange(len(owner)) - (queries[:many] - chunks.starts)[owner]
    here = slice(shape.decodes, shape.decodes + len(owner))
    inputs[0, here] = chunks.names[owner] + positions
    inputs[1, here] = positions
    blocks = table[chunks.rows[owner], positions // block_size].astype(np.int64)
    inputs[2, here] = blocks * block_size + positions % block_size
    outputs[0, shape.decodes : shape.decodes + many] = shape.decodes + queries[1 : many + 1] - 1
    outputs[1, shape.decodes : shape.decodes + many] = chunks.said
    ended = np.flatnonzero(chunks.says)
    return Lanes(
        shape,
        inputs,
        outputs,
        pages,
        pages_of(table, chunks.rows, chunks.contexts, paging, shape.chunks),
        queries,
        np.concatenate([picks, shape.decodes + ended]),
        np.concatenate([targets, chunks.names[ended] + chunks.contexts[ended]]),
    )


def blank(
    shape: Shape,
    paging: Paging,
    spare: int,
    *,
    contexts: Ints | None = None,
    chunks: int | None = None,
    start: int = 0,
    blocks: Ints = NULL,
) -> Lanes:
    """Lay out a step of nobody's, which fills its shape and writes to the null block alone.

    Args:
        shape: of the step.
        paging: how blocks are read.
        spare: a place in the transcript that belongs to no sequence.
        contexts: int64[shape.decodes], tokens that each decode reads; its own alone if not given.
        chunks: how many share the shape's tokens, equally; all that there is room for if not given.
        start: tokens that each of them attends to before its own.
        blocks: int64[b], those that are read, one after the other, and again from the first.

    """
    none = np.zeros(0, np.int64)
    nobody = Sequences(none, none, none, none, none, none.astype(np.bool_))
    lanes = make_lanes(np.zeros((1, 1), np.int32), paging, shape, nobody, None, spare)
    reads = np.ones(shape.decodes, np.int64) if contexts is None else contexts
    lanes.inputs[1, : shape.decodes] = reads - 1
    width = -(-int(reads.max(initial=1)) // paging.block_size)
    places = np.resize(blocks, (shape.decodes, width))
    decodes = pages_of(places.astype(np.int32), np.arange(shape.decodes), reads, paging, shape.decodes)
    used = shape.chunks if chunks is None else chunks
    queries = np.full(shape.chunks + 1, shape.tokens, np.int32)
    queries[: used + 1] = np.arange(used + 1) * shape.tokens // max(1, used)
    counts = np.diff(queries).astype(np.int64)
    attended = np.where(counts > 0, counts + start, 1)
    width = -(-int(attended.max(initial=1)) // paging.block_size)
    places = np.resize(blocks, (shape.chunks, width))
    pages = pages_of(places.astype(np.int32), np.arange(shape.chunks), attended, paging, shape.chunks)
    return Lanes(shape, lanes.inputs, lanes.outputs, decodes, pages, queries, none, none)
