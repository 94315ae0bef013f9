"""Plain tables of requests: CSV, JSON lines and Parquet with columns of any name, and what is wrong in them."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.workloads.conftest import Small
from tests.workloads.samples import FILES, lines, load
from workloads.errors import WorkloadError
from workloads.generate import requests as make
from workloads.traces import find


class TestTables:
    def test_burstgpt_leaves_failures_out_and_knows_models(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["burstgpt"])
        assert made.arrival_s.tolist() == [0, 40]
        assert made.notes[-1] == "1 row without a prompt or output token left out"
        assert load(tmp_path, FILES["burstgpt"], only_model="GPT-4").prompt_tokens.tolist() == [1087]

    def test_a_model_that_no_row_is_of_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(
            WorkloadError, match=r"no row is of model GPT4 \(did you mean GPT-4\?\); there are: ChatGPT, G"
        ):
            load(tmp_path, FILES["burstgpt"], only_model="GPT4")
        with pytest.raises(WorkloadError, match="read as azure, which names no models: leave out only_model"):
            load(tmp_path, FILES["azure"], only_model="GPT-4")
        with pytest.raises(WorkloadError, match="no column Model to find those of GPT-4 by"):
            load(tmp_path, "Timestamp,Request tokens,Response tokens\n5,472,18\n", only_model="GPT-4")

    def test_burstgpt_2_is_read_by_name(self, tmp_path: Path) -> None:
        header = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
        made = load(tmp_path, f"{header}\n19440110.0,u-u-i-d,43,GPT-4,906,446,1352,Conversation log\n")
        assert (made.prompt_tokens.tolist(), made.output_tokens.tolist()) == ([906], [446])

    def test_lengths_alone_arrive_at_once_or_as_they_are_told(self, tmp_path: Path, small: Small) -> None:
        made = load(tmp_path, FILES["vidur-lengths"])
        assert made.arrival_s.tolist() == [0]
        assert "no arrival times" in made.notes[0]
        path = tmp_path / "pairs.csv"
        path.write_text("prompt_tokens,output_tokens\n" + "5,6\n" * 50)
        paced = make(small(f"requests={{trace: {path}, arrivals: {{kind: fixed, rate: 2}}}}"))
        assert paced.arrival_s.tolist() == [i / 2 for i in range(50)]
        path.write_text("start,prompt_tokens,output_tokens\n" + "0,5,6\n" * 50)
        assert (
            "; columns are start, prompt_tokens, output_tokens; " in make(small(f"requests={{trace: {path}}}")).notes[0]
        )
        users = make(small(f"requests={{trace: {path}, arrivals: {{kind: closed, users: 5}}}}"))
        assert (users.after < 0).sum() == 5

    def test_a_csv_of_one_s_own_may_have_dates(self, tmp_path: Path) -> None:
        assert "arrival_s (s, or dates)" in find("csv").about, "and says so in `list traces`"
        made = load(
            tmp_path, "Time,Prompt_Tokens,completion_tokens\n2026-11-01T10:00:00Z,5,6\n2026-11-01T10:00:02Z,7,8\n"
        )
        assert made.arrival_s.tolist() == [0, 2]
        named = load(tmp_path, "arrived_at,prompt_tokens,output_tokens\n10,5,6\n12,7,8\n")
        assert named.arrival_s.tolist() == [0, 2]

    @pytest.mark.parametrize("header", [
        "Start Time,Input Tokens,Completion Tokens", "startTime,inputTokens,completionTokens",
        "start-time,INPUT_TOKENS,completion.tokens", "created_at,num_prompt_tokens,Output Token Count",
    ])  # fmt: skip
    def test_common_names_are_understood_however_they_are_spelled(self, tmp_path: Path, header: str) -> None:
        made = load(tmp_path, f"id,{header}\n7,2026-11-01T10:00:00Z,5,6\n8,2026-11-01T10:00:02Z,7,8\n")
        assert (made.arrival_s.tolist(), made.prompt_tokens.tolist(), made.output_tokens.tolist()) == (
            [0, 2], [5, 7], [6, 8],
        )  # fmt: skip
        later = load(tmp_path, "Start Time (ms),Prompt Tokens,prompt_tokens,output\n0,1,5,6\n2000,1,7,8\n")
        assert later.arrival_s.tolist() == [0, 2]
        assert later.prompt_tokens.tolist() == [5, 7], "what is spelled as ours comes first"

    def test_uncommon_names_are_told_by_the_file(self, tmp_path: Path) -> None:
        rows = [
            {"Begin (CET)": 10, "in": 5, "out": 6, "output": 1},
            {"Begin (CET)": 12, "in": 7, "out": 8, "output": 1},
        ]
        table = f"{','.join(rows[0])}\n" + "".join(f"{','.join(map(str, row.values()))}\n" for row in rows)
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "own.parquet")
        named = {"arrival_column": "begin (cet)", "prompt_column": "in", "output_column": "out"}
        for content in (table, lines(rows), (tmp_path / "own.parquet").read_bytes()):
            made = load(tmp_path, content, **named)
            assert (made.arrival_s.tolist(), made.prompt_tokens.tolist(), made.output_tokens.tolist()) == (
                [0, 2], [5, 7], [6, 8],
            )  # fmt: skip
            with pytest.raises(
                WorkloadError, match=r"no column Begin \(did you mean Begin \(CET\)\?\), as arrival_col"
            ):
                load(tmp_path, content, **named | {"arrival_column": "Begin"})
        with pytest.raises(WorkloadError, match=r"of no known format .* prompt_column and output_column say what they"):
            load(tmp_path, "a,b\n1,2\n")
        with pytest.raises(WorkloadError, match="read as azure, whose columns have their names: leave out those here"):
            load(tmp_path, FILES["azure"], format="azure", prompt_column="ContextTokens")

    def test_lengths_may_be_written_in_groups_of_three_digits(self, tmp_path: Path) -> None:
        made = load(tmp_path, 'time,prompt,output\n0,"1,837",6\n1,"12,001,837",8\n')
        assert made.prompt_tokens.tolist() == [1837, 12_001_837]
        for bad in ("1,83", "0,837", "1,8370"):
            with pytest.raises(WorkloadError, match=f'prompt: not a number: "{bad}"'):
                load(tmp_path, f'time,prompt,output\n0,"{bad}",6\n1,5,6\n')
        with pytest.raises(WorkloadError, match='time: not a number: "1,837"'):  # where a comma may be a decimal one
            load(tmp_path, 'time,prompt,output\n"1,837",6,6\n2,5,6\n')

    def test_dates_are_found_behind_quoted_commas_and_blank_lines(self, tmp_path: Path) -> None:
        rows = 'a,"b, c",2026-11-01T10:00:00Z,5,6\r\n\r\n7,x,"2026-11-01T12:00:02+02:00",7,8\r\n'
        made = load(tmp_path, f'\ufeffid,"note, or none",arrival_s,prompt_tokens,output_tokens\r\n\r\n{rows}')
        assert (made.arrival_s.tolist(), made.prompt_tokens.tolist()) == ([0, 2], [5, 7])

    def test_a_quotation_mark_that_is_not_closed_is_told_in_few_words(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError) as told:
            load(tmp_path, '"arrival_s,prompt_tokens,output_tokens\n' + "0,5,6\n" * 1000)
        assert "trace: 1 of 1 row is bad\n" in str(told.value)
        assert "trace:1: not CSV, as where a quotation mark is not closed: unexpected end of data" in str(told.value)

    @pytest.mark.parametrize(("others", "unpaired", "left"), [
        ("n", '"n', 50),  # all that follows would be in one cell
        ('"n"', '"n', 98),  # the next row would
        ("n", '"n"n"', 99),
        ("n", 'n"', 100),  # a mark within a word is a letter like any other
    ])  # fmt: skip
    def test_no_row_goes_into_a_cell_without_a_word(
        self, tmp_path: Path, others: str, unpaired: str, left: int
    ) -> None:
        rows = [f"{at},5,6,{unpaired if at == 50 else others}\n" for at in range(100)]
        content = f"time,prompt,output,note\n{''.join(rows)}"
        made = load(tmp_path, content, on_bad_rows="skip")
        assert len(made) == left
        if left < 100:
            with pytest.raises(WorkloadError, match=r"trace:52: not CSV, as where a quotation mark is not closed: "):
                load(tmp_path, content)

    @pytest.mark.parametrize("bad", ["", "soon,1,1\n"])  # with a bad row all are read one by one
    def test_dates_may_lack_what_iso_8601_lets_them_lack(self, tmp_path: Path, bad: str) -> None:
        for later, seconds in (("2026-11-01 00:02", 120), ("2026-11-02", 86400), ("2026-11-01T00:00:05", 5)):
            text = f"time,prompt,output\n2026-11-01,5,6\n{later},7,8\n{bad}"
            assert load(tmp_path, text, on_bad_rows="skip").arrival_s.tolist() == [0, seconds]
        text = f"time,prompt,output\n2026-11-01T00:00+02,5,6\n2026-11-01T00:00-0130,7,8\n{bad}"
        assert load(tmp_path, text, on_bad_rows="skip").arrival_s.tolist() == [0, 3.5 * 3600]

    def test_another_order_of_a_date_is_told_which_is_read(self, tmp_path: Path) -> None:
        for date in ("11/01/2026 10:00", "1.11.2026"):
            with pytest.raises(WorkloadError, match=rf"not a date and time such as 2026-11-30T23:59:59Z: {date}"):
                load(tmp_path, f"time,prompt,output\n{date},5,6\n")

    def test_json_lines_of_one_s_own(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["jsonl"])
        assert made.arrival_s.tolist() == [0, 1]
        assert (made.prompt_tokens.tolist(), made.output_tokens.tolist()) == ([10, 11], [20, 21])
        row = {"input_tokens": 5, "output_tokens": 6}
        note = load(tmp_path, lines([row])).notes[0]
        assert note.startswith("no arrival times: all requests arrive at once unless arrivals are given; ")
        assert "columns are input_tokens, output_tokens; one of times is what arrival_column names, or call" in note
        dated = [{"time": f"2026-11-01T10:00:0{second}Z", **row} for second in (0, 2)]
        assert load(tmp_path, lines(dated)).arrival_s.tolist() == [0, 2]
        for bad in (7, "soon"):
            with pytest.raises(WorkloadError, match=rf"trace:3: time: not a date and time such as .*: {bad}"):
                load(tmp_path, lines([*dated, {"time": bad, **row}]))

    @pytest.mark.parametrize("content", ['{"prompt_tokens": "5", "output_tokens": "6"}', '[{"prompt_tokens": 5},'])
    def test_json_of_one_s_own_is_told_what_it_needs(self, tmp_path: Path, content: str) -> None:
        needs = "Your own JSON needs a record a line, with numbers called arrival_s, prompt_tokens, output_tokens; or "
        with pytest.raises(WorkloadError, match=needs):
            load(tmp_path, content)

    @pytest.mark.parametrize(("column", "first", "unit"), [
        ("arrival_ms", 5, 1e-3), ("timestamp_us", 5, 1e-6), ("time_ns", 5, 1e-9),
        ("timestamp", 1_700_000_000_000, 1e-3), ("timestamp", 1_700_000_000_000_000, 1e-6),
        ("timestamp", 1_700_000_000_000_000_000, 1e-9), ("timestamp", 1_700_000_000, 1),
    ])  # fmt: skip
    def test_units_of_time_are_told_by_name_or_by_size(
        self, tmp_path: Path, column: str, first: int, unit: float
    ) -> None:
        rows = [(first, 5, 6), (first + round(1.5 / unit), 5, 6)] if unit < 1 else [(first, 5, 6), (first + 1.5, 5, 6)]
        made = load(tmp_path, f"{column},prompt_tokens,output_tokens\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
        assert made.arrival_s == pytest.approx([0, 1.5], abs=1e-6)
        told = [note for note in made.notes if "too large for seconds since 1970, read as" in note]
        assert len(told) == (first > 1e11)

    @pytest.mark.parametrize("dated", [False, True])
    def test_parquet(self, tmp_path: Path, dated: bool) -> None:
        times = pa.array([10**18, 10**18 + 1_500_000_000], pa.timestamp("ns")) if dated else pa.array([3.0, 4.5])
        table = pa.table({"arrival_s": times, "prompt_tokens": [5, 6], "output_tokens": [7, 8]})
        parquet.write_table(table, tmp_path / "trace.parquet")
        made = load(tmp_path, (tmp_path / "trace.parquet").read_bytes())
        assert made.arrival_s.tolist() == [0, 1.5]
        assert made.prompt_tokens.tolist() == [5, 6]

    @pytest.mark.parametrize("times", [
        pa.array(["2026-11-01T10:00:00Z", "2026-11-01T11:00:01+01:00"]),
        pa.array(["2026-11-01 10:00", "2026-11-01 10:00:01"]).dictionary_encode(),
        pa.array([60, 61], pa.duration("s")), pa.array(["3", "4"]),
    ])  # fmt: skip
    def test_parquet_has_times_of_many_types(self, tmp_path: Path, times: pa.Array) -> None:
        parquet.write_table(pa.table({"time": times, "prompt": [5, 6], "output": [7, 8]}), tmp_path / "trace.parquet")
        assert load(tmp_path, (tmp_path / "trace.parquet").read_bytes()).arrival_s.tolist() == [0, 1]

    def test_parquet_tells_which_text_is_no_date(self, tmp_path: Path) -> None:
        times = ["2026-11-01", "soon", None, "2026-11-02"]
        table = pa.table({"time": times, "prompt": [1, 2, 3, 4], "output": [1, 1, 1, -1]})
        parquet.write_table(table, tmp_path / "trace.parquet")
        with pytest.raises(WorkloadError) as told:
            load(tmp_path, (tmp_path / "trace.parquet").read_bytes())
        assert [line[line.index("trace:") :] for line in str(told.value).split("\n")[1:]] == [
            "trace:2: time: not a date and time such as 2026-11-30T23:59:59Z: soon",
            "trace:3: the arrival time: missing or not a finite number: nan",
            "trace:4: output tokens: negative: -1",
        ]

    def test_parquet_is_read_without_a_thread_that_could_outlive_the_process(self, tmp_path: Path) -> None:
        table = pa.table({"time": [0.0, 1.0], "prompt": [5, 6], "output": [7, 8]})
        parquet.write_table(table, tmp_path / "trace.parquet")
        threads = Path("/proc/self/task")
        if not threads.is_dir():
            pytest.skip("this system does not list threads")
        reading = (
            "import sys; from sim.cli.process import settle; settle()\n"
            "import pathlib, pyarrow.parquet, numpy as np; from workloads import trace, traces\n"
            f"def threads(): return len([*pathlib.Path('{threads}').iterdir()])\n"
            "before = threads(); traces.read(trace.Trace(trace=sys.argv[1]), np.random.default_rng())\n"
            "print(threads() - before)"
        )
        told = subprocess.run(
            [sys.executable, "-c", reading, tmp_path / "trace.parquet"], check=False, capture_output=True, text=True
        )
        assert (told.stdout, told.stderr) == ("0\n", "")

    def test_what_a_run_s_own_requests_lose_is_told(self, tmp_path: Path) -> None:
        columns = {"request_id": [0, 1, 2], "arrival_s": [0.0, 1, 2], "prompt_tokens": [5, 6, 7]}
        columns |= {"output_tokens": [1, 2, 3], "scheduled_s": [0.0, 1, 2], "first_token_s": [1.0, 2, 3]}
        for samples, group, notes in (
            ([1, 2, 3], [-1, -1, -1], ["2 requests of several samples are replayed with one each"]),
            ([1, 1, 1], [0, -1, 0], ["2 requests whose prompts begin alike are replayed as if they did not"]),
            ([1, 1, 1], [-1, -1, -1], []),
        ):
            table = pa.table(columns | {"samples": samples, "prefix_group": group})
            parquet.write_table(table, tmp_path / "requests.parquet")
            assert list(load(tmp_path, (tmp_path / "requests.parquet").read_bytes()).notes) == notes

    def test_parquet_without_some_dates(self, tmp_path: Path) -> None:
        dates = pa.array([None, 10**18, None, 10**18 + 2 * 10**9], pa.timestamp("ns"))
        table = pa.table({"time": dates, "prompt": [1, 2, 3, 4], "output": [1, 1, 1, 1]})
        parquet.write_table(table, tmp_path / "trace.parquet")
        content = (tmp_path / "trace.parquet").read_bytes()
        with pytest.raises(WorkloadError, match=r"2 of 4 rows are bad; on_bad_rows: skip .*\n.*:1: the arrival time: "):
            load(tmp_path, content)
        made = load(tmp_path, content, on_bad_rows="skip")
        assert made.arrival_s.tolist() == [0, 2]
        assert made.prompt_tokens.tolist() == [2, 4]

    def test_parquet_faults(self, tmp_path: Path) -> None:
        parquet.write_table(pa.table({"prompt": [1]}), tmp_path / "half.parquet")
        with pytest.raises(WorkloadError, match="no column output_tokens; columns: prompt"):
            load(tmp_path, (tmp_path / "half.parquet").read_bytes())
        parquet.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
        whole = (tmp_path / "a.parquet").read_bytes()
        with pytest.raises(WorkloadError, match="no column prompt_tokens and output_tokens; columns: a"):
            load(tmp_path, whole)
        with pytest.raises(WorkloadError, match="cannot be read as parquet"):
            load(tmp_path, whole[:-9])
