"""Azure's public LLM inference traces: dates with seven digits of fraction (2023), or six and an offset (2024)."""

from workloads.traces.base import CsvFormat

FORMAT = CsvFormat(
    name="azure",
    about="Azure LLM inference trace 2023 and 2024: TIMESTAMP (date), ContextTokens, GeneratedTokens",
    arrival="TIMESTAMP",
    prompt="ContextTokens",
    output="GeneratedTokens",
    clock="time",
)
