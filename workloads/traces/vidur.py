"""Vidur's request traces, and its lengths without arrival times."""

from workloads.traces.base import CsvFormat

FORMAT = CsvFormat(
    name="vidur",
    about="Vidur: arrived_at (s), num_prefill_tokens, num_decode_tokens",
    arrival="arrived_at",
    prompt="num_prefill_tokens",
    output="num_decode_tokens",
)
LENGTHS = CsvFormat(
    name="vidur-lengths",
    about="Vidur lengths: num_prefill_tokens, num_decode_tokens; no times",
    arrival="",
    prompt="num_prefill_tokens",
    output="num_decode_tokens",
)
