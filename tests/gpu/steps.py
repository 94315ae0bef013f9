"""Steps of a real run beside what the cost model says of each: how near they are, and what held the host up.

    python -m tests.gpu.steps PRESET CALIBRATION FOLDER...      folders as `tests.gpu.timed --keep` leaves them

Prints a JSON document: for each run of each folder, the measured over the predicted time of steps that only decode
(median, and the percentiles 1, 10, 90 and 99), and the stretches of time in which steps that should take less took more
than `SLOW_S`, those less than `APART_S` apart taken together.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from sim.calibration import find_calibration, load_origin
from sim.decode.timed import moved_to
from sim.load import Load
from sim.setup import prepare
from workloads.loader import load

if TYPE_CHECKING:
    from sim.cost import CostModel

SLOW_S = 0.005
APART_S = 0.05


def judged(folder: Path, cost: CostModel) -> dict[str, Any]:
    """Compare the steps of one run."""
    steps = pq.read_table(folder / "steps.parquet").to_pandas()
    steps = steps[steps.duration_s > 0]
    alone = steps[(steps.prefill_tokens == 0) & (steps.decode_tokens > 0)]
    predicted = [
        cost.step_ns(Load(decode_seqs=count, samples=count, decode_context=context)) / 1e9
        for count, context in zip(alone.decode_tokens.tolist(), alone.live.tolist(), strict=True)
    ]
    ratios = alone.duration_s.to_numpy() / predicted
    slow = alone[(alone.duration_s > SLOW_S) & (np.array(predicted) < SLOW_S)]
    stretches: list[list[float]] = []
    for start, took in zip(slow.start_s.tolist(), slow.duration_s.tolist(), strict=True):
        if stretches and start - sum(stretches[-1]) < APART_S:
            stretches[-1][1] = start + took - stretches[-1][0]
        else:
            stretches.append([start, took])
    return {
        "steps": len(alone),
        "measured_over_predicted": {
            f"p{percent}": round(float(np.percentile(ratios, percent)), 4) for percent in (1, 10, 50, 90, 99)
        },
        "slow_steps": len(slow),
        "slow_stretches_s": [[round(start, 3), round(length, 3)] for start, length in stretches],
    }


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
