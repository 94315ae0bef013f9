"""Recorded traces give exactly the figures that were published with them."""

import csv
import gzip
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from workloads.requests import Requests
from workloads.reuse import ideal_hits
from workloads.streams import stream
from workloads.trace import Trace
from workloads.traces import read
from workloads.traces.describe import describe

CONVERSATION = "mooncake_conversation/conversation_trace.jsonl.gz"
AZURE = {
    "conv": "azure2023_conv/AzureLLMInferenceTrace_conv.csv.gz",
    "code": "azure2023_code/AzureLLMInferenceTrace_code.csv.gz",
}


def load(path: Path, **options: object) -> Requests:
    return read(Trace(trace=str(path), **options), stream(0, "spread"))


def normalised(path: Path) -> dict[str, np.ndarray]:
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def full_block_hits(requests: Requests, block_size: int) -> np.ndarray:
    """Tokens that hit an infinite cache of full blocks, which never covers a whole prompt: as vLLM's look-up."""
    return np.minimum(ideal_hits(requests), requests.prompt_tokens - 1) // block_size * block_size


def lru_hits(requests: Requests, block_size: int, capacity: int) -> int:
    """Tokens that hit a cache of `capacity` blocks that forgets the block used longest ago.

    A prompt hits the longest run of its first blocks that are cached; then all of its blocks are entered or used
    again, its deeper blocks counting as older.  A last, shorter block counts its own tokens.
    """
    pieces = requests.prefixes
    assert pieces is not None
    ids, lengths = pieces.ids.tolist(), pieces.lengths.tolist()
    children: dict[tuple[int, int, int], int] = {}
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for start, stop in pairwise(pieces.offsets.tolist()):
        node, shared, path = 0, True, []
        for name, length in zip(ids[start:stop], lengths[start:stop], strict=True):
            for offset in range(0, length, block_size):
                node = children.setdefault((node, name, offset), len(children) + 1)
                path.append(node)
                shared = shared and node in cache
                hits += min(block_size, length - offset) * shared
        for block in reversed(path):
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > capacity:
            cache.popitem(last=False)
    return hits


@pytest.mark.parametrize("name", AZURE)
def test_azure_equals_its_normalised_copy(traces: Path, name: str) -> None:
    made, copy = load(traces / AZURE[name]), normalised(traces / f"azure2023_{name}" / "requests.csv.gz")
    assert made.arrival_s == pytest.approx(copy["arrival_s"], abs=1e-7)
    assert (made.prompt_tokens == copy["prompt_tokens"]).all()
    assert (made.output_tokens == copy["output_tokens"]).all()


@pytest.mark.parametrize(
    ("file", "rows", "span", "rate", "cv", "prompt", "output"),
    [
        (AZURE["conv"], 19366, 3501.722, 5.53014, 1.094, (1154.7, 1020, 2734, 4142, 14050),
         (211.1, 129, 424, 601, 1000)),
        (AZURE["code"], 8819, 3435.948, 2.5664, 13.151, (2047.8, 1469, 5187, 7436, 7437), (27.9, 13, 55, 251, 1899)),
        (
            "mooncake_conversation/requests.csv.gz", 12031, 3536.999, 3.40119, 3.034,
            (12035.1, 6909, 27367, 85400, 126195), (342.6, 350, 597, 1118, 2000),
        ),
    ],
)  # fmt: skip
def test_describe_gives_the_readme_s_statistics(
    traces: Path,
    file: str,
    rows: int,
    span: float,
    rate: float,
    cv: float,
    prompt: tuple[float, ...],
    output: tuple[float, ...],
) -> None:
    found = describe(Trace(trace=str(traces / file), spread=False))
    assert (found.rows, found.requests) == (rows, rows)
    assert round(found.span_s, 3) == span
    assert round(found.rate_rps, 5) == rate
    assert round(found.gap_cv, 3) == cv
    for some, expected in ((found.prompt_tokens, prompt), (found.output_tokens, output)):
        assert round(some.mean, 1) == expected[0]
        assert [int(value) for value in (some.p50, some.p90, some.p99, some.max)] == list(expected[1:])


def test_mooncake_s_clock_is_spread_to_poisson(traces: Path) -> None:
    found = describe(Trace(trace=str(traces / CONVERSATION)))
    assert found.recorded_gap_cv == pytest.approx(3.034, abs=0.001)
    assert found.gap_cv == pytest.approx(1.01, abs=0.02)
    assert found.format == "mooncake"
    assert round(found.ideal_hit_rate, 4) == 0.3736


def test_mooncake_s_ideal_hits_are_equal_request_by_request(traces: Path) -> None:
    made, copy = load(traces / CONVERSATION), normalised(traces / "mooncake_conversation" / "requests.csv.gz")
    assert (ideal_hits(made) == copy["ideal_hit_tokens"]).all()
    assert (full_block_hits(made, 512) == copy["ideal_fullblock_hit_tokens"]).all()
    assert made.prefixes is not None
    assert (made.prefixes.ids[made.prefixes.offsets[:-1]] == 0).all()


@pytest.mark.parametrize(
    ("capacity", "rate"),
    [(1000, 0.0454), (3000, 0.0666), (10_000, 0.2157), (30_000, 0.3322), (50_000, 0.3615), (100_000, 0.3708)],
)
def test_mooncake_s_lru_hit_rates(traces: Path, capacity: int, rate: float) -> None:
    made = load(traces / CONVERSATION)
    assert round(lru_hits(made, 512, capacity) / made.prompt_tokens.sum(), 4) == rate


def test_sharegpt_first_turns_pass_the_filter_as_published(traces: Path) -> None:
    made = load(traces / "sharegpt_lengths" / "turns.csv.gz")
    copy = normalised(traces / "sharegpt_lengths" / "first_turn_vllm_filter.csv.gz")
    assert (made.prompt_tokens == copy["prompt_tokens"]).all()
    assert (made.output_tokens == copy["output_tokens"]).all()


def test_sharegpt_every_answer(traces: Path) -> None:
    """61,243 answers follow something; 7 of them are empty and are no requests here."""
    made = load(traces / "sharegpt_lengths" / "turns.csv.gz", turns="all")
    assert len(made) == 61_243 - 7
    assert round(made.prompt_tokens.mean()) == 912
    assert round(made.output_tokens.mean(), 1) == 332.8
    assert round(ideal_hits(made, outputs=True).sum() / made.prompt_tokens.sum(), 4) == 0.8372


def test_the_shipped_lengths_are_the_recorded_ones(traces: Path) -> None:
    shipped = Path(__file__).parents[2] / "workloads" / "data" / "sharegpt_first_turn_vllm_filter.csv.gz"
    assert shipped.read_bytes() == (traces / "sharegpt_lengths" / "first_turn_vllm_filter.csv.gz").read_bytes()


@pytest.mark.parametrize(("name", "rate"), [("w10000_r2", 2), ("w10000_r20", 20)])
def test_the_benchmark_s_traces(traces: Path, name: str, rate: int) -> None:
    found = describe(Trace(trace=str(traces.parent / "bench" / f"{name}.csv.gz")))
    assert (found.format, found.rows, found.requests) == ("vidur", 10_000, 10_000)
    assert found.rate_rps == pytest.approx(rate, rel=0.02)
    assert (round(found.prompt_tokens.mean, 1), round(found.output_tokens.mean)) == (161.3, 338)
    assert found.gap_cv == pytest.approx(1, abs=0.03)
