"""What a check found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sharpen.rewards.checking.cheats import Cheat
from sharpen.rewards.checking.probe import Trial

SLOW_S = 1.0
"""A completion that takes longer to score is pointed out."""


@dataclass(frozen=True, slots=True)
class References:
    """The data's own answers. ``origin`` says where they come from and in what form, None where there are none.

    ``full`` of ``tried`` got a full reward; ``failed`` are the others, ``missing`` the rows without a reference.
    """

    origin: str | None
    tried: int
    failed: tuple[Trial, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def full(self) -> int:
        return self.tried - len(self.failed)


@dataclass(frozen=True, slots=True)
class CheatResult:
    """How one cheat went. ``attempt`` is the way that was accepted on most rows, ``accepted`` of ``tried``; ``example``
    is a completion that got a full reward (or did what the cheat is meant to do), None where none did. ``highest`` is
    the highest reward that any attempt got, None where none got one. ``tried`` is 0 where the cheat cannot be made for
    this data, or has no tokens that the policy could write."""

    cheat: Cheat
    attempt: str | None
    accepted: int
    tried: int
    example: Trial | None
    highest: float | None
    allowed: bool

    @property
    def passes(self) -> bool:
        """Whether it was accepted more often than by luck. What may be right by luck may be so once."""
        lucky = max(self.cheat.tolerated * self.tried, 1 if self.tried > 1 else 0) if self.cheat.tolerated else 0
        return self.accepted > lucky


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds for one completion; ``slowest`` is the completion that took longest."""

    completions: int
    median_s: float
    slowest: Trial
    per_s: float

    @property
    def slow(self) -> bool:
        return self.slowest.seconds > SLOW_S


@dataclass(frozen=True, slots=True)
class RewardReport:
    """What a check found. ``errors`` are completions for which the reward raised: they would be recorded and left out.
    ``stops`` are those at which a run would stop or hang. ``findings`` are the reasons why the reward is not sound,
    a line each."""

    reward: str
    data: str
    rows: int
    threshold: float
    references: References
    results: tuple[CheatResult, ...]
    timing: Timing
    errors: tuple[Trial, ...]
    stops: tuple[Trial, ...]
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.findings


def timing_of(trials: Sequence[Trial]) -> Timing:
    seconds = [trial.seconds for trial in trials]
    return Timing(
        completions=len(trials),
        median_s=median(seconds),
        slowest=max(trials, key=lambda trial: trial.seconds),
        per_s=len(trials) / max(sum(seconds), 1e-9),
    )
