"""vLLM's benchmark: its custom datasets (JSON lines of prompts) and what `bench serve` saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.requests import Floats
from workloads.traces.base import Options
from workloads.traces.records import BadRow, each, number, parse
from workloads.traces.rows import Fault, Rows
from workloads.traces.text import DEFAULT_OUTPUT, token_counter
from workloads.values import shown

if TYPE_CHECKING:
    from workloads.traces.files import TraceFile


class Dataset:
    """A custom dataset: JSON lines of prompt and, maybe, output_tokens."""

    name = "vllm-dataset"
    about = "vLLM custom dataset: JSON lines of prompt (text; tokens are counted or estimated), output_tokens; no times"

    def matches(self, file: TraceFile) -> bool:
        """Say whether the first record has a prompt and no lengths."""
        return isinstance(file.first.get("prompt"), str) and "input_length" not in file.first

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read all prompts; a text's length is taken and the text dropped."""
        count, notes = token_counter(options.tokenizer)
        faults: list[Fault] = []
        found = [(line, float(count(prompt)), output) for line, (prompt, output) in each(file, _prompt, faults)]
        table = np.array(found, np.float64).reshape(-1, 3)
        unsaid = np.isnan(table[:, 2])
        table[unsaid, 2] = DEFAULT_OUTPUT
        notes.append("a dataset has no times: all requests arrive at once unless arrivals are given")
        if unsaid.any():
            notes.append(f"{unsaid.sum():,} prompts name no output_tokens: taken as {DEFAULT_OUTPUT}")
        lines = table[:, 0].astype(np.int64)
        return Rows(
            np.zeros(len(table)), table[:, 1], table[:, 2], lambda rows: lines[rows].tolist(), faults, notes=notes
        )


def _prompt(record: Any) -> tuple[str, float]:
    """Take the prompt's text, and the output's tokens or NaN, out of one record."""
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise BadRow("no text under prompt")
    return record["prompt"], number(record.get("output_tokens"), "output_tokens")


class Result:
    """What `vllm bench serve --save-detailed` writes: arrays of lengths and start times."""

    name = "vllm-result"
    about = "vLLM bench serve result JSON: input_lens, output_lens, start_times (s); texts are not looked at"

    def matches(self, file: TraceFile) -> bool:
        """Say whether it is a JSON object of such a benchmark."""
        head, tail = file.head.lstrip(), file.data[-(1 << 20) :]
        known = b'"input_lens"' in file.data[: 1 << 20] or b'"input_lens"' in tail or '"total_input_tokens"' in head
        return head.startswith("{") and known

    def read(self, file: TraceFile, options: Options) -> Rows:
        """Read the arrays."""
        try:
            result = parse(file.data)
        except BadRow as error:
            raise WorkloadError(f"{file.name}: {error}") from None
        if not isinstance(result, dict) or not isinstance(result.get("input_lens"), list):
            raise WorkloadError(f"{file.name}: no input_lens: save it with --save-detailed")
        columns = {name: self._column(file, result, name) for name in ("input_lens", "output_lens", "start_times")}
        count = len(columns["input_lens"])
        notes = ["line numbers are positions in the arrays"]
        start = columns["start_times"]
        if len(start) == 0:
            start = np.zeros(count)
            notes.append("no start_times: all requests arrive at once unless arrivals are given")
        if len(columns["output_lens"]) != count or len(start) != count:
            raise WorkloadError(f"{file.name}: input_lens, output_lens and start_times differ in length")
        return Rows(
            start,
            columns["input_lens"],
            columns["output_lens"],
            lambda rows: (rows + 1).tolist(),
            notes=notes,
        )

    @staticmethod
    def _column(file: TraceFile, result: dict[str, Any], name: str) -> Floats:
        values = result.get(name) or []
        if not isinstance(values, list):
            raise WorkloadError(f"{file.name}: {name}: not a list: {shown(values)}")
        try:
            return np.array([number(value, name) for value in values], np.float64)
        except BadRow as error:
            raise WorkloadError(f"{file.name}: {error}") from None


DATASET = Dataset()
RESULT = Result()
