"""kvsim's own columns: the plainest table of requests, and what `convert` writes."""

from workloads.traces.base import CsvFormat

FORMAT = CsvFormat(
    name="csv",
    about="kvsim: arrival_s (s), prompt_tokens, output_tokens",
    arrival="arrival_s",
    prompt="prompt_tokens",
    output="output_tokens",
)
