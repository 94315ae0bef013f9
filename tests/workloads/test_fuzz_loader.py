"""No text whatever makes the loader fall over: it is a workload, or faults of one line each."""

import re
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from workloads.document import Document
from workloads.errors import WorkloadError
from workloads.loader import override, parse, presets
from workloads.schema import PRESETS

TEXTS = [(PRESETS / f"{name}.yaml").read_text() for name in presets()]
JUNK = [
    *"\n \t:-{}[],&*!|>'\"%@`#~?0\x00\xff",
    "<<: ",
    "- ",
    "null",
    "1e999",
    ".nan",
    "!!python/object:x ",
    "&a *a",
    "9" * 5000,
]
JUNK += ["kind: paged", "kind: gamma", "count: -1", "{", "}", "[[[[", "2001-01-01", "0o99", "---\n", "...\n", "\u2028"]


@st.composite
def mangled(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(JUNK)) + text[place + draw(st.integers(0, 20)) :]
    return text


@settings(max_examples=200, deadline=None)
@given(
    text=st.one_of(mangled(), st.text(max_size=50)), setting=st.sampled_from(["", "a=b", "engine.x={", "model.y.z=1"])
)
@example(text="a: &a {b: *a}", setting="")
@example(text="? {a: b}\n: c", setting="")
@example(text="seed: " + "9" * 5000, setting="")
@example(text="a: !!binary x", setting="a.b.c=!!set {x}")
@example(text="<<: [*a]", setting="")
@example(text="<<: {<<: {a: 1}, b: 2}", setting="")
def test_any_text_is_a_workload_or_lines_of_faults(text: str, setting: str) -> None:
    for line in faults(text, setting):
        assert re.match(r"f\.yaml(:\d+:\d+)?: \S|--set ", line)
        assert "\n" not in line


def faults(text: str, setting: str) -> tuple[str, ...]:
    """Load a text; return the lines of what is wrong with it."""
    try:
        document = Document(text, "f.yaml")
        if setting:
            override(document, setting)
        parse(document, Path())
    except WorkloadError as error:
        return error.lines
    return ()
