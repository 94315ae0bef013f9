"""Vidur's request traces."""

from workloads.traces.base import CsvFormat

FORMAT = CsvFormat(
    name="vidur",
    about="Vidur: arrived_at (s), num_prefill_tokens, num_decode_tokens",
    arrival="arrived_at",
    prompt="num_prefill_tokens",
    output="num_decode_tokens",
)
