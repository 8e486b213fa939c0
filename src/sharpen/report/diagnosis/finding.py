"""What a diagnosis says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["problem", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")
"""From the gravest down. problem: the run does not do what it is for. warning: it may soon not, or does it badly."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: what, from which figures, and what to change.

    ``id`` is the name of the function that finds it. ``evidence`` and ``advice`` are sentences; the advice names
    settings of the run's own recipe. ``steps`` are the first and the last step that the evidence is from, ``metrics``
    those to look at.
    """

    id: str
    severity: Severity
    title: str
    evidence: str
    advice: str
    steps: tuple[int, int]
    metrics: tuple[str, ...]
    source: Literal["metrics", "samples"] = "metrics"

    def sentence(self) -> str:
        """As a terminal shows it."""
        return f"{self.title}. {self.evidence} {self.advice}"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "steps": [*self.steps], "metrics": [*self.metrics]}


def gravest_first(findings: Sequence[Finding]) -> list[Finding]:
    """Findings of one severity keep their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
