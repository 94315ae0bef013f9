"""Replaying what real engines answered: our allocators and scheduler give the same answers."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sim.cli import main
from sim.errors import UserError
from sim.replay import replay

SHARED = Path(os.environ.get("KVSIM_SHARED", Path(__file__).parents[1].parent / "shared"))
RECORDINGS = sorted((SHARED / "data" / "recorded").glob("*.gz"))
SHIPPED = sorted((Path(__file__).parent / "data" / "recorded").glob("*.gz"))
needs_recordings = pytest.mark.skipif(
    not RECORDINGS, reason=f"no recordings in {SHARED}; set KVSIM_SHARED to the folder that holds data/recorded"
)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def named(name: str) -> Path:
    return next(path for path in RECORDINGS if path.name.startswith(name))


def written(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, content)) + "\n")
    return path


@pytest.mark.parametrize("path", SHIPPED + RECORDINGS, ids=lambda path: path.name.split(".")[0])
def test_our_own_code_answers_as_the_engine_did(path: Path) -> None:
    result = replay([path])
    assert result.first_difference is None
    assert result.differences == 0
    assert result.ops == sum("op" in line or "step" in line for line in lines(path)) > 50
    assert not result.explained or path.name.startswith("legacy_fork")


@pytest.mark.parametrize("recordings", [SHIPPED, pytest.param(RECORDINGS, marks=needs_recordings)])
def test_every_kind_of_recording_is_there(recordings: list[Path]) -> None:
    assert {path.name.split("_")[0] for path in recordings} == {"blocks", "sched", "legacy", "sgl"}


@needs_recordings
def test_an_explained_answer_says_where_and_why() -> None:
    result = replay([named("legacy_fork_B4_N24")])
    assert len(result.explained) == 45
    assert all("0.6.6 counts" in line and "legacy_fork_B4_N24" in line for line in result.explained)


ANSWERS = {
    "blocks_apc_B8_N60_chunk": ["ok", "hit", "blocks", "ref", "hashed", "free", "computed"],
    "blocks_apc_B8_N60_salt": ["evicted"],
    "legacy_fork_B4_N24": ["ok", "blocks", "len", "on", "free", "free_cpu", "cow", "can_append", "status"],
    "legacy_swap_B8_N40": ["map", "status"],
    "sgl_radix_p4": ["len", "indices", "prefix_len", "freed", "evicted", "evictable", "protected", "total"],
    "sched_apc_N48_wm05": ["sched", "blocks", "free", "finished", "running", "waiting", "computed_before"],
}


def changed(value: Any) -> Any:
    """Another answer of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value + "?"
    return {**value, "?": 1} if isinstance(value, dict) else [*value, value[-1] if value else 1]


@needs_recordings
@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in ANSWERS.items() for field in fields])
def test_one_wrong_answer_is_found_where_it_is(name: str, field: str, tmp_path: Path) -> None:
    content = lines(named(name))
    places = [place for place, line in enumerate(content) if field in line.get("r", line) and place > 100]
    place = next((place for place in places if content[place].get("r", content[place])[field]), places[0])
    answer = content[place].get("r", content[place])
    answer[field] = changed(answer[field])
    result = replay([written(tmp_path / "wrong.jsonl", content)])
    assert result.first_difference is not None
    assert (result.first_difference.line, result.first_difference.field) == (place + 1, field)
    assert str(result.first_difference).startswith(f"{tmp_path}/wrong.jsonl:{place + 1}: ")


@needs_recordings
def test_the_ids_of_the_old_manager_are_compared_up_to_renaming(tmp_path: Path) -> None:
    content = lines(named("legacy_fork_B4_N24"))
    for line in content[1:]:
        for field in {"blocks", "cow"} & line["r"].keys():
            renamed = json.dumps(line["r"][field]).replace("[", "[ ").replace("]", " ]").replace(",", " ,").split()
            line["r"][field] = json.loads("".join(str(1000 - int(w)) if w.isdigit() else w for w in renamed))
    assert replay([written(tmp_path / "renamed.jsonl", content)]).differences == 0


# -- what the recordings at hand do not hold ---------------------------------------------------------


def test_salt_adapter_and_images_keep_prefixes_apart(tmp_path: Path) -> None:
    image = {"hash": "cat", "offset": 1, "length": 2}
    settings: list[dict[str, Any]] = [
        {},
        {"cache_salt": "s"},
        {"lora": "s"},
        {"cache_salt": "s", "lora": "a"},
        {"mm": [image]},
        {"mm": [image | {"hash": "dog"}]},
        {"mm": [image | {"offset": 0}]},
    ]
    stream: list[dict[str, Any]] = [{"config": {"num_blocks": 64, "block_size": 2, "caching": True}}]
    for hit in (0, 2):
        for index, how in enumerate(settings):
            op = {"op": "admit", "id": f"r{index}", "prompt_token_ids": [5, 6, 7]}
            stream.append(op | how | {"r": {"ok": True, "hit": hit}})
            stream.append({"op": "free", "id": f"r{index}", "r": {"ok": True}})
    stream.append({"op": "reset", "r": {"ok": True, "free": 63, "evicted": []}})
    stream.append({"op": "admit", "id": "last", "prompt_token_ids": [5, 6, 7], "r": {"hit": 0}})
    assert replay([written(tmp_path / "apart.jsonl", stream)]).first_difference is None


def test_the_old_manager_leaves_its_watermark_and_knows_what_never_fits(tmp_path: Path) -> None:
    config = {"engine": "vllm-0.6.6", "num_blocks": 10, "block_size": 2, "num_cpu_blocks": 4, "watermark": 0.2}
    prompts = ((17, "NEVER"), (16, "OK"), (2, "LATER"))
    stream = [{"config": config}] + [
        {"op": "allocate", "id": id_, "prompt_token_ids": [0] * tokens, "r": {"status": status, "ok": status == "OK"}}
        for id_, (tokens, status) in enumerate(prompts)
    ]
    stream.append({"op": "swap_out", "id": 1, "r": {"ok": False, "on": "gpu", "free_cpu": 4}})
    assert replay([written(tmp_path / "watermark.jsonl", stream)]).first_difference is None


# -- the command ---------------------------------------------------------------------------------------


@needs_recordings
def test_the_command_prints_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(named("blocks_apc_dup")), str(named("sgl_radix_p1")), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"files": 2, "ops": 1219, "differences": 0, "first_difference": None, "explained": []}


@needs_recordings
def test_a_difference_is_status_1_and_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = lines(named("blocks_apc_dup"))
    content[1]["r"]["free"] += 1
    path = written(tmp_path / "wrong.jsonl", content)
    assert main(["replay", str(path)]) == 1
    assert "first: " + f"{path}:2: admit: free is" in capsys.readouterr().out
    assert main(["replay", str(path), "--json"]) == 1
    first = json.loads(capsys.readouterr().out)["first_difference"]
    assert (first["file"], first["line"], first["op"], first["field"]) == (str(path), 2, "admit", "free")


def test_a_replay_that_can_no_longer_follow_tells_the_difference_that_led_there(tmp_path: Path) -> None:
    stream: list[dict[str, Any]] = [
        {"config": {"num_blocks": 3, "block_size": 1, "caching": False}},
        {"op": "admit", "id": "r1", "prompt_token_ids": [1, 2, 3], "r": {"ok": True}},
        {"op": "free", "id": "r1", "r": {"ok": True}},
    ]
    result = replay([written(tmp_path / "parted.jsonl", stream)])
    assert (result.differences, result.ops) == (1, 2)
    assert result.first_difference is not None
    assert result.first_difference[1:] == (2, "admit", "ok", True, False)


BLOCKS = '{"config": {"num_blocks": 9, "block_size": 2, "caching": true}}\n'
FAULTS = {
    "no file": (None, "missing.jsonl: cannot be read: No such file"),
    "empty": ("", "bad.jsonl: empty"),
    "not JSON": ("{", "bad.jsonl:1:2: not JSON"),
    "not an object": ("[1]", "bad.jsonl:1: expected a JSON object"),
    "no configuration": ('{"op": "free"}', "bad.jsonl:1: expected"),
    "a bad number": ('{"config": {"num_blocks": 0}}', "bad.jsonl:1: config.num_blocks must be a whole number"),
    "unknown engine": ('{"config": {"engine": "orca"}}', "bad.jsonl:1: unknown engine orca"),
    "unknown operation": (BLOCKS + '{"op": "fork", "r": {}}', "bad.jsonl:2: unknown operation fork; known: admit"),
    "no such sequence": (BLOCKS + '{"op": "free", "id": "r1", "r": {}}', "bad.jsonl:2: not of this kind of recording"),
    "no prompt": (BLOCKS + '{"op": "admit", "id": "r1", "r": {}}', "no 'prompt_token_ids'"),
    "an answer we do not give": (
        BLOCKS + '{"op": "admit", "id": "r1", "prompt_token_ids": [1], "r": {"colour": 1}}',
        "no 'colour'",
    ),
    "a broken line later": (BLOCKS + "\n{]", "bad.jsonl:3:2: not JSON"),
    "a schedule without requests": (
        '{"config": {"num_blocks": 9, "block_size": 2, "max_num_batched_tokens": 9}}',
        "bad.jsonl:1: not of this kind of recording",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_bad_file_is_one_line_and_status_2(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = FAULTS[case]
    path = tmp_path / ("bad.jsonl" if content is not None else "missing.jsonl")
    if content is not None:
        path.write_text(content)
    assert main(["replay", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    with pytest.raises(UserError):
        replay([path])


def test_a_truncated_archive_is_a_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(SHIPPED[0].read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cut\.jsonl\.gz: cannot be read"):
        replay([path])
