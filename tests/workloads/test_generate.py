"""The same file gives the same requests; what is drawn is what was asked for."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workloads.conftest import Small
from workloads.errors import WorkloadError
from workloads.generate import requests
from workloads.loader import load
from workloads.requests import Floats, Ints, Prefixes, Requests

SYSTEM = "requests.shared=[{tokens: 500}, {tokens: {kind: uniform, min: 100, max: 300}, pool: 50, draws: 3, zipf: 1}]"
CHAT = "requests.session={kind: turns, turns: {kind: gamma, mean: 4, cv: 1}, think_s: {kind: exponential, mean: 10}}"
TREE = "requests.session={kind: tree, depth: 3, branches: 4, keep: 2, think_s: 1}"
CLOSED = "requests.arrivals={kind: closed, users: 7, think_s: 2}"


def same(one: Requests, other: Requests) -> bool:
    def columns(some: Requests) -> list[Ints | Floats]:
        prefixes = some.prefixes or Prefixes(*[np.zeros(0, np.int64)] * 4)
        return [
            some.arrival_s, some.prompt_tokens, some.output_tokens, some.samples, some.after, some.delay_s,
            prefixes.ids, prefixes.lengths, prefixes.offsets, prefixes.outputs,
        ]  # fmt: skip

    return all(np.array_equal(a, b) for a, b in zip(columns(one), columns(other), strict=True))


def believable(made: Requests) -> None:
    """Check what holds for all requests."""
    n = len(made)
    if made.prefixes is not None:
        prefixes = made.prefixes
        assert len(prefixes.offsets) == n + 1
        assert (np.add.reduceat(prefixes.lengths, prefixes.offsets[:-1]) == made.prompt_tokens).all()
        assert len(np.unique(prefixes.outputs)) == n
        author = {name: request for request, name in enumerate(prefixes.outputs.tolist())}
        whole = dict(zip(author, made.output_tokens.tolist(), strict=True))
        for request in range(n):  # contents are repeated whole, and answers by those who come after them
            for name, length in prefixes.pieces(request):
                if length:  # else the prompt lacks that part
                    assert author.get(name, -1) < request
                    assert whole.setdefault(name, length) == length
    for follower in np.flatnonzero(made.after >= 0):
        before = made.after[follower]
        assert before < follower
        assert made.arrival_s[follower] >= made.arrival_s[before] + made.delay_s[follower]


@pytest.mark.parametrize(
    "changes", [[], [SYSTEM], [CHAT], [SYSTEM, CHAT], [TREE], [SYSTEM, TREE, CLOSED], [CHAT, CLOSED]]
)
def test_same_seed_same_requests_other_seed_or_repeat_others(small: Small, changes: list[str]) -> None:
    made = requests(small(*changes))
    believable(made)
    assert len(made) == 100
    assert same(made, requests(small(*changes)))
    if CLOSED not in changes:
        assert not same(made, requests(small(*changes, "seed=1")))
        assert not same(made, requests(small(*changes), repeat=1))


def test_a_purpose_of_its_own_for_each_draw(small: Small) -> None:
    """Changing the arrivals moves no length, and the other way round."""
    plain = requests(small("requests.lengths={kind: sharegpt}"))
    faster = requests(small("requests.lengths={kind: sharegpt}", "requests.arrivals={kind: gamma, rate: 3, cv: 2}"))
    fixed = requests(small())
    assert (plain.prompt_tokens == faster.prompt_tokens).all()
    assert (plain.arrival_s == fixed.arrival_s).all()


def test_a_duration_holds_what_arrives_in_it(small: Small) -> None:
    count, hour = requests(small()), requests(small("requests.count=null", "requests.duration_s=3.5"))
    assert hour.arrival_s[-1] < 3.5
    assert (hour.arrival_s == count.arrival_s[: len(hour)]).all()
    assert count.arrival_s[len(hour)] >= 3.5


def test_a_duration_too_short_or_too_long(small: Small) -> None:
    with pytest.raises(WorkloadError, match="none arrives within 1e-09 s"):
        requests(small("requests.count=null", "requests.duration_s=1e-9"))
    with pytest.raises(WorkloadError, match="at most 50,000,000 are drawn"):
        requests(small("requests.count=null", "requests.duration_s=1e9"))


def test_the_last_arrival_is_within_what_clocks_count(small: Small) -> None:
    with pytest.raises(WorkloadError, match=r"the last one arrives at .* 1e\+09 s, 32 years, is the most"):
        requests(small("requests.arrivals={kind: fixed, rate: 1.0e-9}"))
    assert requests(small("requests.arrivals={kind: fixed, rate: 1.0e-7}")).arrival_s[-1] == pytest.approx(9.9e8)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("requests.samples=40000", "requests.samples: a request asks for 40,000; at most 32,767"),
        (
            "requests.session={kind: turns, turns: 1000000000}",
            "requests.session.turns: makes 12,000,000,000 requests or",
        ),
        ("requests.session={kind: tree, depth: 100, branches: 1000, keep: 1000}", "requests.session: makes 99,001,000"),
    ],
)
def test_more_than_can_be_drawn_is_refused(small: Small, setting: str, words: str) -> None:
    with pytest.raises(WorkloadError, match=re.escape(words)):
        requests(small(setting))


def test_turns_that_do_not_fit_cost_nothing(small: Small) -> None:
    made = requests(small("requests.session={kind: turns, turns: 100000, max_tokens: 100}", "requests.count=6"))
    assert len(made.prefixes.ids) == sum(1 + 2 * turn for turn in range(6))


def test_samples(small: Small) -> None:
    assert len(requests(small()).samples) == 0
    made = requests(small("requests.samples=4", "requests.beam=true"))
    assert set(made.samples) == {4}
    assert made.beam
    mixed = requests(small("requests.samples={kind: uniform, min: 1, max: 3}"))
    assert set(mixed.samples) == {1, 2, 3}


class TestShared:
    def test_parts_come_first_and_in_order(self, small: Small) -> None:
        made = requests(small(SYSTEM))
        pieces = made.prefixes.pieces(0)
        assert len(pieces) == 5
        assert pieces[0][1] == 500
        assert pieces[-1][1] == 10
        assert {made.prefixes.pieces(i)[0] for i in range(100)} == {pieces[0]}
        assert len({made.prefixes.pieces(i)[-1][0] for i in range(100)}) == 100

    def test_a_content_has_one_length(self, small: Small) -> None:
        made = requests(small(SYSTEM))
        lengths: dict[int, int] = {}
        for i in range(100):
            for name, length in made.prefixes.pieces(i):
                assert lengths.setdefault(name, length) == length

    @settings(deadline=None)
    @given(pool=st.integers(1, 20), draws=st.integers(1, 25), zipf=st.sampled_from([0, 1, 4]))
    def test_documents_of_one_prompt_differ(self, small_file: Small, pool: int, draws: int, zipf: int) -> None:
        part = f"requests.shared=[{{tokens: 7, pool: {pool}, draws: {draws}, zipf: {zipf}}}]"
        made = requests(small_file(part))
        for i in range(100):
            names = [name for name, _ in made.prefixes.pieces(i)[:-1]]
            assert len(names) == len(set(names)) == min(pool, draws)

    @pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 2.0])
    def test_popularity_follows_zipf(self, small: Small, exponent: float) -> None:
        made = requests(small(f"requests.shared=[{{tokens: 1, pool: 50, zipf: {exponent}}}]", "requests.count=20000"))
        counts = np.bincount(made.prefixes.ids.reshape(20000, 2)[:, 0], minlength=50)
        weights = np.arange(1.0, 51.0) ** -exponent
        assert counts / 20000 == pytest.approx(weights / weights.sum(), rel=0.03, abs=0.004)

    def test_only_a_share_of_prompts_has_the_part(self, small: Small) -> None:
        made = requests(small("requests.shared=[{tokens: 90, share: 0.25}]", "requests.count=10000"))
        assert (made.prompt_tokens == 100).mean() == pytest.approx(0.25, abs=0.02)
        assert (made.prompt_tokens == 10).mean() == pytest.approx(0.75, abs=0.02)


class TestTurns:
    def test_a_turn_repeats_all_that_was_said(self, small: Small) -> None:
        made = requests(small(SYSTEM, CHAT))
        prefixes = made.prefixes
        for follower in np.flatnonzero(made.after >= 0):
            before = made.after[follower]
            said = [*prefixes.pieces(before), (prefixes.outputs[before], made.output_tokens[before])]
            assert prefixes.pieces(follower)[: len(said)] == said
            assert made.prompt_tokens[follower] == made.prompt_tokens[before] + made.output_tokens[before] + 10

    def test_followers_keep_the_nominal_pace(self, small: Small) -> None:
        made = requests(small(CHAT, "requests.token_s=0.5"))
        linked = np.flatnonzero(made.after >= 0)
        before = made.after[linked]
        nominal = made.arrival_s[before] + made.output_tokens[before] * 0.5 + made.delay_s[linked]
        assert made.arrival_s[linked] == pytest.approx(nominal)

    def test_later_turns_may_have_lengths_of_their_own(self, small: Small) -> None:
        turn = "requests.session={kind: turns, turns: 3, later: {kind: fixed, prompt: 2, output: 7}}"
        made = requests(small(turn, "requests.count=9"))
        first = made.after < 0
        assert set(made.output_tokens[first]) == {5}
        assert set(made.output_tokens[~first]) == {7}
        assert sorted(set(made.prompt_tokens)) == [10, 10 + 5 + 2, 17 + 7 + 2]

    def test_documents_may_come_with_every_turn(self, small: Small) -> None:
        shared = "requests.shared=[{tokens: 100}, {tokens: 30, pool: 40, every_turn: true}]"
        made = requests(small(shared, "requests.session={kind: turns, turns: 4}", "requests.count=8"))
        last = made.prefixes.pieces(int(made.prompt_tokens.argmax()))
        assert [length for _, length in last] == [100, *[30, 10, 5] * 3, 30, 10]

    def test_a_session_ends_before_the_context_does(self, small: Small) -> None:
        turn = "requests.session={kind: turns, turns: 50, max_tokens: 100}"
        made = requests(small(turn))
        assert len(made) == 100
        assert (made.prompt_tokens + made.output_tokens).max() == 90
        assert (
            requests(small("requests.session={kind: turns, turns: 50}", "engine.max_model_len=60")).prompt_tokens.max()
            == 55
        )

    def test_where_the_engine_has_no_longest_sequence_the_models_counts(self, small: Small) -> None:
        turn = small("requests.session={kind: turns, turns: 50}", "engine.max_model_len=null")
        made = requests(turn, 0, 100)
        assert (made.prompt_tokens + made.output_tokens).max() == 90
        assert (requests(turn, 0, 60).prompt_tokens + requests(turn, 0, 60).output_tokens).max() == 60
        given = requests(small("requests.session={kind: turns, turns: 50}", "engine.max_model_len=60"), 0, 1000)
        assert given.prompt_tokens.max() == 55

    def test_that_sessions_end_early_is_said(self, small: Small) -> None:
        (note,) = requests(small("requests.session={kind: turns, turns: 50, max_tokens: 100}")).notes
        assert note == "16 of 17 sessions end early: the next turn would make them longer than 100 tokens"
        replies = "{kind: replies, share: 1, back: 1, max_tokens: 100}"
        (note,) = requests(small(f"requests.session={replies}")).notes
        assert note.startswith("16 of 100 requests start a new conversation: the old one would become longer than 100")
        assert not requests(small("requests.session={kind: turns, turns: 5, max_tokens: 100}")).notes

    def test_an_open_loop_has_no_links(self, small: Small) -> None:
        closed, open_ = requests(small(CHAT)), requests(small(CHAT, "requests.session.loop=open"))
        assert len(open_.after) == 0
        assert (closed.arrival_s == open_.arrival_s).all()


class TestTree:
    def test_shape(self, small: Small) -> None:
        made = requests(small(TREE, "requests.count=20", "requests.arrivals={kind: batch}"))
        pieces = [made.prefixes.pieces(i) for i in range(20)]
        depth = np.array([len(piece) for piece in pieces])
        assert np.bincount(depth)[1:].tolist() == [4, 8, 8]
        assert set(made.after[depth == 1]) == {-1}
        for child in np.flatnonzero(depth > 1):
            assert depth[made.after[child]] == depth[child] - 1
            path = pieces[child]
            parents = [i for i in range(20) if pieces[i] == path[:-1] and made.prefixes.outputs[i] == path[-1][0]]
            assert len(parents) == 1
        assert len({tuple(piece) for piece in pieces}) == 1 + 2 + 2

    def test_a_level_waits_for_the_longest_thought_of_the_last(self, small: Small) -> None:
        lengths = "requests.lengths={kind: uniform, prompt: {min: 9, max: 9}, output: {min: 1, max: 500}}"
        made = requests(small(TREE, lengths, "requests.count=4000"))
        depth = np.diff(made.prefixes.offsets)
        for child in np.flatnonzero(depth > 1)[:200]:
            before = made.after[child]
            level = (depth == depth[before]) & (
                made.prefixes.ids[made.prefixes.offsets[:-1]] == made.prefixes.pieces(child)[0][0]
            )
            assert made.output_tokens[before] == made.output_tokens[level].max()


class TestClosedLoop:
    def test_every_user_has_one_request_at_a_time(self, small: Small) -> None:
        made = requests(small(CLOSED))
        assert (made.after < 0).sum() == 7
        followed = made.after[made.after >= 0]
        assert len(set(followed)) == len(followed)
        assert set(made.delay_s[made.after >= 0]) == {2.0}

    def test_sessions_follow_sessions(self, small: Small) -> None:
        made = requests(small(CLOSED, CHAT))
        assert (made.after < 0).sum() == 7

    def test_trees_follow_whole_trees(self, small: Small) -> None:
        made = requests(small("requests.arrivals={kind: closed, users: 2, think_s: 9}", TREE))
        assert (made.after < 0).sum() == 2 * 4

    def test_users_ramp_up(self, small: Small) -> None:
        made = requests(small("requests.arrivals={kind: closed, users: 4, ramp_s: 8}", "requests.lengths.output=5000"))
        assert made.arrival_s[:4].tolist() == [0, 2, 4, 6]

    def test_wants_a_count_and_sessions_that_wait(self, small: Small) -> None:
        with pytest.raises(WorkloadError, match="closed arrivals have no end of their own"):
            small(CLOSED, "requests.count=null", "requests.duration_s=9")
        with pytest.raises(WorkloadError, match=r"session\.loop must be closed"):
            small(CLOSED, CHAT, "requests.session.loop=open")


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 300),
    seed=st.integers(0, 2**62),
    turns=st.sampled_from(["1", "3", "{kind: exponential, mean: 6}"]),
    limit=st.sampled_from(["null", "40", "16"]),
    arrivals=st.sampled_from(
        ["{kind: batch}", "{kind: closed, users: 5}", "{kind: on-off, on_rate: 9, on_s: 1, off_s: 5}"]
    ),
    shape=st.sampled_from(["turns", "tree", "replies", "none"]),
)
def test_any_session_is_believable(
    small_file: Small, count: int, seed: int, turns: str, limit: str, arrivals: str, shape: str
) -> None:
    session = {
        "turns": f"{{kind: turns, turns: {turns}, max_tokens: {limit}, think_s: 1}}",
        "tree": "{kind: tree, depth: 2, branches: 3, keep: 2}",
        "replies": f"{{kind: replies, share: 0.7, back: {{kind: uniform, min: 1, max: 4}}, max_tokens: {limit}}}",
        "none": "null",
    }[shape]
    if shape == "replies":  # which come at their own times
        arrivals = "{kind: poisson, rate: 3}"
    changes = {
        "count": count,
        "session": session,
        "arrivals": arrivals,
        "shared": "[{tokens: 5, share: 0.5}, {tokens: 1, pool: 9, draws: 2}]",
    }
    made = requests(small_file(f"seed={seed}", *(f"requests.{key}={value}" for key, value in changes.items())))
    assert len(made) == count
    believable(made)


def test_prompts_that_begin_alike_are_a_group() -> None:
    prefixes = Prefixes(np.array([7, 1, 9, 7, 5]), np.full(5, 3), np.array([0, 2, 3, 5]), np.arange(3))
    served = Requests(np.zeros(3), np.array([6, 3, 6]), np.ones(3, np.int64), prefixes=prefixes)
    assert served.prefix_groups().tolist() == [0, -1, 0]
    assert replace(served, prefixes=None).prefix_groups().tolist() == [-1, -1, -1]


def test_replications_are_the_same_only_if_nothing_is_drawn() -> None:
    one, other = (requests(load("quickstart", ["requests.count=20"]), repeat) for repeat in (0, 1))
    assert one.same_as(one)
    assert not one.same_as(other)
    assert not one.same_as(replace(one, output_tokens=one.output_tokens + 1))
    documents = requests(load("rag", ["requests.count=20"]))
    assert documents.prefixes is not None
    asked = replace(documents.prefixes, ids=documents.prefixes.ids + 1)
    assert not documents.same_as(replace(documents, prefixes=asked))
