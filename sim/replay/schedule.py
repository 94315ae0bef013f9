"""Replays vLLM's V1 scheduler, step by step, through the engine that `run` uses (`sim.replay_schedule`)."""

from __future__ import annotations

from sim.replay.recording import Difference, Replay, Report
from sim.replay_schedule import replay_schedule


class ScheduleReplay(Replay):
    """Steps of a Scheduler against `sim.schedulers.VllmV1`."""

    def run(self) -> Report:
        """Replay all requests at once and compare every step.

        Raises:
            UserError: a line lacks what it must have.

        """
        path, config = str(self.recording.path), {"config": self.recording.config}
        with self.recording.faults():
            numbered = [(1, config), *((self.recording.line, line) for line in self.recording)]
        with self.recording.faults():
            differences = list(replay_schedule([line for _, line in numbered]))
        self.report.ops = sum("step" in line for _, line in numbered)
        self.report.differences = [
            Difference(path, numbered[place - 1][0], "step", field, recorded, ours)
            for place, field, recorded, ours in differences
        ]
        return self.report
