"""Steps of a real run beside what the cost model says of each: how near they are, and what held the host up.

    python -m tests.gpu.steps PRESET CALIBRATION FOLDER...      folders as `tests.gpu.timed --keep` leaves them

Prints a JSON document: for each run of each folder, the measured over the predicted time of steps that only decode, and
of those with whole prompts (percentiles 1, 10, 50, 90 and 99), and the stretches of time in which decodes that should
take less took more than `SLOW_S`, those less than `APART_S` apart taken together.

A run's tables do not say all that a step's time depends on.  Sequences are taken to get their tokens evenly from first
to last; a prompt's chunk is one whose request got its first token when the step ended; steps with any other chunk are
left out, and so are those that wait for the host.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from sim.costs.calibration import find_calibration, load_origin
from sim.costs.load import Load
from sim.decode.timed import moved_to
from sim.setup import prepare
from workloads.loader import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    import pandas as pd

    from sim.costs.model import CostModel

    Floats = npt.NDArray[np.float64]

SLOW_S = 0.005
APART_S = 0.05


def judged(folder: Path, cost: CostModel) -> dict[str, Any]:
    """Compare the steps of one run."""
    steps, requests = (pq.read_table(folder / f"{name}.parquet").to_pandas() for name in ("steps", "requests"))
    steps = steps[(steps.duration_s > 0) & (steps.prefill_tokens + steps.decode_tokens > 0)]
    steps["longest"] = longest(requests, steps.start_s.to_numpy())
    steps["heat_ns"] = heats(steps, cost)
    alone = steps[steps.prefill_tokens == 0]
    predicted = np.array([cost.step_ns(decodes(step)) / 1e9 for step in alone.itertuples()])
    slow = alone[(alone.duration_s > SLOW_S) & (predicted < SLOW_S)]
    stretches: list[list[float]] = []
    for start, took in zip(slow.start_s.tolist(), slow.duration_s.tolist(), strict=True):
        if stretches and start - sum(stretches[-1]) < APART_S:
            stretches[-1][1] = start + took - stretches[-1][0]
        else:
            stretches.append([start, took])
    return {
        "steps": len(alone),
        "measured_over_predicted": percentiles(alone.duration_s.to_numpy() / predicted),
        "prefills": percentiles(np.array([*prefills(steps, requests, cost)])),
        "slow_steps": len(slow),
        "slow_stretches_s": [[round(start, 3), round(length, 3)] for start, length in stretches],
    }


def percentiles(ratios: Floats) -> dict[str, float]:
    """Return some percentiles of measured over predicted times."""
    return {f"p{percent}": round(float(np.percentile(ratios, percent)), 4) for percent in (1, 10, 50, 90, 99)}


def longest(requests: pd.DataFrame, times: Floats) -> Floats:
    """Return the tokens of the longest sequence that decodes, float64[times]; 0 where none does."""
    begun = requests[requests.first_token_s.notna()]
    prompt, output, first, finish = (
        begun[name].to_numpy(np.float64)[:, None]
        for name in ("prompt_tokens", "generated_tokens", "first_token_s", "finish_s")
    )
    share = (times - first) / np.maximum(finish - first, 1e-9)
    tokens = np.where((share >= 0) & (share < 1), prompt + 1 + share * (output - 1), 0)
    return np.asarray(tokens.max(axis=0, initial=0))


def decodes(step: Any) -> Load:
    """Return the load of a step's decodes."""
    count, context = int(step.decode_tokens), int(step.live) - int(step.prefill_tokens)
    context = max(0, context)
    return Load(
        decode_seqs=count,
        samples=count,
        decode_context=context,
        decode_longest=int(step.longest),
        heat_ns=int(step.heat_ns),
    )


def heats(steps: pd.DataFrame, cost: CostModel) -> list[int]:
    """Return the level of heat at the start of each step."""
    heat, found = cost.heat(), []
    for step in steps.itertuples():
        now = round(step.start_s * 1e9)
        found.append(heat.at(now) if cost.throttles else 0)
        if cost.heats(Load(int(step.prefill_tokens), decode_seqs=int(step.decode_tokens))):
            heat.add(now, round(step.duration_s * 1e9))
    return found


def prefills(steps: pd.DataFrame, requests: pd.DataFrame, cost: CostModel) -> Iterator[float]:
    """Compare steps with whole prompts that are captured."""
    begun = requests.groupby(requests.first_token_s.round(6))
    before, rule = 0.0, cost.splitting
    for step in steps.itertuples():
        took, tokens, end = step.duration_s, int(step.prefill_tokens), round(step.start_s + step.duration_s, 6)
        if tokens and rule is not None:
            chunks = begun.get_group(end) if end in begun.groups else requests[:0]
            sizes = [(int(p - c), int(c)) for p, c in zip(chunks.prompt_tokens, chunks.cached_tokens, strict=True)]
            load = decodes(step)._replace(
                prefill_tokens=tokens,
                prefill_pairs=sum(size * start + size * (size + 1) // 2 for size, start in sizes),
                prefill_context=sum(map(sum, sizes)),
                prefill_seqs=len(sizes),
                prefill_merged=rule.merged(sizes),
                samples=int(step.decode_tokens) + len(sizes),
                before_ns=round(before * 1e9),
            )
            whole = sum(size for size, _ in sizes) == tokens
            if whole and not cost.launches(load) and cost.unhidden_ns(load) <= load.before_ns:
                yield took * 1e9 / cost.step_ns(load)
        before = took


def main(preset: str, calibration: str, *folders: str) -> None:
    """Print what there is to say of some run directories."""
    workload = load(preset, [f"costs.calibration={calibration}"])
    device = moved_to(load_origin(find_calibration(calibration)).described, workload.device)
    setup = prepare(workload.model_copy(update={"device": device}))
    found = {
        folder: {
            case.label: judged(Path(folder) / case.label, setup.cost(case.allocator()))
            for case in setup.cases
            if (Path(folder) / case.label).is_dir()
        }
        for folder in folders
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
