"""Bad traces: each bad row is named by its line, and no bytes whatever make a traceback or a hang."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workloads.errors import WorkloadError
from workloads.requests import Requests
from workloads.streams import stream
from workloads.trace import Trace
from workloads.traces import FORMATS, read

HEADER = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
RECORD = {"timestamp": 0, "input_length": 600, "output_length": 2, "hash_ids": [1, 2]}


def load(path: Path, content: str | bytes, **options: object) -> Requests:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(Trace(trace=str(path), **options), stream(0, "spread"))


def faults(path: Path, content: str | bytes, **options: object) -> list[str]:
    with pytest.raises(WorkloadError) as error:
        load(path, content, **options)
    return [line.replace(str(path), "t") for line in error.value.lines]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,1,1", "t:3: arrived_at: not a number: x"),
        ("1,1,x", "t:3: num_decode_tokens: not a number: x"),
        ("1,1", "t:3: 2 cells where the header has 3"),
        ("1,1,1,1", "t:3: 4 cells where the header has 3"),
        ("nan,1,1", "t:3: the arrival time: missing or not a finite number: nan"),
        ("inf,1,1", "t:3: the arrival time: missing or not a finite number: inf"),
        (",1,1", "t:3: the arrival time: missing or not a finite number: nan"),
        ("1e12,1,1", "t:3: the arrival time: more than 1e+09 s from most others: 1e+12"),
        ("-1e300,1,1", "t:3: the arrival time: more than 1e+09 s from most others: -1e+300"),
        ("1,-5,1", "t:3: prompt tokens: negative: -5"),
        ("1,1,-1", "t:3: output tokens: negative: -1"),
        ("1,1e300,1", "t:3: prompt tokens: more than 2,147,483,648: 1e+300"),
        ("1,1,", "t:3: output tokens: missing or not a finite number: nan"),
        ("caf\xe9,1,1", "t:3: arrived_at: not a number: caf\ufffd"),
    ],
)
def test_a_bad_row_of_a_csv(tmp_path: Path, row: str, message: str) -> None:
    content = f"{HEADER}0,1,1\n{row}\n2,1,1\n".encode("latin-1")
    assert faults(tmp_path / "t", content) == ["t: 1 of 3 rows is bad; on_bad_rows: skip leaves such rows out", message]
    made = load(tmp_path / "t", content, on_bad_rows="skip")
    assert len(made) == 2
    assert "left out: t: 1 of 3 rows is bad" in [note.replace(f"{tmp_path}/", "") for note in made.notes]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "t:2: not JSON: Expecting property name enclosed in double quotes (column 2)"),
        ('{"timestamp": 0 "input_length": 1}', "t:2: not JSON: Expecting ',' delimiter (column 17)"),
        ("7", "t:2: not a JSON object: 7"),
        (json.dumps({**RECORD, "timestamp": "x"}), "t:2: timestamp: not a number: x"),
        (json.dumps({**RECORD, "timestamp": True}), "t:2: timestamp: not a number: true"),
        (json.dumps({**RECORD, "input_length": -1}), "t:2: prompt tokens: negative: -1"),
        (json.dumps({**RECORD, "input_length": None}), "t:2: prompt tokens: missing or not a finite number: nan"),
        (json.dumps({**RECORD, "output_length": math.nan}), "t:2: output tokens: missing or not a finite number: nan"),
        (json.dumps({**RECORD, "hash_ids": 5}), "t:2: hash_ids: not a list of whole numbers: 5"),
        (json.dumps({**RECORD, "hash_ids": [1.5]}), "t:2: hash_ids: not a list of whole numbers: [1.5]"),
        (json.dumps({**RECORD, "hash_ids": [2**70]}), "t:2: hash_ids: not a list of whole numbers: "),
        (json.dumps({**RECORD, "hash_ids": [1, 2, 3]}), "t:2: 3 hash ids for 600 tokens in blocks of 512"),
        ("[" * 100_000, "t:2: nested too deeply"),  # Python 3.13 goes down 10,000
        ('"\udcff"', "t:2: not UTF-8 text"),
    ],
)
def test_a_bad_line_of_json(tmp_path: Path, line: str, message: str) -> None:
    good = json.dumps(RECORD)
    content = f"{good}\n{line}\n{good}\n".encode("utf-8", errors="surrogateescape")
    found = faults(tmp_path / "t", content)
    assert found[0] == "t: 1 of 3 rows is bad; on_bad_rows: skip leaves such rows out"
    assert found[1].startswith(message)
    assert len(load(tmp_path / "t", content, on_bad_rows="skip")) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": 5}', "t:2: text: not text: 5"),
        ('{"colour": "red"}', "t:2: none of text_input, messages, payload, turns"),
        ('{"turns": []}', "t:2: turns: not a list of turns: []"),
        ('{"payload": "hello"}', "t:2: payload: not an object: hello"),
        ('{"messages": [7]}', "t:2: messages: not text: 7"),
        ('{"text": "a", "output_length": -1}', "t:2: output_length and delay cannot be negative or endless: -1"),
        ('{"text": "a", "output_length": 1e999}', "t:2: output_length and delay cannot be negative or endless: inf"),
        ('{"text": "a", "timestamp": "x"}', "t:2: timestamp: not a number: x"),
    ],
)
def test_a_bad_line_of_text(tmp_path: Path, line: str, message: str) -> None:
    content = '{"text": "one"}\n' + line + '\n{"text": "two"}\n'
    assert faults(tmp_path / "t", content.encode())[1].startswith(message)
    assert len(load(tmp_path / "t", content.encode(), on_bad_rows="skip")) == 2


@pytest.mark.parametrize("name", ["arrived_at", "num_prefill_tokens"])
def test_a_column_that_is_there_twice_is_not_chosen_from(tmp_path: Path, name: str) -> None:
    header, row = HEADER.strip(), "0,1,1"
    assert faults(tmp_path / "t", f"{header},{name}\n{row},2\n") == [f"t:1: 2 columns are called {name}"]


def test_many_bad_rows_are_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    rows = "".join(f"{i},{-1 if i % 10 == 3 else 1},1\n" for i in range(1000))
    found = faults(tmp_path / "t", HEADER + rows)
    assert found[0] == "t: 100 of 1,000 rows are bad; on_bad_rows: skip leaves such rows out"
    assert found[1:6] == [f"t:{i}: prompt tokens: negative: -1" for i in (5, 15, 25, 35, 45)]
    assert found[6].startswith("t: and lines 55, 65, 75")
    assert found[6].endswith(", ...")
    assert len(found) == 7


def test_no_rows_are_offered_to_be_left_out_where_all_are_bad(tmp_path: Path) -> None:
    found = faults(tmp_path / "t", HEADER + "x,1,1\n" * 6)
    assert (found[0], found[6]) == ("t: 6 of 6 rows are bad", "t: and line 7")


def test_a_file_that_is_bad_throughout_is_given_up(tmp_path: Path) -> None:
    rows = "x,1,1\n" * 200_000
    assert faults(tmp_path / "t", HEADER + rows, on_bad_rows="skip") == [
        "t: more than 100,000 bad rows, the first in line 2: arrived_at: not a number: x"
    ]
    assert faults(tmp_path / "t", HEADER + rows.replace("x", "nan"), on_bad_rows="skip") == [
        "t: 200,000 of 200,000 rows: the arrival time: missing or not a finite number"
    ]
    assert faults(tmp_path / "t", '{"timestamp": 0, "input_length": 1, "output_length": 1}\n' + "7\n" * 100_001) == [
        "t: more than 100,000 bad rows, the first in line 2: not a JSON object: 7"
    ]
    assert faults(tmp_path / "t", '{"prompt": "a"}\n' + "7\n" * 100_001) == [
        "t: more than 100,000 bad rows, the first in line 2: no text under prompt"
    ]


def test_line_numbers_count_blank_lines_and_quoted_breaks(tmp_path: Path) -> None:
    content = 'note,arrived_at,num_prefill_tokens,num_decode_tokens\n\n"a\nb",0,1,1\n\nx,1,-1,1\n'
    assert faults(tmp_path / "t", content)[1] == "t:6: prompt tokens: negative: -1"


def test_zero_tokens_are_no_fault_but_no_request(tmp_path: Path) -> None:
    made = load(tmp_path / "t", f"{HEADER}0,1,0\n1,0,1\n2,1,1\n")
    assert len(made) == 1
    assert made.notes == ("2 rows without a prompt or output token left out",)
    assert faults(tmp_path / "t", f"{HEADER}0,1,0\n") == ["t: no request in it: 1 row, none usable"]
    assert faults(tmp_path / "t", HEADER) == ["t: no request in it: 0 rows, none usable"]


class TestGzip:
    whole = gzip.compress((HEADER + "0,1,1\n" * 1000).encode())

    def test_truncated(self, tmp_path: Path) -> None:
        assert faults(tmp_path / "t", self.whole[:-20]) == ["t: the gzip file is truncated"]

    def test_damaged(self, tmp_path: Path) -> None:
        broken = bytearray(self.whole)
        broken[-6] ^= 0xFF
        assert faults(tmp_path / "t", bytes(broken))[0].startswith("t: the gzip file is damaged")

    def test_only_the_first_bytes(self, tmp_path: Path) -> None:
        assert faults(tmp_path / "t", b"\x1f\x8b")[0].startswith("t: the gzip file is")


def test_dates_outside_of_64_bits_of_nanoseconds(tmp_path: Path) -> None:
    found = faults(tmp_path / "t", "TIMESTAMP,ContextTokens,GeneratedTokens\n2363-11-16 18:15:46.6805900,374,44\n")
    assert found[1] == "t:2: TIMESTAMP: not a date of our times: 2363-11-16 18:15:46.6805900"


def test_half_a_token_is_none(tmp_path: Path) -> None:
    made = load(tmp_path / "t", f"{HEADER}0,0.5,1\n1,0.6,1\n2,3,4\n")
    assert made.prompt_tokens.tolist() == [1, 3]
    assert "2 rows with fractions of tokens rounded" in made.notes


def test_a_truncated_last_line(tmp_path: Path) -> None:
    assert faults(tmp_path / "t", f"{HEADER}0,1,1\n1,1")[1] == "t:3: 2 cells where the header has 3"
    cut = json.dumps(RECORD) + "\n" + json.dumps(RECORD)[:30]
    assert faults(tmp_path / "t", cut)[1].startswith("t:2: not JSON")


def test_clean_and_dirty_ways_of_reading_agree(tmp_path: Path) -> None:
    """A clean file goes through pyarrow, the same one with a bad row through Python's csv."""
    rng = np.random.default_rng(0)
    columns = zip(np.sort(rng.random(500)), *rng.integers(1, 99, (2, 500)), strict=True)
    rows = "".join(f"{t:.6f},{p},{o}\n" for t, p, o in columns)
    clean = load(tmp_path / "t", HEADER + rows)
    dirty = load(tmp_path / "t", f"{HEADER}{rows}x,1,1\n", on_bad_rows="skip")
    assert (clean.arrival_s == dirty.arrival_s).all()
    assert (clean.prompt_tokens == dirty.prompt_tokens).all()


def test_a_large_trace_is_fast_and_a_bad_row_in_it_is_found(tmp_path: Path) -> None:
    rows = [f"{i * 0.1:.1f},{i % 900 + 1},{i % 77 + 1}" for i in range(200_000)]
    rows[123_456] = "1,-3,1"
    assert faults(tmp_path / "t", HEADER + "\n".join(rows))[:2] == [
        "t: 1 of 200,000 rows is bad; on_bad_rows: skip leaves such rows out",
        "t:123458: prompt tokens: negative: -3",
    ]


SEEDS = [
    (HEADER + "0,1,1\n1.5,20,3\n").encode(),
    b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n",
    b"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n",
    (json.dumps(RECORD) + "\n").encode() * 3,
    json.dumps(
        [{"conversations": [{"from": "human", "value": "x" * 40}, {"from": "gpt", "value": "y" * 80}]}]
    ).encode(),
    json.dumps({"block_size": 64, "requests": [{"t": 0, "type": "n", "in": 3, "out": 4, "hash_ids": [1]}]}).encode(),
    b'{"input_lens":[374,396],"output_lens":[44,109],"start_times":[100.0,104.3]}',
    json.dumps({"timestamp": "3", "input_length": 5, "output_length": 5, "hash_ids": {"sys_prompt": [1]}}).encode()
    + b"\n",
    b'{"prompt": "hello", "output_tokens": 3}\n',
    b"conv_index,turn_index,role,gpt2_tokens\n0,0,u,34\n0,1,a,259\n",
]
JUNK = [bytes([byte]) for byte in b',\n\r"-{[]}: 0\x00\xff']
JUNK += [b"1e999", b"nan", b"null", b"true", b"-1", b"9" * 21, b"\x1f\x8b", b"\xef\xbb\xbf", b"PAR1"]


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    content = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(content)))
        junk = draw(st.one_of(st.sampled_from(JUNK), st.binary(max_size=4)))
        content = content[:place] + junk + content[place + draw(st.integers(0, 8)) :]
    return gzip.compress(content) if draw(st.booleans()) and draw(st.booleans()) else content


@settings(max_examples=400, deadline=None)
@given(
    content=st.one_of(mangled(), st.binary(max_size=60)),
    form=st.sampled_from(["auto", *FORMATS]),
)
@example(content=b"PAR1", form="parquet")
@example(content=b'{"hash_ids": {"sys_prompt": 5}, "input_length": 3}', form="ragpulse")
def test_no_bytes_make_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes, form: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz"
    for on_bad_rows in ("error", "skip"):
        verdict = outcome(path, content, form, on_bad_rows)
        assert verdict == "read" or (verdict.strip() and "Traceback" not in verdict)


def outcome(path: Path, content: bytes, form: str, on_bad_rows: str) -> str:
    """Read a file; return "read", or what the error says."""
    try:
        made = load(path, content, format=form, on_bad_rows=on_bad_rows)
    except WorkloadError as error:
        return str(error)
    believable = len(made) > 0 and np.isfinite(made.arrival_s).all() and made.prompt_tokens.min() > 0
    return "read" if believable else ""
