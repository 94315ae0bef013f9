"""What a validation has found, and the document that it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sim.decode.checks import MEMORY_TOLERANCE, Finding
from sim.decode.numerics import TOLERANCE

if TYPE_CHECKING:
    from analysis.timing import Timing


@dataclass
class Validation:
    """The outcome of a validation."""

    workload: str
    model: str
    weights: str
    dtype: str
    device: str
    versions: dict[str, str]
    date: str
    not_run: dict[str, str]
    """Allocators without a real counterpart, and why."""
    findings: list[Finding] = field(default_factory=list)
    timing: Timing | None = None
    """The timed part, if it was asked for."""

    @property
    def passed(self) -> bool:
        """Whether everything agrees, and times are as near as is asked."""
        timed = self.timing is None or self.timing.passed
        return bool(self.findings or self.timing) and timed and all(finding.passed for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the content of validation.json."""
        return {
            "schema": 1,
            "passed": self.passed,
            "workload": self.workload,
            "model": {"name": self.model, "weights": self.weights, "dtype": self.dtype},
            "device": self.device,
            "versions": self.versions,
            "date": self.date,
            "tolerances": {"logits": TOLERANCE[self.dtype], "memory": MEMORY_TOLERANCE},
            "not_run": self.not_run,
            "runs": [finding.as_json() for finding in self.findings],
            "timing": None if self.timing is None else self.timing.as_json(),
        }
