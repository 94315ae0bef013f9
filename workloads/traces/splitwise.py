"""splitwise-sim's request traces."""

from workloads.traces.base import CsvFormat

FORMAT = CsvFormat(
    name="splitwise",
    about="splitwise-sim: arrival_timestamp (s), prompt_size, token_size",
    arrival="arrival_timestamp",
    prompt="prompt_size",
    output="token_size",
)
