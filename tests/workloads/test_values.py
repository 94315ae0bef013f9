"""Values in messages: what a user wrote, not what Python calls it."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workloads.document import Document
from workloads.values import shown, written

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20) | st.from_regex(
    r"[-+~.0-9eExob_a-f:#, ]{0,8}", fullmatch=True
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(SCALARS, lambda part: st.lists(part, max_size=8) | st.dictionaries(TEXT, part, max_size=8))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "null"),
        (True, "true"),
        (1e3, "1000.0"),
        (math.inf, ".inf"),
        ("llama-3.1-8b", "llama-3.1-8b"),
        ("a word or two", "a word or two"),
        ("true", '"true"'),
        ("16", '"16"'),
        ("", '""'),
        ("two\nlines", r'"two\nlines"'),
        ((1, "b", None), "[1, b, null]"),
        ({"kind": "paged", "prefix_cache": False}, "{kind: paged, prefix_cache: false}"),
        ([{"kind": "paged"}, []], "[{...}, []]"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, ...]"),
        ("x" * 100, f"{'x' * 28}...{'x' * 28}"),
    ],
)
def test_a_message_says_a_value_as_a_file_has_it(value: object, said: str) -> None:
    assert shown(value) == said


def test_a_number_of_thousands_of_digits_is_written_too() -> None:
    assert shown(1 << 20_000) == f"0x1{'0' * 25}...{'0' * 28}"


@given(VALUES)
@example("2026-11-30")
@example("1_000.5")
@example(".5")
@example("=")
def test_what_is_written_whole_is_read_as_the_same(value: object) -> None:
    assert Document(f"[{written(value)}]", "a test").data == [value]


@given(VALUES)
def test_a_message_has_one_line(value: object) -> None:
    assert shown(value).isprintable()
