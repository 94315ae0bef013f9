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
    from collections.abc import Callable

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
        """Write the prompts, as an engine gets them in tokens, but for those that repeat what another request says."""
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
        self._ready: set[int] = set()
        self._streams: dict[int, Ints] = {}
        prefixes = requests.prefixes
        self._speaker = {} if prefixes is None else {int(name): i for i, name in enumerate(prefixes.outputs)}
        """The request whose output a content id names."""
        self.tokens = moved(self._written(), device)
        """int64[spare + 1]"""
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
        """Write a job's prompt before its first step, if that has not been done."""
        index = job.index
        if index in self._ready:
            return
        self._ready.add(index)
        prompt = moved(self._prompt(index, self._parts(index)), self.tokens.device)
        for part in self._places(index):
            self.tokens[part] = prompt

    def aim(self, targets: Ints) -> Ints:
        """Where to write the tokens that are about to be said: at these places, or nowhere if others are forced."""
        self._known[targets] = True
        return np.where(self.forced[targets], self.spare, targets) if len(self.forced) else targets

    def say(self, targets: Ints, tokens: torch.Tensor) -> None:
        """Write generated tokens, except where others are forced."""
        self.tokens[moved(self.aim(targets), tokens.device)] = tokens

    def _written(self) -> Ints:
        """Return all tokens, with the prompts that can be known before anything is said."""
        tokens = np.zeros(self.spare + 1, np.int64)
        for index in range(len(self.prompt)):
            parts = self._parts(index)
            if self._speaker.keys().isdisjoint(parts[::3]):
                self._ready.add(index)
                prompt = self._prompt(index, parts)
                for place in self._places(index):
                    tokens[place] = prompt
        return tokens

    def _places(self, index: int) -> list[slice]:
        """Where a request's prompt is written."""
        starts = (self.at(index, sample) for sample in range(int(self.samples[index])))
        return [slice(start, start + int(self.prompt[index])) for start in starts]

    def _parts(self, index: int) -> tuple[int, ...]:
        """What a prompt is made of: a piece's name, where it begins in it and how many tokens, again and again."""
        content = self._content(index)
        if not is_a(content, Segments):
            raise TypeError(f"prompts are made of segments, got {type(content).__name__}")
        return content.piece(0, int(self.prompt[index]))

    def _prompt(self, index: int, parts: tuple[int, ...]) -> Ints:
        pieces = []
        for name, offset, tokens in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            speaker = self._speaker.get(name, index)
            pieces.append(
                self._stream(name, offset + tokens)[offset:]
                if speaker == index
                else self._output(speaker, name, offset, tokens)
            )
        return np.concatenate(pieces)

    def _stream(self, name: int, length: int) -> Ints:
        """First `length` tokens of a piece of content."""
        known = self._streams.get(name)
        if known is None or len(known) < length:
            rng = np.random.default_rng([self._seed, STREAM, name])
            known = self._streams[name] = rng.integers(self._vocab, size=length)
        return known[:length]

    def _output(self, index: int, name: int, offset: int, tokens: int) -> Ints:
        """Part of what request `index` says; what it has not said yet it will have to say."""
        start, stop = self.at(index, 0) + int(self.prompt[index]), offset + tokens
        if stop > self.output[index]:
            raise ValueError(f"request {index} says {self.output[index]} tokens, a later prompt repeats {stop}")
        said = int(self._known[start : start + int(self.output[index])].sum())
        if stop > said:
            if not len(self.forced):
                self.forced = np.zeros(self.spare, np.bool_)
            missing = slice(start + said, start + stop)
            self.forced[missing] = self._known[missing] = True
            self.tokens[missing] = moved(self._stream(name, stop)[said:], self.tokens.device)
        part: Ints = self.tokens[start + offset : start + stop].cpu().numpy()
        return part
