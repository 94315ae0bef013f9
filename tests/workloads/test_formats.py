"""Every trace format: told by its content, read as documented."""

import gzip
import json
from pathlib import Path

import pytest

from tests.workloads.samples import FILES, MOONCAKE, WEKA, lines, load
from workloads.errors import WorkloadError
from workloads.streams import stream
from workloads.trace import Trace
from workloads.traces import FORMATS, detect, find, read
from workloads.traces.files import TraceFile


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
    with pytest.raises(WorkloadError, match=r"trace:1: lines end in CR alone; save it with LF, or with CR and LF"):
        load(tmp_path, "arrival_s,prompt_tokens,output_tokens\r1,2,3\r")
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

    def test_the_filter_keeps_what_is_at_its_limits(self, tmp_path: Path) -> None:
        exchanges = [(4, 4), (3, 4), (4, 3), (1024, 1024), (1025, 9), (1000, 1048), (1000, 1049)]
        rows = "".join(f"{n},0,u,{prompt}\n{n},1,a,{output}\n" for n, (prompt, output) in enumerate(exchanges))
        made = load(tmp_path, f"conv_index,turn_index,role,gpt2_tokens\n{rows}")
        assert made.prompt_tokens.tolist() == [4, 1024, 1000]
        assert made.output_tokens.tolist() == [4, 1024, 1048]

    def test_turns_of_a_conversation_are_in_the_order_of_the_file_whatever_lies_between(self, tmp_path: Path) -> None:
        turns = [(number, "ua"[turn % 2], 1 << turn) for turn in range(20) for number in (1, 0)]
        rows = "".join(f"{number},{turn // 2},{role},{tokens}\n" for turn, (number, role, tokens) in enumerate(turns))
        made = load(tmp_path, f"conv_index,turn_index,role,gpt2_tokens\n{rows}", turns="all")
        assert made.output_tokens.tolist() == [1 << turn for turn in range(1, 20, 2)] * 2
        assert made.prompt_tokens.tolist() == [(1 << turn) - 1 for turn in range(1, 20, 2)] * 2

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
        with pytest.raises(WorkloadError, match=r"trace:3: output tokens: negative: -1"):
            load(tmp_path, FILES["vllm-dataset"] + '{"prompt": "hello", "output_tokens": -1}')

    def test_result(self, tmp_path: Path) -> None:
        made = load(tmp_path, FILES["vllm-result"])
        assert made.arrival_s == pytest.approx([0, 4.3])
        assert made.output_tokens.tolist() == [44, 109]

    def test_result_without_arrays(self, tmp_path: Path) -> None:
        with pytest.raises(WorkloadError, match="no input_lens: save it with --save-detailed"):
            load(tmp_path, '{"completed": 2, "total_input_tokens": 7}')
