"""The walk-through: how KV memory is managed, step by step, in a pool one can see whole.

Each scene is one tiny workload (`analysis/scenes/*.yaml`) and the recorded run of a real
allocator.  Every frame of the page is a snapshot of that run's block map, and every caption
is derived from two consecutive snapshots: there is no animation logic that could differ from
what the allocator does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis.errors import RunDirectoryError
from analysis.observed import SHARES, Columns
from analysis.page.frames import CACHED, Frame, frames, row_at
from analysis.page.tensors import tensor_steps
from analysis.reading import Run, RunDirectory
from analysis.report import asset, embed, environment
from analysis.whole import write_text

SCENES_FOLDER = Path(__file__).parent / "scenes"
LARGEST = 512
"""Blocks of a pool at most, and snapshots of a run: a scene is meant to be seen whole."""


class Scene(NamedTuple):
    """One scene before it is run."""

    name: str
    """Stem of its workload file."""
    title: str
    text: str

    @property
    def workload(self) -> Path:
        """Its workload file."""
        return SCENES_FOLDER / f"{self.name}.yaml"


SCENES: tuple[Scene, ...] = (
    Scene(
        "reserve-max",
        "Reserve for the longest",
        "Before paging, K/V had to lie in one piece, and nobody knows how long an answer will be. So every sequence "
        "gets room for the longest one allowed, 32 slots here. Two fit; the others wait, though most slots are empty.",
    ),
    Scene(
        "buddy",
        "Round up to a power of two",
        "Reserving a power of two and placing it in a buddy tree wastes less inside a sequence, but rounds up again "
        "for its prompt, and what is free lies in halves that cannot be joined.",
    ),
    Scene(
        "holes",
        "Know the length: holes remain",
        "Suppose an oracle told every length. Nothing is reserved for tokens that never come, yet sequences of "
        "different size leave holes of different size, and a request may fit in none of them.",
    ),
    Scene(
        "growing",
        "Grow by copying",
        "Without any reservation: tensors exactly as long as the sequence, as torch.cat makes them. Nothing is held "
        "for later, but every step makes every tensor anew, one token longer, and copies all the old ones into it.",
    ),
    Scene(
        "paged",
        "Pages on demand",
        "PagedAttention cuts K/V into blocks of 4 slots that may lie anywhere. A sequence takes a block when it needs "
        "one, so at most its last block is partly empty, and any free block will do.",
    ),
    Scene(
        "prefix",
        "A shared prefix",
        "Five prompts begin with the same 16 tokens. Their blocks are computed once and shared: a block carries the "
        "number of sequences that hold it. When nobody holds it, it stays cached until its room is needed.",
    ),
    Scene(
        "copy-on-write",
        "Copy on write",
        "Three answers to one prompt share its blocks. The last one is partly filled, so the first sequence that "
        "writes into it gets a copy of its own; the full ones stay shared.",
    ),
    Scene(
        "preempt-recompute",
        "Preempted, then recomputed",
        "Blocks on demand can run out. The newest request loses its blocks and goes back to the queue; when it "
        "returns, its prompt and all it had generated are computed again in one step.",
    ),
    Scene(
        "preempt-swap",
        "Preempted, then swapped back",
        "The other way: the blocks of the preempted request are copied to host memory and copied back later. Nothing "
        "is computed twice, but the copies cross PCIe.",
    ),
)


class Geometry(NamedTuple):
    """How much K/V one model needs in one number format, and how much of it fits."""

    model: str
    attention: str
    """MHA, GQA, MQA or MLA."""
    kv_dtype: str
    bytes_per_token: int
    weight_bytes: int
    max_model_len: int
    """Longest sequence it is made for, tokens."""
    tokens: Mapping[str, int]
    """Token slots that fit, by device; 0 where not even the weights do."""


class Attention(NamedTuple):
    """What one kind of attention keeps of a token, for the pictures: one model's geometry, with other heads."""

    kind: str
    text: str
    query_heads: int
    kv_heads: int
    """0 where one compressed vector serves all heads."""
    bytes_per_token: int


@dataclass(frozen=True)
class Shown:
    """One scene with its recorded run."""

    scene: Scene
    directory: RunDirectory

    def document(self) -> dict[str, Any]:
        """The scene as JSON.

        Raises:
            RunDirectoryError: the run has no block map, or is too large to be seen whole.

        """
        run = self.directory.runs[0]
        if run.facts["kind"] == "growing":
            return self._head(run) | {"tensors": True, "frames": list(_tensor_frames(run))}
        blocks = run.blocks()
        if blocks is None or not len(blocks["time_s"]):
            raise RunDirectoryError(f"{run.path}: no block map was recorded, so there is nothing to walk through")
        count, size = int(run.facts["num_blocks"]), int(run.facts["block_size"])
        seen = len(np.unique(blocks["time_s"]))
        if count > LARGEST or seen > LARGEST:
            raise RunDirectoryError(
                f"{run.path}: {count} blocks and {seen} snapshots; a walk-through shows at most {LARGEST} of each"
            )
        steps, requests = run.steps(), run.requests()
        drawn = frames(blocks, requests, steps, count, size)
        return self._head(run) | {"frames": [_frame(frame, steps, requests, size) for frame in drawn]}

    def _head(self, run: Run) -> dict[str, Any]:
        return {
            "title": self.scene.title,
            "text": self.scene.text,
            "allocator": run.label,
            "num_blocks": int(run.facts["num_blocks"]),
            "block_size": int(run.facts["block_size"]),
            "capacity": run.capacity,
            "outcome": _outcome(run, self.directory.summary()[0]),
        }


def _frame(frame: Frame, steps: Columns, requests: Columns, size: int) -> dict[str, Any]:
    row = row_at(steps, frame.time_s)
    here = [_request(requests, *item) | {"blocks": frame.held.get(item[0], [])} for item in frame.states.items()]
    return {
        "time": frame.time_s,
        "owner": frame.owner,
        "references": frame.references,
        "filled": frame.filled,
        "said": frame.said,
        "requests": here,
        "ledger": _ledger(frame, steps, row, size),
    }


def _request(requests: Columns, request: int, state: str) -> dict[str, Any]:
    tokens = {"prompt": int(requests["prompt_tokens"][request]), "output": int(requests["output_tokens"][request])}
    return {"id": request, "state": state, "blocks": [], **tokens}


def _tensor_frames(run: Run) -> Iterator[dict[str, Any]]:
    """Frames of a run whose sequences are tensors of their own: one a step."""
    requests, steps = run.requests(), run.steps()
    if np.any(requests["preemptions"]) or np.any(requests["samples"] > 1):
        raise RunDirectoryError(f"{run.path}: a walk-through follows tensors only where nobody is preempted or forks")
    for step in tensor_steps(requests, steps):
        yield {
            "time": float(steps["start_s"][step.row]),
            "owner": [],
            "references": [],
            "filled": [],
            "said": step.said,
            "requests": [_request(requests, *item) for item in step.states.items()],
            "ledger": {name: int(steps[name][step.row]) for name in SHARES},
            "tensors": [tensor._asdict() for tensor in step.tensors],
        }


def _ledger(frame: Frame, steps: Columns, row: int, size: int) -> dict[str, int]:
    """Count the frame's own blocks, so that bar and pool agree; only what is still to come is read off the steps.

    A snapshot shows the pool between two steps, a row of steps.parquet the pool while one runs.
    """
    ledger = dict.fromkeys(SHARES, 0)
    empty = 0
    for owner, references, filled in zip(frame.owner, frame.references, frame.filled, strict=True):
        if owner >= 0 and not references:
            ledger["rounding"] += size
        elif owner >= 0:
            ledger["live"] += filled
            empty += size - filled
        else:
            ledger["cached" if owner == CACHED else "free"] += size
    ledger["internal"] = min(int(steps["internal"][max(row - 1, 0)]), empty)
    ledger["reserved"] = empty - ledger["internal"]
    ledger["external"] = min(int(steps["external"][row]), ledger["free"])
    ledger["free"] -= ledger["external"]
    return ledger


def _outcome(run: Run, entry: Mapping[str, Any]) -> str:
    metrics = entry["metrics"]
    live = 100 * entry["ledger"]["mean"]["live"] / run.capacity
    return (
        f"On average {metrics['batch_size']['mean']:.1f} sequences at once and {live:.0f} % of the pool live; "
        f"all done after {entry['duration_s']:.1f} s."
    )


def write_walkthrough(
    directories: Mapping[str, RunDirectory],
    out: str | Path,
    geometry: Sequence[Geometry] = (),
    attention: Sequence[Attention] = (),
) -> Path:
    """Write the walk-through page from the recorded runs of its scenes.

    Args:
        directories: run directory by name of the scene (`SCENES`); scenes without one are left out.
        out: the file.
        geometry: rows of the table of models, if it is wanted.
        attention: the pictures beside it.

    Raises:
        RunDirectoryError: a run has no block map or is too large.

    """
    shown = [Shown(scene, directories[scene.name]).document() for scene in SCENES if scene.name in directories]
    template = environment().get_template("walkthrough.html.j2")
    text: str = template.render(
        scenes=shown,
        geometry=bool(geometry),
        attention=attention,
        most=max((one.bytes_per_token for one in attention), default=1),
        models=embed([row._asdict() for row in geometry]),
        data=embed(shown),
        style=asset("report.css") + asset("walkthrough.css"),
        scripts=[asset("walkthrough.js"), *([asset("geometry.js")] if geometry else [])],
        shares=SHARES,
    )
    target = Path(out)
    write_text(target, text)
    return target
