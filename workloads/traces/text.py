"""Counting the tokens of a text, for the formats that hold text and no lengths.

A text is looked at once for its length and never kept.  With a tokenizer.json the count is
exact; without one it is an estimate, and the note says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workloads.errors import WorkloadError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable

BYTES_PER_TOKEN = 4
"""Bytes of UTF-8 a token, about right for English and for code."""
DEFAULT_OUTPUT = 256
"""Output tokens where a dataset names none: vLLM's `--custom-output-len`."""


def token_counter(tokenizer: str | None) -> tuple[Callable[[str], int], list[str]]:
    """Return what counts tokens, and a note for the user.

    Raises:
        WorkloadError: the tokenizer cannot be loaded, or the package `tokenizers` is not installed.

    """
    if tokenizer is None:
        note = f"token counts are estimated as {BYTES_PER_TOKEN} bytes per token; name a tokenizer for exact ones"
        return _estimate, [note]
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - optional
    except ImportError:
        raise WorkloadError("counting tokens needs the package tokenizers: pip install tokenizers") from None
    try:
        encode = Tokenizer.from_file(tokenizer).encode
    except Exception as error:  # noqa: BLE001 - the library raises bare Exception for a bad file
        raise WorkloadError(f"{tokenizer}: not a tokenizer.json: {first_line(error)}") from None
    return lambda text: len(encode(text, add_special_tokens=False).ids), []


def _estimate(text: str) -> int:
    return -(-len(text.encode("utf-8", errors="replace")) // BYTES_PER_TOKEN)
