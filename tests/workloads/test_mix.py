"""A mix: several kinds of requests at once, each as it would be without the others."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workloads.conftest import Small
from workloads.errors import WorkloadError
from workloads.generate import requests
from workloads.mix import merge
from workloads.requests import Ints, Prefixes, Requests

LENGTHS = "lengths: {kind: uniform, prompt: {min: 5, max: 50}, output: {min: 1, max: 20}}"
CHAT = f"count: 40, arrivals: {{kind: poisson, rate: 8}}, {LENGTHS}, session: {{kind: turns, turns: 3, think_s: 1}}"
PARTS = {
    "chat": f"{CHAT}, shared: [{{tokens: 30}}]",
    "agents": f"count: 30, arrivals: {{kind: closed, users: 3}}, {LENGTHS}, shared: [{{tokens: 9, pool: 3}}]",
    "batch": f"duration_s: 4, arrivals: {{kind: gamma, rate: 9, cv: 2}}, {LENGTHS}",
    "trees": f"count: 24, arrivals: {{kind: on-off, on_rate: 3, on_s: 2, off_s: 1}}, {LENGTHS}, "
    "session: {kind: tree, depth: 2, branches: 3}, samples: {kind: uniform, min: 1, max: 4}",
    "offline": f"count: 9, arrivals: {{kind: batch, at_s: 1}}, {LENGTHS}",
}
names = st.lists(st.sampled_from(list(PARTS)), min_size=1, unique=True)


def mixed(parts: Sequence[str], more: str = "", **changed: str) -> str:
    """Write a block with some of the parts, or with others in their place."""
    entries = (f"{{name: {name}, {changed.get(name, PARTS.get(name))}}}" for name in parts)
    return f"requests={{mix: [{', '.join(entries)}]{more}}}"


def of(made: Requests, name: str) -> Requests:
    """Take one part out of a mix again; requests are numbered by themselves, contents in the order of their ids."""
    rows = np.flatnonzero(made.part == list(made.parts).index(name))
    place = np.full(len(made) + 1, -1)
    place[rows] = np.arange(len(rows))
    prefixes = made.prefixes.take(rows) if made.prefixes else None
    if prefixes:
        known = np.unique(np.concatenate([prefixes.ids, prefixes.outputs]))
        prefixes = replace(
            prefixes,
            ids=np.searchsorted(known, prefixes.ids),
            outputs=np.searchsorted(known, prefixes.outputs),
        )
    return Requests(
        made.arrival_s[rows],
        made.prompt_tokens[rows],
        made.output_tokens[rows],
        made.samples[rows] if len(made.samples) else np.ones(len(rows), np.int64),
        made.beam,
        prefixes,
        place[made.after[rows]] if len(made.after) else np.full(len(rows), -1),
        made.delay_s[rows] if len(made.after) else np.zeros(len(rows)),
    )


def columns(made: Requests) -> list[list[float]]:
    """List all that is drawn; a prompt that has nothing in common with others is one piece."""
    own = np.arange(len(made))
    contents: list[Ints] = [2 * own, 2 * own + 1, made.prompt_tokens, np.append(own, len(made))]
    if made.prefixes:
        contents = [made.prefixes.ids, made.prefixes.outputs, made.prefixes.lengths, made.prefixes.offsets]
    drawn = [made.arrival_s, made.prompt_tokens, made.output_tokens, made.samples, made.after, made.delay_s]
    return [column.tolist() for column in (*drawn, *contents)]


@given(first=names, second=names, name=st.sampled_from(list(PARTS)), seed=st.integers(0, 3), repeat=st.integers(0, 2))
def test_a_part_is_the_same_whatever_stands_beside_it(
    small_file: Small, first: list[str], second: list[str], name: str, seed: int, repeat: int
) -> None:
    one, other = (
        requests(small_file(mixed(list(dict.fromkeys(parts))), f"seed={seed}"), repeat)
        for parts in ([name, *first], [*second, name])
    )
    assert columns(of(one, name)) == columns(of(other, name))


@given(parts=names)
def test_a_mix_is_in_order_of_arrival_and_whole(small_file: Small, parts: list[str]) -> None:
    made = requests(small_file(mixed(parts)))
    assert list(made.parts) == parts
    assert made.part.dtype == np.int8
    assert (np.diff(made.arrival_s) >= 0).all()
    counts = dict(zip(parts, np.bincount(made.part, minlength=len(parts)).tolist(), strict=True))
    assert counts == {name: len(requests(small_file(mixed([name])))) for name in parts}
    followers = np.flatnonzero(made.after >= 0) if len(made.after) else []
    assert all(made.part[one] == made.part[made.after[one]] for one in followers)
    if made.prefixes:
        owner = np.repeat(made.part, np.diff(made.prefixes.offsets))
        seen: dict[int, set[int]] = {}
        for ids, part in ((made.prefixes.ids, owner), (made.prefixes.outputs, made.part)):
            for content, whose in zip(ids.tolist(), part.tolist(), strict=True):
                seen.setdefault(content, set()).add(whose)
        assert all(len(whose) == 1 for whose in seen.values()), "a content is of one part only"
        assert (np.add.reduceat(made.prefixes.lengths, made.prefixes.offsets[:-1]) == made.prompt_tokens).all()


def test_what_is_not_drawn_is_as_without_a_mix(small: Small) -> None:
    still = "count: 9, arrivals: {kind: fixed, rate: 4}, lengths: {kind: fixed, prompt: 7, output: 3}"
    alone, part = requests(small(f"requests={{{still}}}")), requests(small(mixed(["still"], still=still)))
    assert (part.arrival_s == alone.arrival_s).all()
    assert (part.prompt_tokens == alone.prompt_tokens).all()
    assert (alone.part.size, alone.parts) == (0, ())
    assert (part.part.tolist(), part.parts) == ([0] * 9, ("still",))
    assert part.prefixes is None


def test_a_name_of_its_own_is_a_draw_of_its_own(small: Small) -> None:
    made = requests(small(mixed(["one", "two"], one=PARTS["chat"], two=PARTS["chat"])))
    assert columns(of(made, "one")) != columns(of(made, "two"))


def test_a_recorded_trace_beside_generated_requests(small: Small, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,11,2\n1,12,2\n5,13,2\n")
    made = requests(small(mixed(["recorded", "batch"], recorded=f"trace: {path}")))
    recorded = of(made, "recorded")
    assert recorded.arrival_s.tolist() == [0, 1, 5]
    assert recorded.prompt_tokens.tolist() == [11, 12, 13]
    assert made.notes == [f"recorded: {note}" for note in requests(small(f"requests={{trace: {path}}}")).notes]
    faster = requests(small(mixed(["recorded", "batch"], ", rate_scale: 2", recorded=f"trace: {path}")))
    assert of(faster, "recorded").arrival_s.tolist() == [0, 0.5, 2.5]


def test_all_parts_come_faster_but_those_without_a_rate(small: Small) -> None:
    parts = ["chat", "offline", "agents"]
    plain, faster = (requests(small(mixed(parts, f", rate_scale: {scale}"))) for scale in (1, 4))
    for name in parts[1:]:
        assert columns(of(plain, name)) == columns(of(faster, name))
    first, second = of(plain, "chat"), of(faster, "chat")
    starts = [one.arrival_s[one.after < 0] for one in (first, second)]
    np.testing.assert_allclose(starts[0] / 4, starts[1])
    for_a_while = [len(requests(small(mixed(["batch"], f", rate_scale: {scale}")))) for scale in (1, 4)]
    assert for_a_while[1] > 2 * for_a_while[0], "a duration stays as it is, so that more come"


def test_parallel_samples_beside_none(small: Small) -> None:
    made = requests(small(mixed(["chat", "trees"], chat=f"{CHAT}, beam: true", trees=f"{CHAT}, samples: 1")))
    assert made.beam, "who has one sample is no beam"
    made = requests(small(mixed(["chat", "trees"])))
    assert not made.beam
    assert (of(made, "chat").samples == 1).all()
    assert of(made, "trees").samples.max() > 1


def test_parts_that_arrive_at_once_come_in_the_order_of_the_file() -> None:
    def at(*arrivals: float) -> Requests:
        ones = np.ones(len(arrivals), np.int64)
        return Requests(np.array(arrivals), ones, ones)

    assert merge({"a": at(0, 1, 1), "b": at(1, 2)}).part.tolist() == [0, 0, 0, 1, 1]
    assert merge({"b": at(1, 2), "a": at(0, 1, 1)}).part.tolist() == [1, 0, 1, 1, 0]


def test_no_part_has_a_content_of_another_whichever_ids_its_outputs_have() -> None:
    one = Requests(
        np.zeros(1), np.array([5]), np.ones(1, np.int64), prefixes=Prefixes.of([[(7, 2), (8, 3)]], np.array([6]))
    )
    prefixes = merge({"a": one, "b": one}).prefixes
    assert prefixes is not None
    contents = [
        {*prefixes.ids[place : place + 2].tolist(), *prefixes.outputs[place // 2 :][:1].tolist()} for place in (0, 2)
    ]
    assert not set.intersection(*contents)


@pytest.mark.parametrize(("part", "parts"), [([0], ()), ([], ("a",)), ([1], ("a",))])
def test_columns_that_disagree(part: list[int], parts: tuple[str, ...]) -> None:
    one = np.ones(1, np.int64)
    with pytest.raises(ValueError, match="says of each request which it belongs to"):
        Requests(np.zeros(1), one, one, part=np.array(part, np.int8), parts=parts)


BATCH = mixed(["chat", "batch"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["requests={mix: []}"],
            "requests.mix: must have 1 to 100 parts, each with a name, got 0",
        ),
        (
            [f"requests={{mix: [{', '.join(f'{{name: chat {number}, {CHAT}}}' for number in range(101))}]}}"],
            "requests.mix: must have 1 to 100 parts, each with a name, got 101",
        ),
        (["requests={mix: 5}"], "requests.mix: must be a list, got 5"),
        (
            [BATCH, "requests.mix.1=5"],
            "requests.mix.1: must be a mapping, got 5; keys: name, arrivals, lengths, slo, count, duration_s, ...",
        ),
        ([f"requests={{mix: [{{{CHAT}}}]}}"], "requests.mix.0.name: missing"),
        ([BATCH, "requests.mix.batch.name=chat"], "requests.mix: two parts are named chat"),
        (
            [BATCH, "requests.mix.batch.name=v1.2"],
            "requests.mix.1.name: must begin with a letter and have only letters, digits, -, _ and single spaces",
        ),
        (
            [BATCH, "requests.mix.batsh.count=3"],
            "no part of the mix is named batsh (did you mean batch?); there are: chat, batch",
        ),
        ([BATCH, "requests.mix.2.count=3"], "there is no requests.mix.2: it would be inside a list of 2"),
        ([BATCH, "requests.mix.chat.cuont=3"], "requests.mix.0.cuont: unknown key (did you mean count?)"),
        ([BATCH, "requests.mix.chat.duration_s=3"], "requests.mix.0: give either count or duration_s"),
        ([BATCH, "requests.count=3"], "requests.count: unknown key beside mix"),
        ([BATCH, "requests.rate_scale=0"], "requests.rate_scale: must be greater than 0, got 0"),
        (["requests.rate_scale=2"], "requests.rate_scale: unknown key beside arrivals and lengths"),
        (
            [BATCH, "sustained={normalized_latency_s: 1}"],
            "sustained: needs one rate to vary, and a mix has several; `capacity` varies all of them",
        ),
        (
            [mixed(["a", "b"], a=f"{CHAT}, samples: 2, beam: true", b=f"{CHAT}, samples: 3")],
            "requests: a and b have several samples each, beams and others, which an engine does not mix",
        ),
    ],
)
def test_what_is_no_mix(small: Small, settings: list[str], message: str) -> None:
    with pytest.raises(WorkloadError) as error:
        small(*settings)
    (line,) = error.value.lines
    source, _, said = line.partition(f": {message}")
    assert source.removeprefix("--set ") in settings
    assert not said


def test_a_part_that_cannot_be_drawn_is_named_by_its_place(small: Small, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"^requests\.mix\.1: none arrives within 1e-09 s at this rate$"):
        requests(small(mixed(["chat", "batch"]), "requests.mix.batch.duration_s=1e-9"))
    path = tmp_path / "empty.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n")
    with pytest.raises(WorkloadError, match=r"^requests\.mix\.0\.format: unknown trace format chsv \(did you mean csv"):
        requests(small(mixed(["recorded"], recorded=f"trace: {path}, format: chsv")))
    with pytest.raises(WorkloadError, match=f"^{path}: "):
        requests(small(mixed(["recorded"], recorded=f"trace: {path}")))


def test_a_part_of_which_none_happens_to_arrive_is_empty_unless_all_are(small: Small) -> None:
    rare = "duration_s: 0.5, arrivals: {kind: poisson, rate: 0.1}, lengths: {kind: fixed, prompt: 7, output: 3}"
    made, alone = (requests(small(mixed(parts, rare=rare))) for parts in (["rare", "agents"], ["agents"]))
    assert made.parts == ("rare", "agents")
    assert columns(of(made, "agents")) == columns(of(alone, "agents"))
    assert len(of(made, "rare")) == 0
    assert made.notes == ["rare: none arrives within 0.5 s at this rate", *alone.notes]
    with pytest.raises(WorkloadError) as told:
        requests(small(mixed(["rare", "too"], rare=rare, too=rare)))
    assert [line.partition(":")[0] for line in told.value.lines] == ["requests.mix.0", "requests.mix.1"]
