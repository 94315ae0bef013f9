"""Every token of every sequence: prompts as the workload defines them, outputs as the model generates them.

Where two prompts share a piece of content they begin with equal tokens, because the tokens of a piece
are drawn from a stream keyed by the piece's id.  A prompt may also repeat the output of an earlier
request (a conversation): it then gets what the model generated.  If that has not been generated yet, the
tokens are drawn now, and the model will be made to generate them.

All tokens lie in one flat tensor on the device, one sequence after another, so that a step reads its
inputs and writes its outputs there and the host never sees a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from allocators.compiled import is_a
from allocators.content import Content, Segments
from sim.decode.device import moved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sim.engine.jobs import Job
    from workloads.requests import Requests

Ints = npt.NDArray[np.int64]
STREAM = 0x70726F6D7074
"""Names the stream of prompt tokens among all that follow from a workload's seed."""


class Transcript:
    """The tokens of n requests, each with one or several samples."""

    def __init__(
        self, requests: Requests, content: Callable[[int], Content], vocab: int, seed: int, device: torch.device
    ) -> None:
        """Write the prompts, as an engine gets them in tokens, but for parts that repeat what another request says."""
        self.prompt: Ints = requests.prompt_tokens.astype(np.int64)
        self.output: Ints = requests.output_tokens.astype(np.int64)
        self.samples: Ints = requests.samples.astype(np.int64) if len(requests.samples) else np.ones_like(self.prompt)
        self.stride: Ints = self.prompt + self.output
        self.base: Ints = np.concatenate([[0], np.cumsum(self.stride * self.samples)])
        """Where each request's tokens begin: sample k of request i at `base[i] + k * stride[i]`."""
        self.spare = int(self.base[-1])
        """A place behind all others, for tokens that nobody will read."""
        self._content = content
        self._vocab = vocab
        self._seed = seed
        self._streams: dict[int, Ints] = {}
        prefixes = requests.prefixes
        self._speaker = {} if prefixes is None else {int(name): i for i, name in enumerate(prefixes.outputs)}
        """The request whose output a content id names."""
        self._unopened: set[int] = set()
        """Requests that have not begun, and whose prompts repeat what others say."""
        self.completed = 0
        """Prompts that have been completed on the device with what others have said."""
        tokens, sources = self._written()
        self.tokens = moved(tokens, device)
        """int64[spare + 1]"""
        self._sources = moved(sources if self._unopened else sources[:0], device)
        """int64[spare + 1]: where each token of a prompt is to be found; empty if no prompt repeats anything."""
        self._known = np.zeros(self.spare, np.bool_)
        """bool[tokens]: outputs that are final, said or forced."""
        self.forced: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        """bool[tokens]: outputs that the model is made to say; empty when there is none."""

    def at(self, index: int, sample: int) -> int:
        """Where the tokens of one sequence begin."""
        return int(self.base[index] + sample * self.stride[index])

    def sequence(self, index: int, sample: int) -> list[int]:
        """Prompt and output of one sequence, as far as they are known, zeros behind that."""
        start = self.at(index, sample)
        tokens: list[int] = self.tokens[start : start + int(self.stride[index])].tolist()
        return tokens

    def open(self, job: Job) -> None:
        """Complete a job's prompt before its first step with what others have said.

        That is copied on the device, which is not waited for: the host never sees it.
        """
        index = job.index
        if index not in self._unopened:
            return
        self._unopened.remove(index)
        self.completed += 1
        for speaker, name, offset, count in self._pieces(index):
            if speaker != index:
                self._demand(speaker, name, offset + count)
        for place in self._places(index):
            self.tokens[place] = self.tokens[self._sources[place]]

    def aim(self, targets: Ints) -> Ints:
        """Where to write the tokens that are about to be said: at these places, or nowhere if others are forced."""
        self._known[targets] = True
        return np.where(self.forced[targets], self.spare, targets) if len(self.forced) else targets

    def say(self, targets: Ints, tokens: torch.Tensor) -> None:
        """Write generated tokens, except where others are forced."""
        self.tokens[moved(self.aim(targets), tokens.device)] = tokens

    def _written(self) -> tuple[Ints, Ints]:
        """Return all tokens, with what is known of every prompt before anything is said, and where the rest will be."""
        tokens, sources = np.zeros(self.spare + 1, np.int64), np.arange(self.spare + 1)
        for index, length in enumerate(self.prompt.tolist()):
            prompt, found = np.zeros(length, np.int64), self.at(index, 0) + np.arange(length)
            begin = 0
            for speaker, name, offset, count in self._pieces(index):
                here = slice(begin, begin + count)
                if speaker == index:
                    prompt[here] = self._stream(name, offset + count)[offset:]
                else:
                    self._unopened.add(index)
                    found[here] = self._said(speaker).start + offset + np.arange(count)
                begin += count
            for place in self._places(index):
                tokens[place], sources[place] = prompt, found
        return tokens, sources

    def _places(self, index: int) -> list[slice]:
        """Where a request's prompt is written."""
        starts = (self.at(index, sample) for sample in range(int(self.samples[index])))
        return [slice(start, start + int(self.prompt[index])) for start in starts]

    def _said(self, index: int) -> slice:
        """Where the output of a request's first sample is written."""
        start = self.at(index, 0) + int(self.prompt[index])
        return slice(start, start + int(self.output[index]))

    def _pieces(self, index: int) -> Iterator[tuple[int, int, int, int]]:
        """What a prompt is made of: who says a piece (else its own request), its name, first token and length."""
        content = self._content(index)
        if not is_a(content, Segments):
            raise TypeError(f"prompts are made of segments, got {type(content).__name__}")
        parts = content.piece(0, int(self.prompt[index]))
        for name, offset, tokens in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            yield self._speaker.get(name, index), name, offset, tokens

    def _stream(self, name: int, length: int) -> Ints:
        """First `length` tokens of a piece of content."""
        known = self._streams.get(name)
        if known is None or len(known) < length:
            rng = np.random.default_rng([self._seed, STREAM, name])
            known = self._streams[name] = rng.integers(self._vocab, size=length)
        return known[:length]

    def _demand(self, index: int, name: int, stop: int) -> None:
        """See to it that the first `stop` tokens that a request says are final: it will have to say what it has not."""
        if stop > self.output[index]:
            raise ValueError(f"request {index} says {self.output[index]} tokens, a later prompt repeats {stop}")
        place = self._said(index)
        said = int(self._known[place].sum())
        if stop > said:
            if not len(self.forced):
                self.forced = np.zeros(self.spare, np.bool_)
            missing = slice(place.start + said, place.start + stop)
            self.forced[missing] = self._known[missing] = True
            self.tokens[missing] = moved(self._stream(name, stop)[said:], self.tokens.device)
