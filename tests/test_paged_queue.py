"""The free queue against a plain list."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.freequeue import FreeQueue

OPS = st.lists(st.tuples(st.sampled_from(["take", "front", "back", "remove"]), st.integers(0, 12)), max_size=60)


@given(blocks=st.integers(0, 12), ops=OPS, data=st.data())
@settings(deadline=None)
def test_it_behaves_as_a_list_would(blocks: int, ops: list[tuple[str, int]], data: st.DataObject) -> None:
    queue, plain, out = FreeQueue(blocks), list(range(1, blocks + 1)), list[int]()
    for verb, count in ops:
        if verb == "take":
            taken = queue.take(min(count, len(plain))).tolist()
            expected, plain = plain[: len(taken)], plain[len(taken) :]
            assert taken == expected
            assert len(taken) == count or not plain
            out += taken
        elif verb == "remove":
            gone = data.draw(st.permutations(plain))[:count]
            queue.remove(np.array(gone, np.int64))
            plain = [block for block in plain if block not in gone]
            out += gone
        else:
            given_back, out = out[:count], out[count:]
            if verb == "front":
                queue.give_front(np.array(given_back, np.int64))
                plain = given_back + plain
            else:
                queue.give_back(np.array(given_back, np.int64))
                plain += given_back
        queue.check()
        assert queue.order().tolist() == plain
        assert len(queue) == len(plain)
        assert [block for block in range(1, blocks + 1) if block in queue] == sorted(plain)


def test_each_hole_is_passed_once() -> None:
    queue = FreeQueue(1000)
    queue.remove(np.arange(1, 501))
    assert queue.take(1).tolist() == [501]
    assert (queue._holes, len(queue)) == (0, 499), "who takes next does not search through them again"


def test_the_queue_makes_room_at_either_end_for_as_long_as_it_lives() -> None:
    queue = FreeQueue(3)
    for _ in range(50):
        queue.give_back(queue.take(2))
    for _ in range(50):
        last = queue.order()[-1:]
        queue.remove(last)
        queue.give_front(last)
    assert sorted(queue.order().tolist()) == [1, 2, 3]
    queue.check()
