"""Every trace format: told by its content, read as documented."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

from workloads.errors import WorkloadError
from workloads.requests import Requests
from workloads.schema import Workload
from workloads.streams import stream
from workloads.trace import Trace
from workloads.traces import FORMATS, detect, find, read
from workloads.traces.files import TraceFile
from workloads.traces.rows import Rows, coarse_clock, requests_of, spread_ticks

Small: TypeAlias = Callable[..., Workload]

MOONCAKE = [
    {"timestamp": 27482, "input_length": 1500, "output_length": 52, "hash_ids": [46, 47, 2353]},
    {"timestamp": 30535, "input_length": 1024, "output_length": 26, "hash_ids": [46, 47]},
    {"timestamp": 33535, "input_length": 600, "output_length": 1, "hash_ids": [46]},
]
BAILIAN = [
    {"chat_id": 55, "parent_chat_id": -1, "timestamp": 3.5, "input_length": 20, "output_length": 7, "type": "text",
     "turn": 1, "hash_ids": [1, 2]},
    {"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 40, "output_length": 132,
     "type": "text", "turn": 2, "hash_ids": [1, 2, 3]},
]  # fmt: skip
RAGPULSE = [
    {"timestamp": "27", "input_length": 700, "output_length": 127, "session_id": "a", "hash_ids": {
        "sys_prompt": [8325], "passages_ids": [6123], "history": [15215], "web_search": [], "user_input": [23648]}},
    {"timestamp": "29", "input_length": 650, "output_length": 10, "session_id": "b", "hash_ids": {
        "sys_prompt": [8325], "passages_ids": [6123], "history": [], "web_search": [], "user_input": [23649]}},
]  # fmt: skip
WEKA = {
    "id": "trace_0371", "models": ["m"], "block_size": 64, "hash_id_scope": "local",
    "tool_tokens": 1, "system_tokens": 2,
    "requests": [
        {"t": 0.0, "type": "s", "in": 128, "out": 5, "hash_ids": [1, 2]},
        {"t": 10.0, "type": "subagent", "agent_id": "x", "requests": [
            {"t": 0.5, "type": "n", "in": 64, "out": 7, "hash_ids": [9]}]},
        {"t": 36.0, "type": "n", "in": 200, "out": 542, "hash_ids": [1, 2, 3], "api_time": 6.94, "think_time": 0.0},
    ],
}  # fmt: skip
SHAREGPT = [
    {"id": "a", "conversations": [
        {"from": "human", "value": "x" * 40}, {"from": "gpt", "value": "y" * 80},
        {"from": "human", "value": "z" * 16}, {"from": "gpt", "value": "w" * 20}]},
    {"id": "b", "conversations": []},
    {"id": "c", "conversations": [{"from": "human", "value": "ab"}, {"from": "gpt", "value": "y" * 80}]},
]  # fmt: skip


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


FILES = {
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,API log\n46,ChatGPT,20,0,20,API log\n",
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n1.5,396,109.0\n4.314579,7,1\n",
    "vidur-lengths": "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n3772,54,3826,69.85185185185185\n",
    "splitwise": "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
    "0,2,0,1,1,4096,32\n",
    "turns": "conv_index,turn_index,role,gpt2_tokens,llama3_tokens\n"
    "0,0,u,34,34\n0,1,a,259,244\n0,2,u,36,36\n0,3,a,333,319\n",
    "sharegpt": json.dumps(SHAREGPT),
    "weka": json.dumps(WEKA),
    "bailian": lines(BAILIAN),
    "ragpulse": lines(RAGPULSE),
    "aiperf": lines([
        {"timestamp": 10535, "input_length": 672, "output_length": 52, "hash_ids": [46, 47], "session_id": "123"},
        {"delay": 500, "input_length": 900, "output_length": 10, "hash_ids": [46, 48], "session_id": "123"},
    ]),
    "aiperf-text": lines([
        {"session_id": "a", "turns": [
            {"text": "x" * 40, "timestamp": 2000, "output_length": 7}, {"texts": ["y" * 8, "z"], "delay": 500}]},
        {"text": "hello", "timestamp": 2250},
        {"timestamp": 3000, "output_length": 9, "messages": [
            {"role": "system", "content": "w" * 16},
            {"role": "user", "content": [{"type": "text", "text": "v"}, {"type": "image_url", "image_url": {}}]}]},
        {"timestamp": 4000, "payload": {"prompt": "u" * 12, "max_tokens": 3}},
        {"timestamp": 5000, "text_input": "t", "output_length": 2},
    ]),
    "mooncake": lines(MOONCAKE),
    "guidellm": lines([
        {"timestamp": 4.3, "input_length": 396, "output_length": 109},
        {"timestamp": 5.0, "input_length": 40, "output_length": 9},
    ]),
    "vllm-dataset": lines([{"prompt": "x" * 41, "output_tokens": 10}, {"prompt": "hello"}]),
    "vllm-result": '{"completed":2,"duration":6.0,"input_lens":[374,396],"output_lens":[44,109],'
    '"start_times":[100.0,104.3],"ttfts":[0.05,0.06],"generated_texts":["secret","text"]}',
    "csv": "id,arrival,prompt_len,output_len\n7,0.5,10,20\n8,1.5,11,21\n",
    "jsonl": lines([
        {"arrival": 0.5, "prompt_len": 10, "output_len": 20}, {"output_len": 21, "prompt_len": 11, "arrival": 1.5},
    ]),
}  # fmt: skip


def load(tmp_path: Path, content: str | bytes, **options: Any) -> Requests:
    path = tmp_path / "trace"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(Trace(trace=str(path), **options), stream(0, "spread"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("zipped", [False, True])
def test_told_by_content_whatever_the_name(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / "some.dat"
    content = FILES[name].encode()
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert detect(TraceFile(path)).name == name


@pytest.mark.parametrize("name", FILES)
def test_other_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path, name: str) -> None:
    plain = FILES[name].replace("\r\n", "\n")
    one = load(tmp_path, plain)
    for other in (plain.replace("\n", "\r\n"), "\ufeff" + plain, plain.rstrip("\n"), plain.replace("\n", "\n\n")):
        two = load(tmp_path, other)
        assert (one.arrival_s == two.arrival_s).all()
        assert (one.prompt_tokens == two.prompt_tokens).all()
        assert (one.output_tokens == two.output_tokens).all()


def test_every_format_has_a_file_here() -> None:
    assert {*FORMATS} == {*FILES, "parquet"}
    assert all(find(name).name == name for name in FORMATS)


def test_unknown_names_and_contents(tmp_path: Path) -> None:
    with pytest.raises(
        WorkloadError, match=r"unknown trace format azur \(did you mean azure\?\); known: parquet, azure"
    ):
        find("azur")
    with pytest.raises(WorkloadError, match=r"of no known format .*; it is not text\."):
        load(tmp_path, bytes(range(128, 256)))
    with pytest.raises(WorkloadError, match=r'of no known format .* it begins "a,b"\.'):
        load(tmp_path, "a,b\n1,2\n")
    with pytest.raises(WorkloadError, match="the file is empty"):
        load(tmp_path, " \n")
    with pytest.raises(
        WorkloadError, match=r"trace:1: no column prompt_tokens \(did you mean promt_tokens\?\); columns: "
    ):
        load(tmp_path, "arrival_s,promt_tokens,output_tokens\n1,2,3\n")
    for mark, called in ((";", "semicolons"), ("\t", "tabs")):
        with pytest.raises(WorkloadError, match=f"trace:1: columns set apart by {called}; a CSV has commas"):
            load(tmp_path, "arrival_s,prompt_tokens,output_tokens\n1,2,3\n".replace(",", mark))
    with pytest.raises(WorkloadError, match="UTF-16 text; save it as UTF-8"):
        load(tmp_path, FILES["vidur"].encode("utf-16"))
    with pytest.raises(WorkloadError, match="cannot be read: No such file"):
        read(Trace.model_construct(trace=str(tmp_path / "none"), format="auto", block_size=None, only_model=None,
                                   tokenizer=None, turns="first"), stream(0, "x"))  # fmt: skip


class TestAzure:
    def test_seven_digits_are_exact(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["azure"])
        assert made.arrival_s.tolist() == [0, 4.314579]
        assert made.prompt_tokens.tolist() == [374, 396]
        assert made.output_tokens.tolist() == [44, 109]

    def test_2024_has_offsets(self, tmp_path: Path) -> None:
        rows = "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,2399,6\n"
        made = load(tmp_path, f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}")
        assert made.arrival_s.tolist() == [0, 0.99007]

    def test_dates_are_read_alike_row_by_row(self, tmp_path: Path) -> None:
        """A bad row makes the reader go row by row; the times of the others must not change."""
        rows = FILES["azure"].splitlines()
        made = load(tmp_path, "\n".join([*rows, "tomorrow,1,1"]), on_bad_rows="skip")
        assert made.arrival_s.tolist() == [0, 4.314579]
        assert "tomorrow" in made.notes[1]


class TestHashed:
    def test_mooncake_counts_milliseconds_and_blocks_of_512(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["mooncake"])
        assert made.arrival_s == pytest.approx([0, 3.053, 6.053])
        assert made.prefixes.pieces(0) == [(46, 512), (47, 512), (2353, 476)]
        assert made.prefixes.pieces(1) == [(46, 512), (47, 512)]

    def test_tokens_that_no_hash_covers_are_the_request_s_own(self, tmp_path: Path) -> None:
        pieces = load(tmp_path, FILES["mooncake"]).prefixes.pieces(2)
        assert pieces[0] == (46, 512)
        assert pieces[1][1] == 88
        assert pieces[1][0] not in {46, 47, 2353}

    def test_bailian_counts_seconds_and_blocks_of_16(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["bailian"])
        assert made.arrival_s == pytest.approx([0, 57.614])
        assert made.prefixes.pieces(1) == [(1, 16), (2, 16), (3, 8)]

    def test_guidellm_counts_seconds(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["guidellm"])
        assert made.arrival_s == pytest.approx([0, 0.7])
        assert made.prefixes is None

    def test_the_format_can_be_forced_and_the_block_size_given(self, tmp_path: Path) -> None:
        made = load(tmp_path, lines([{**row, "hash_ids": row["hash_ids"][:1]} for row in MOONCAKE]),
                    format="guidellm", block_size=1024)  # fmt: skip
        assert made.arrival_s == pytest.approx([0, 3053, 6053])
        assert made.prefixes.pieces(0)[0] == (46, 1024)

    def test_aiperf_turns_follow_each_other(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["aiperf"])
        assert made.after.tolist() == [-1, 0]
        assert made.delay_s.tolist() == [0, 0.5]
        assert made.arrival_s.tolist() == [0, 0.5]

    def test_aiperf_texts_are_counted_and_turns_repeat_what_was_said(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["aiperf-text"])
        assert made.arrival_s.tolist() == [0, 0.25, 0.5, 1, 2, 3]
        assert made.prompt_tokens.tolist() == [10, 2, 10 + 7 + 3, 5, 3, 1]
        assert made.output_tokens.tolist() == [7, 256, 256, 9, 3, 2]
        assert made.after.tolist() == [-1, -1, 0, -1, -1, -1]
        assert made.delay_s[2] == 0.5
        assert made.prefixes.pieces(2)[:2] == [*made.prefixes.pieces(0), (made.prefixes.outputs[0], 7)]
        assert not any("xx" in str(value) for value in vars(made).values())

    def test_more_hashes_than_blocks(self, tmp_path: Path) -> None:
        bad = lines([{**MOONCAKE[0], "hash_ids": [1, 2, 3, 4]}])
        with pytest.raises(WorkloadError, match=":1: 4 hash ids for 1500 tokens in blocks of 512"):
            load(tmp_path, bad)

    def test_huge_and_negative_ids_are_renumbered(self, tmp_path: Path) -> None:
        made = load(
            tmp_path, lines([{**MOONCAKE[0], "hash_ids": [-5, 2**62, -5]}, {**MOONCAKE[1], "hash_ids": [-5, 2**62]}])
        )
        first, second = made.prefixes.pieces(0), made.prefixes.pieces(1)
        assert first[0] == second[0]
        assert first[1] == second[1]
        assert min(made.prefixes.ids) >= 0


class TestWeka:
    def test_subagents_count_from_their_marker(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["weka"])
        assert made.arrival_s.tolist() == [0, 10.5, 36]
        assert made.output_tokens.tolist() == [5, 7, 542]
        assert [length for _, length in made.prefixes.pieces(2)] == [64, 64, 64, 8]

    @pytest.mark.parametrize(("scope", "shared"), [("local", False), ("global", True)])
    def test_hashes_are_local_to_a_session_unless_global(self, tmp_path: Path, scope: str, shared: bool) -> None:
        session = {**WEKA, "hash_id_scope": scope}
        made = load(tmp_path, lines([session, session]))
        firsts = [made.prefixes.pieces(i)[0] for i in range(6) if made.prompt_tokens[i] == 128]
        assert (firsts[0] == firsts[1]) is shared

    def test_a_bad_block_size(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match="block_size: must be a whole number of tokens, got 0"):
            load(tmp_path, lines([{**WEKA, "block_size": 0}, WEKA]))


class TestRagPulse:
    def test_without_the_files_beside_it_nothing_is_shared(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["ragpulse"])
        assert made.prefixes is None
        assert made.arrival_s.tolist() == [0, 2]
        assert "sharing nothing" in made.notes[0]

    def test_with_them_parts_have_their_lengths(self, tmp_path: Path) -> None:
        lengths = {
            "1_sys_prompt.jsonl": ("sys_prompt_id", 8325, 512),
            "2_passages.jsonl": ("passages_id", 6123, 100),
            "3_history.jsonl": ("history_id", 15215, 60),
            "4_user_input.jsonl": ("user_input_id", 23648, 20),
            "5_web_search.jsonl": ("web_search_id", 1, 1),
        }
        for name, (key, identity, tokens) in lengths.items():
            (tmp_path / name).write_text(json.dumps({key: identity, "token_length": tokens}) + "\n")
        made = load(tmp_path, FILES["ragpulse"])
        assert made.prefixes.pieces(0)[:4] == [(8325, 512), (6123, 100), (15215, 60), (23648, 20)]
        assert made.prefixes.pieces(0)[4][1] == 8
        assert made.prefixes.pieces(1)[:2] == [(8325, 512), (6123, 100)]


class TestConversations:
    def test_first_exchanges_pass_vllm_s_filter(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["sharegpt"])
        assert (made.prompt_tokens.tolist(), made.output_tokens.tolist()) == ([10], [20])
        assert "estimated as 4 bytes per token" in made.notes[0]

    def test_all_turns_repeat_their_history(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["sharegpt"], turns="all")
        assert made.prompt_tokens.tolist() == [10, 34, 1]
        assert made.output_tokens.tolist() == [20, 5, 20]
        said = [*made.prefixes.pieces(0), (made.prefixes.outputs[0], 20)]
        assert made.prefixes.pieces(1)[:2] == said

    def test_a_tokenizer_counts_exactly(self, tmp_path: Path) -> None:
        tokenizers = pytest.importorskip("tokenizers", reason="the optional package tokenizers is not installed")
        model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"x": 0, "[UNK]": 1}, unk_token="[UNK]"))  # noqa: S106 - a token of text
        model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        model.save(str(tmp_path / "tokenizer.json"))
        chat = {"conversations": [{"from": "human", "value": "x x x x x"}, {"from": "gpt", "value": "x x x x x x"}]}
        made = load(tmp_path, json.dumps([chat]), tokenizer=str(tmp_path / "tokenizer.json"))
        assert (made.prompt_tokens.tolist(), made.output_tokens.tolist()) == ([5], [6])
        (tmp_path / "bad.json").write_text("{}")
        with pytest.raises(WorkloadError, match=r"bad\.json: not a tokenizer\.json"):
            load(tmp_path, json.dumps([chat]), tokenizer=str(tmp_path / "bad.json"))

    def test_lengths_of_turns(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["turns"], turns="all")
        assert made.prompt_tokens.tolist() == [34, 34 + 259 + 36]
        assert made.output_tokens.tolist() == [259, 333]


class TestVllm:
    def test_dataset(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["vllm-dataset"])
        assert made.prompt_tokens.tolist() == [11, 2]
        assert made.output_tokens.tolist() == [10, 256]

    def test_result(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["vllm-result"])
        assert made.arrival_s == pytest.approx([0, 4.3])
        assert made.output_tokens.tolist() == [44, 109]

    def test_result_without_arrays(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match="no input_lens: save it with --save-detailed"):
            load(tmp_path, '{"completed": 2, "total_input_tokens": 7}')


class TestReplay:
    def test_rate_scale_divides_every_gap(self, tmp_path: Path) -> None:
        once, twice = load(tmp_path, FILES["vidur"]), load(tmp_path, FILES["vidur"], rate_scale=2.0)
        assert twice.arrival_s.tolist() == (once.arrival_s / 2).tolist()

    def test_count_takes_the_first(self, tmp_path: Path) -> None:
        assert len(load(tmp_path, FILES["mooncake"], count=2)) == 2
        more = load(tmp_path, FILES["mooncake"], count=5)
        assert len(more) == 3
        assert more.notes == ("5 requests are asked for, the trace has 3",)

    def test_one_in_so_many_is_what_an_engine_gets_that_takes_turns(self, tmp_path: Path) -> None:
        text = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{2 * at},{at + 1},9\n" for at in range(8))
        made = load(tmp_path, text, one_in=3, rate_scale=2.0)
        assert made.arrival_s.tolist() == [0, 3, 6]
        assert made.prompt_tokens.tolist() == [1, 4, 7]
        assert load(tmp_path, text, one_in=3, count=6).prompt_tokens.tolist() == [1, 4]

    def test_one_in_so_many_keeps_conversations_whole(self, tmp_path: Path) -> None:
        """Conversations begin with rows 0, 1, 2 and 5; rows 3, 4 and 6 continue the first."""
        rows = Rows(
            arrival_s=np.arange(7.0),
            prompt_tokens=np.arange(1.0, 8.0),
            output_tokens=np.full(7, 6.0),
            lines=list,
            after=np.array([-1, -1, -1, 0, 0, -1, 4]),
            delay_s=np.full(7, 0.5),
        )
        (path := tmp_path / "rows.csv").touch()
        made = requests_of(rows, Trace(trace=str(path), one_in=2), stream(0, "spread"))
        assert made.prompt_tokens.tolist() == [1, 3, 4, 5, 7]
        assert made.after.tolist() == [-1, -1, 0, 0, 3]

    def test_shuffled_rows_are_sorted_with_their_blocks(self, tmp_path: Path) -> None:
        made = load(tmp_path, lines([MOONCAKE[2], MOONCAKE[0], MOONCAKE[1]]))
        straight = load(tmp_path, lines(MOONCAKE))
        assert made.prompt_tokens.tolist() == straight.prompt_tokens.tolist()
        assert made.prefixes.pieces(0) == straight.prefixes.pieces(0)
        assert made.notes == ("rows were not in order of arrival: sorted",)

    def test_a_coarse_clock_is_spread_and_a_fine_one_is_not(self, tmp_path: Path) -> None:
        ticks = np.repeat(np.arange(200) * 3000, 10)
        records = [{"timestamp": int(t), "input_length": 5, "output_length": 5} for t in ticks]
        spread = load(tmp_path, lines(records))
        assert (np.floor(spread.arrival_s / 3) == ticks / 3000).all()
        assert (np.diff(spread.arrival_s) > 0).all()
        kept = load(tmp_path, lines(records), spread=False)
        assert (kept.arrival_s == ticks / 1000).all()
        fine = load(tmp_path, FILES["mooncake"])
        assert fine.notes == ()

    def test_links_follow_their_rows_and_one_that_leads_forward_is_cut(self, tmp_path: Path) -> None:
        """Row 0 follows row 3, which arrives before it; row 1 follows row 2, which arrives after it."""
        rows = Rows(
            arrival_s=np.array([4.0, 1.0, 2.0, 3.0]),
            prompt_tokens=np.full(4, 5.0),
            output_tokens=np.full(4, 6.0),
            lines=list,
            after=np.array([3, 2, -1, -1]),
            delay_s=np.array([0.5, 0.25, 0.0, 0.0]),
        )
        (path := tmp_path / "rows.csv").touch()
        made = requests_of(rows, Trace(trace=str(path)), stream(0, "spread"))
        assert made.arrival_s.tolist() == [0, 1, 2, 3]
        assert made.after.tolist() == [-1, -1, -1, 2]
        assert made.delay_s.tolist() == [0, 0, 0, 0.5]

    def test_arrivals_stay_before_the_next_tick_however_near_it_is(self) -> None:
        found = spread_ticks(np.array([0.0, 0.0, 1.0, 1.0, 9.0]), 3.0, stream(0, "spread"))
        for before, after, arrival in zip((0, 0, 1, 1, 9), (1, 1, 4, 4, 12), found.tolist(), strict=True):
            assert before <= arrival < after

    @pytest.mark.parametrize(
        ("ticks", "each", "tick", "found"),
        [
            (np.arange(100), 3, 3.0, 3.0),
            (np.arange(100), 2, 3.0, 3.0),
            (np.arange(100), 1, 3.0, 0.0),  # a metronome: nobody shares an instant
            (np.arange(100), [1, 2] * 50, 3.0, 0.0),  # most instants are followed by another one
            (np.arange(100), 3, 0.05, 0.0),  # fine enough
            (np.cumsum(np.arange(100) % 4 // 3 + 1), 3, 3.0, 3.0),  # some ticks are empty
            (np.cumsum(np.arange(100) ** 0.5), 3, 3.0, 0.0),  # no steps of a clock
        ],
    )
    def test_a_clock_is_coarse_if_most_share_its_ticks_and_its_steps_are_multiples(
        self, ticks: npt.NDArray[np.float64], each: int | list[int], tick: float, found: float
    ) -> None:
        assert coarse_clock(np.repeat(ticks * tick, each)) == pytest.approx(found)
