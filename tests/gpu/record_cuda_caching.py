"""Record what PyTorch's CUDA caching allocator really does, for tests/test_cuda_caching.py.

    python tests/gpu/record_cuda_caching.py OUT.jsonl.gz

Needs a CUDA device.  Each stream of requests runs in a process of its own, with and without
expandable segments, under a limit that makes memory short.  Line 1 of a stream: {"stream",
"expandable", "capacity", "torch", "device"}; then one request a line: {"new": id, "size"} or
{"free": id}, with "allocated" and "reserved" bytes after it, "segment": address if a new one was made,
"oom": true if it failed; last {"retries", "peak_allocated",
"peak_reserved"}.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MIB = 1 << 20


def mixed(seed: int, count: int) -> Iterator[dict[str, int]]:
    """Tensors of 1 byte to 40 MiB come and go."""
    draw = np.random.default_rng(seed)
    alive: list[int] = []
    for name in range(count):
        while alive and draw.random() < 0.45:
            yield {"free": alive.pop(int(draw.integers(len(alive))))}
        kind = draw.random()
        top = 4 * 1024 if kind < 0.3 else MIB if kind < 0.6 else 10 * MIB if kind < 0.9 else 40 * MIB
        yield {"new": name, "size": int(draw.integers(1, top + 1))}
        alive.append(name)
    for name in alive:
        yield {"free": name}


def growing(seed: int, tensors: int, token_bytes: int, sequences: int, steps: int) -> Iterator[dict[str, int]]:
    """Sequences of `tensors` tensors, each concatenated every step, layer by layer, and replaced at their end."""
    draw = np.random.default_rng(seed)
    running: list[tuple[list[int], list[int]]] = []
    name = 0
    for _ in range(steps):
        while len(running) < sequences:
            prompt = int(draw.integers(8, 400))
            running.append(([prompt, prompt + int(draw.integers(1, 200))], []))
            for _ in range(tensors):
                yield {"new": name, "size": prompt * token_bytes}
                running[-1][1].append(name)
                name += 1
        for tensor in range(tensors):
            for length, names in running:
                yield {"new": name, "size": (length[0] + 1) * token_bytes}
                yield {"free": names[tensor]}
                names[tensor] = name
                name += 1
        for length, _ in running:
            length[0] += 1
        for length, names in list(running):
            if length[0] >= length[1]:
                running.remove((length, names))
                for old in names:
                    yield {"free": old}


STREAMS = {
    "mixed, roomy": (lambda: mixed(1, 800), 4096 * MIB),
    "mixed, tight": (lambda: mixed(2, 1200), 600 * MIB),
    "mixed, very tight": (lambda: mixed(3, 1200), 200 * MIB),
    "growing, small tensors": (lambda: growing(4, 6, 1024, 6, 50), 512 * MIB),
    "growing, large tensors": (lambda: growing(5, 6, 8192, 6, 50), 512 * MIB),
    "growing, tight": (lambda: growing(6, 6, 8192, 9, 50), 140 * MIB),
}


def record(stream: str) -> None:
    """Run one stream in this process and print its lines."""
    import torch  # noqa: PLC0415 # the recorder's parent needs no torch

    requests, capacity = STREAMS[stream]
    total = torch.cuda.get_device_properties(0).total_memory
    fraction = capacity / total
    torch.cuda.set_per_process_memory_fraction(fraction)
    expandable = "expandable_segments:True" in os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
    head = {"stream": stream, "expandable": expandable, "capacity": int(fraction * total)}
    lines: list[dict[str, object]] = [head | {"torch": torch.__version__, "device": torch.cuda.get_device_name()}]
    alive: dict[int, torch.Tensor] = {}
    segments = 0
    for request in requests():
        line: dict[str, object] = dict(request)
        if "size" in request:
            try:
                alive[request["new"]] = torch.empty(request["size"], dtype=torch.uint8, device="cuda")
                if (made := torch.cuda.memory_stats()["num_device_alloc"]) > segments and not expandable:
                    segments = made
                    line["segment"] = alive[request["new"]].data_ptr()
            except torch.OutOfMemoryError:
                line["oom"] = True
        else:
            alive.pop(request["free"], None)
        lines.append(line | {"allocated": torch.cuda.memory_allocated(), "reserved": torch.cuda.memory_reserved()})
    stats = torch.cuda.memory_stats()
    lines.append(
        {
            "retries": stats["num_alloc_retries"],
            "peak_allocated": torch.cuda.max_memory_allocated(),
            "peak_reserved": torch.cuda.max_memory_reserved(),
        }
    )
    sys.stdout.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def main() -> None:
    """Run every stream in a process of its own and write all lines to one file."""
    if sys.argv[1] in STREAMS:
        record(sys.argv[1])
        return
    jobs = [
        subprocess.Popen(  # this very script
            [sys.executable, __file__, stream],
            env=os.environ | {"PYTORCH_CUDA_ALLOC_CONF": setting},
            stdout=subprocess.PIPE,
            text=True,
        )
        for setting in ("expandable_segments:False", "expandable_segments:True")
        for stream in STREAMS
    ]
    with gzip.open(Path(sys.argv[1]), "wt") as file:
        for job in jobs:
            lines, _ = job.communicate()
            if job.returncode:
                sys.exit(f"a recording failed: {job.args}")
            file.write(lines)


if __name__ == "__main__":
    main()
