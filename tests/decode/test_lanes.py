"""Shapes of padded steps, and what lies in their lanes."""

from __future__ import annotations

import numpy as np
import pytest

from sim.costs.shapes import CHUNKS, Shape, Shapes, padded_sizes
from sim.decode.flashinfer_backend import workspace_bytes
from sim.decode.lanes import Sequences, blank, make_lanes
from sim.decode.paging import Paging, pages_of
from sim.models.geometry import resolve_model


def test_sizes_grow_to_the_most_and_pad_little() -> None:
    for most in (1, 3, 8, 24, 100, 256, 1000):
        sizes = padded_sizes(most)
        assert sizes[-1] == most
        assert list(sizes) == sorted(set(sizes))
        for count in range(9, most + 1):
            assert next(size for size in sizes if size >= count) <= max(count + 8, 1.15 * count)


def test_the_smallest_shape_that_has_room_is_taken() -> None:
    shapes = Shapes(96, 300)
    assert [shapes.fit(decodes) for decodes in (1, 3, 96, 97)] == [Shape(1), Shape(4), Shape(96), None]
    assert shapes.fit(0, 20, 1) == Shape(0, 32, CHUNKS)
    assert shapes.fit(16, 33, CHUNKS) == Shape(16, 64, CHUNKS)
    assert shapes.fit(65, 225, 2) == Shape(96, 256, CHUNKS)
    assert shapes.fit(1, 257, 1) is shapes.fit(97, 1, 1) is shapes.fit(1, 100, CHUNKS + 1) is None
    assert {Shape(96), Shape(96, 256, CHUNKS), Shape(0, 32, CHUNKS)} <= set(shapes.all)
    assert [shape.width for shape in shapes.all] == sorted((shape.width for shape in shapes.all), reverse=True)


def test_a_larger_shape_is_taken_if_it_is_faster() -> None:
    shapes = Shapes(96, 300)
    periods = {shape: 1000 + shape.width for shape in shapes.all}
    periods[Shape(0, 160, CHUNKS)] = 2000
    periods[Shape(8)] = 1020  # 2 % slower than sixteen
    timed = shapes.timed(periods)
    assert timed.fit(0, 150, 1) == Shape(16, 160, CHUNKS)
    assert timed.fit(0, 161, 1) == shapes.fit(0, 161, 1)
    assert timed.fit(7) == Shape(8)
    assert timed.fit(97) is timed.fit(1, 257, 1) is None
    slow = shapes.timed(periods | {Shape(decodes): 5000 for decodes in (40, 48, 56)})
    assert [slow.fit(decodes) for decodes in (33, 64)] == [Shape(64), Shape(64)]  # never one with chunks


@pytest.mark.parametrize("shape", [Shape(4), Shape(0, 32, CHUNKS), Shape(3, 64, CHUNKS)])
def test_a_blank_step_fills_its_shape_and_touches_the_null_block_alone(shape: Shape) -> None:
    lanes = blank(shape, Paging(16, 16, 16), 999)
    assert lanes.inputs.shape == (3, shape.width)
    assert not lanes.inputs[1:].any()
    assert set(lanes.inputs[0]) | set(lanes.outputs[1]) == {999}
    assert not lanes.decodes.ids.any()
    assert not lanes.chunks.ids.any()
    assert len(lanes.decodes.last) == shape.decodes
    assert not shape.chunks or lanes.queries[-1] == shape.tokens


def test_the_chunks_of_a_blank_step_may_attend_to_earlier_tokens() -> None:
    lanes = blank(Shape(2, 64, CHUNKS), Paging(16, 16, 16), 999, chunks=3, start=100, blocks=np.arange(12))
    assert np.diff(lanes.queries).tolist() == [21, 21, 22, 0, 0, 0, 0, 0]
    assert np.diff(lanes.chunks.offsets).tolist() == [8, 8, 8, 1, 1, 1, 1, 1]
    assert lanes.chunks.last.tolist() == [121 - 112, 121 - 112, 122 - 112, 1, 1, 1, 1, 1]
    assert lanes.chunks.ids[:24].tolist() == [*range(12), *range(12)]  # one block after the other, over and over
    assert not lanes.inputs[1:].any()


@pytest.mark.parametrize(
    ("model", "lanes", "mib"),
    [
        ("llama-3.1-8b", 256, 130),  # 64 tiles of 128 queries of chunks, 32 heads, 128 long, fp32
        ("llama-3.1-8b", 1024, 323),
        ("opt-13b", 512, 174),
        ("tiny-llama", 8, 128),
    ],
)
def test_the_workspace_holds_the_parts_of_a_padded_step(model: str, lanes: int, mib: int) -> None:
    assert workspace_bytes(resolve_model(model), Shapes(lanes, 1024)) / 2**20 == pytest.approx(mib, rel=0.01)


def test_lanes_that_stand_empty_hold_the_null_block() -> None:
    table = np.array([[5, 6, 7], [8, 9, 0]], np.int32)
    decodes = sequences((1, 100, 7, 1, 108), (0, 200, 8, 1, 999))
    lanes = make_lanes(table, Paging(4, 4, 4), Shape(4), decodes, None, spare=999)
    assert lanes.inputs.tolist() == [[107, 208, 999, 999], [7, 8, 0, 0], [39, 28, 0, 0]]
    assert lanes.outputs.tolist() == [[0, 1, 2, 3], [108, 999, 999, 999]]
    assert lanes.decodes.offsets.tolist() == [0, 2, 5, 6, 7]
    assert lanes.decodes.ids.tolist() == [8, 9, 5, 6, 7, 0, 0]
    assert lanes.decodes.last.tolist() == [4, 1, 1, 1]
    assert lanes.targets.tolist() == [108, 209]
    full = pages_of(table, np.array([0]), np.array([12]), Paging(4, 4, 4), 1)
    assert (full.ids.tolist(), full.last.tolist()) == ([5, 6, 7], [4])


def sequences(*columns: tuple[int, int, int, int, int]) -> Sequences:
    rows, names, starts, counts, said = np.array(columns).T
    return Sequences(rows, names, starts, counts, said, np.array([name != 300 for name in names]))


def test_chunks_stand_behind_the_lanes_of_decodes() -> None:
    table = np.array([[5, 6, 7], [8, 9, 0], [3, 0, 0]], np.int32)
    decodes, chunks = sequences((1, 100, 7, 1, 108)), sequences((0, 200, 3, 3, 206), (2, 300, 0, 2, 999))
    lanes = make_lanes(table, Paging(4, 4, 4), Shape(2, 8, 4), decodes, chunks, spare=999)
    assert lanes.inputs[0].tolist() == [107, 999, 203, 204, 205, 300, 301, 999, 999, 999]
    assert lanes.inputs[1].tolist() == [7, 0, 3, 4, 5, 0, 1, 0, 0, 0]
    assert lanes.inputs[2].tolist() == [39, 0, 23, 24, 25, 12, 13, 0, 0, 0]
    assert lanes.outputs.tolist() == [[0, 1, 4, 6, 0, 0], [108, 999, 206, 999, 999, 999]]
    assert lanes.queries.tolist() == [0, 3, 5, 5, 5]
    assert lanes.chunks.offsets.tolist() == [0, 2, 3, 4, 5]
    assert lanes.chunks.ids.tolist() == [5, 6, 3, 0, 0]
    assert lanes.chunks.last.tolist() == [2, 2, 1, 1]
    assert (lanes.picks.tolist(), lanes.targets.tolist()) == ([0, 2], [108, 206])
