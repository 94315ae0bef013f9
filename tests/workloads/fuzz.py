"""Coverage-guided fuzzing of the readers and the loader, by hand.

    pip install atheris
    python tests/workloads/fuzz.py -max_total_time=600 [corpus folder]

The first byte chooses what reads the rest.  Only `WorkloadError` may come out of it.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["workloads"]):
    from workloads.document import Document
    from workloads.errors import WorkloadError
    from workloads.generate import requests
    from workloads.loader import parse
    from workloads.streams import stream
    from workloads.trace import Trace
    from workloads.traces import FORMATS, read

FILE = Path(tempfile.mkdtemp()) / "fuzz"
NAMES = ["auto", *FORMATS]
MOST = 10_000
"""Requests that a fuzzed workload may ask for: drawing millions is slow, not wrong."""


def one_input(data: bytes) -> None:
    """Read one input; anything but a `WorkloadError` is a finding."""
    if not data:
        return
    choice, content = data[0] % (len(NAMES) + 1), data[1:]
    try:
        if choice < len(NAMES):
            FILE.write_bytes(content)
            read(Trace(trace=str(FILE), format=NAMES[choice], on_bad_rows="skip"), stream(0, "spread"))
        else:
            workload = parse(Document(content.decode("utf-8", errors="ignore"), "fuzz"), FILE.parent)
            if getattr(workload.requests, "count", None) is not None and workload.requests.count < MOST:
                requests(workload)
    except WorkloadError:
        return


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
