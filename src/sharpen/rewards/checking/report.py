"""The report of a check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sharpen.rewards.checking.cheats import Cheat
from sharpen.rewards.checking.probe import Trial

SLOW_S = 1.0
"""A completion that takes longer to score is reported as slow."""


@dataclass(frozen=True, slots=True)
class References:
    """Results for the references. ``origin`` says where they come from and in what form, None if there are none.

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
    """The result of one cheat. ``attempt`` is the variant that was accepted on most rows, ``accepted`` of ``tried``;
    ``example`` is a completion that got a full reward (or had the cheat's effect), None if none did. ``highest`` is the
    highest reward of all attempts, None if there is none. ``tried`` is 0 if the cheat does not apply to this data, or
    if the policy's tokens cannot express it."""

    cheat: Cheat
    attempt: str | None
    accepted: int
    tried: int
    example: Trial | None
    highest: float | None
    allowed: bool

    @property
    def passes(self) -> bool:
        """Whether it was accepted more often than tolerated; if chance is tolerated at all, one row always is."""
        by_chance = max(self.cheat.tolerated * self.tried, 1 if self.tried > 1 else 0) if self.cheat.tolerated else 0
        return self.accepted > by_chance


@dataclass(frozen=True, slots=True)
class Timing:
    """Scoring time per completion; ``slowest`` is the completion that took longest."""

    completions: int
    median_s: float
    slowest: Trial
    per_s: float

    @property
    def slow(self) -> bool:
        return self.slowest.seconds > SLOW_S


@dataclass(frozen=True, slots=True)
class RewardReport:
    """The result of a check. ``errors`` are completions for which the reward raised: a run would record and skip them.
    ``stops`` are those at which a run would stop or hang. ``findings`` are the reasons why the reward is not sound, one
    line each."""

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
