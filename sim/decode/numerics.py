"""Checks that what was decoded through the block table is what the model itself produces.

Every sequence of a run is given to the same transformers model with the same weights, its own
contiguous cache and transformers' own attention: the prompt first, then, on top of its cached K/V,
the output.  The logits before each output token are compared.  As the reference is fed the tokens of
the run, each position is compared independently and differences do not accumulate.

The error at a position is `rms(paged - reference) / std(reference)` over the vocabulary: about 1 where
a sequence attends to the wrong K/V.  In fp32 every token must also be exactly the reference's choice.
In bf16 and fp16 the likeliest tokens often tie within rounding, so a token may fall short of the
reference's by as much as logits can differ at that position, twice the largest difference.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache

from sim.decode.attention import NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sim.decode.batch import Batch
    from sim.decode.lanes import Lanes
    from sim.decode.model import Decoder
    from sim.decode.transcript import Transcript
    from sim.models.geometry import Geometry
    from workloads.requests import Requests

TOLERANCE = {"fp32": 1e-4, "fp16": 0.0125, "bf16": 0.1}
"""Largest error allowed, by number format.

bf16 keeps 8 bits, so each result of each layer is off by up to 0.4 %, and these errors add up over the layers: two
correct ways to compute a 16-layer model differ by about 0.03.  fp16 keeps 11 bits, an eighth of that error."""


MOST_LOGITS = 4 << 30
"""Bytes of logits that are kept for comparison; requests beyond that are decoded but not compared."""


def compared(requests: Requests, geometry: Geometry) -> tuple[int, int]:
    """Return how many requests are compared, from the first on, and the bytes of their logits."""
    samples = requests.samples if len(requests.samples) else np.ones_like(requests.output_tokens)
    size = (requests.output_tokens * samples).cumsum() * geometry.vocab * geometry.element_bytes
    count = max(1, int(size.searchsorted(MOST_LOGITS, side="right")))
    return count, int(size[count - 1])


class Recorder:
    """Keeps the logits from which each token of the first so many requests was chosen."""

    def __init__(self, requests: Requests, geometry: Geometry) -> None:
        """Keep nothing yet."""
        self.rows: dict[int, torch.Tensor] = {}
        """By the token's place in the transcript: [vocab]."""
        self.requests, _ = compared(requests, geometry)
        """How many requests are kept."""
        tokens = requests.prompt_tokens + requests.output_tokens
        samples = requests.samples if len(requests.samples) else np.ones_like(tokens)
        self._stop = int((tokens * samples)[: self.requests].sum())

    def see(self, batch: Batch | Lanes, logits: torch.Tensor) -> None:
        """Keep the row of every token that was said."""
        for target, pick in zip(batch.targets.tolist(), batch.picks.tolist(), strict=True):
            if target < self._stop:
                self.rows[target] = logits[pick].clone()  # a view would keep the rows of all others

    def said(self, places: Iterable[int]) -> list[torch.Tensor]:
        """Rows of the tokens at these places of the transcript, up to the first that was never said."""
        return [self.rows[place] for place in takewhile(self.rows.__contains__, places)]


class Reference:
    """The same model, one sequence at a time, with its own contiguous cache."""

    def __init__(self, decoder: Decoder) -> None:
        """Ask `decoder`'s network."""
        self._decoder = decoder
        self._known: dict[tuple[int, ...], torch.Tensor] = {}
        self._prompt: tuple[list[int], torch.Tensor, DynamicCache] | None = None
        """The last prompt asked, its last logits and its cache: samples of a request share them."""

    def logits(self, tokens: Sequence[int], prompt: int) -> torch.Tensor:
        """Return the logits before each output token, [outputs, vocab], of a sequence with `prompt` prompt tokens."""
        key = (prompt, *tokens)
        if key not in self._known:
            if sum(known.nbytes for known in self._known.values()) > MOST_LOGITS:
                self._known.clear()
            self._known[key] = self._ask(tokens, prompt)
        return self._known[key]

    def _ask(self, tokens: Sequence[int], prompt: int) -> torch.Tensor:
        network, device = self._decoder.network, self._decoder.device
        network.config._attn_implementation = "sdpa"  # noqa: SLF001  as its layers ask for it
        try:
            ids = torch.tensor([tokens], device=device)
            with torch.inference_mode():
                first, cache = self._read(list(tokens[:prompt]), ids[:, :prompt])
                if prompt == len(tokens) - 1:
                    return first
                return torch.cat([first, network(input_ids=ids[:, prompt:-1], past_key_values=cache).logits[0]])
        finally:
            network.config._attn_implementation = NAME  # noqa: SLF001  transformers offers no other way

    def _read(self, prompt: list[int], ids: torch.Tensor) -> tuple[torch.Tensor, DynamicCache]:
        """Return the logits behind a prompt, [1, vocab], and a cache of it that may be continued."""
        if self._prompt is None or self._prompt[0] != prompt:
            network = self._decoder.network
            cache = DynamicCache(config=network.config)
            first = network(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits[0]
            self._prompt = (prompt, first, cache)
        _, first, cache = self._prompt
        continued = copy(cache)  # layers replace their tensors by longer ones, so sharing those is safe
        continued.layers = [copy(layer) for layer in cache.layers]
        return first, continued


@dataclass
class Numerics:
    """How one run compares with the reference."""

    tolerance: float
    exact: bool
    """Whether every token must be the reference's choice."""
    requests: int = 0
    """Requests compared, from the first on."""
    tokens: int = 0
    """Output tokens compared."""
    equal: int = 0
    """... that are the reference's choice."""
    largest_error: float = 0.0
    mean_error: float = 0.0
    first: str = ""
    """The first token that is wrong, in words."""

    @property
    def passed(self) -> bool:
        """Whether all of it is as it should be."""
        return bool(self.tokens) and not self.first

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "passed": self.passed,
            "requests": self.requests,
            "tokens": self.tokens,
            "equal_tokens": self.equal,
            "largest_error": self.largest_error,
            "mean_error": self.mean_error,
            "tolerance": self.tolerance,
            "exact_tokens_demanded": self.exact,
            "first_difference": self.first or None,
        }


def compare(reference: Reference, recorder: Recorder, transcript: Transcript, dtype: str) -> Numerics:
    """Compare every output token of a run.

    Args:
        reference: of the model that ran.
        recorder: the run's logits.
        transcript: the run's tokens.
        dtype: the model's; sets the tolerance.

    """
    result = Numerics(TOLERANCE[dtype], exact=dtype == "fp32", requests=recorder.requests)
    total = 0.0
    for index in range(recorder.requests):
        prompt, output = int(transcript.prompt[index]), int(transcript.output[index])
        for sample in range(int(transcript.samples[index])):
            start = transcript.at(index, sample) + prompt
            if rows := recorder.said(range(start, start + output)):
                tokens = transcript.sequence(index, sample)[: prompt + len(rows)]
                wanted = reference.logits(tokens, prompt)
                total += _compare(result, wanted, torch.stack(rows), tokens[prompt:], (index, sample))
    result.mean_error = total / max(1, result.tokens)
    return result


def _compare(
    result: Numerics, wanted: torch.Tensor, said: torch.Tensor, tokens: Sequence[int], who: tuple[int, int]
) -> float:
    """Compare one sequence and enter it in `result`; returns the sum of its errors."""
    index, sample = who
    expected, got = wanted.float(), said.float()
    spread = expected.std(dim=-1)
    off = got - expected
    errors = off.square().mean(dim=-1).sqrt() / spread
    chosen = torch.tensor(tokens, device=expected.device)[:, None]
    ranks = torch.zeros_like(chosen)
    ranks[0] = sample  # sample k of a request begins with the k-th likeliest token
    best = expected.topk(sample + 1, dim=-1)
    short = (best.values.gather(1, ranks) - expected.gather(1, chosen)).abs()[:, 0]
    equal = (best.indices.gather(1, ranks) == chosen)[:, 0]
    wrong = (errors > result.tolerance) | ~errors.isfinite()
    wrong |= ~equal if result.exact else short > 2 * off.abs().amax(dim=-1)
    if not result.first and bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        result.first = (
            f"request {index}, sample {sample}, output token {at}: token {tokens[at]} against "
            f"{int(best.indices[at, int(ranks[at])])}, error {float(errors[at]):.3g} of {result.tolerance:g}"
        )
    result.tokens += len(tokens)
    result.equal += int(equal.sum())
    result.largest_error = max(result.largest_error, float(errors.max()))
    return float(errors.sum())
