"""Running the battery."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence

from sharpen.sandbox.inside.limits import Limits
from sharpen.sandbox.result import Result, SandboxError, TestsError
from sharpen.sandbox.sandbox import Isolation, Sandbox

from . import grading
from .attack import Attack
from .forged import FORGED
from .hostile import HOSTILE
from .prelude import prelude
from .witness import Witness

LIMITS = Limits(
    wall_s=1.5, cpu_s=2, memory_bytes=512 << 20, output_bytes=1 << 20, files_bytes=4 << 20, files=100, threads=16
)
_SLACK_S = 10.0
"""How long a program may take to disappear after its time limit, on a busy machine."""

PROGRAMS: tuple[Attack, ...] = (*HOSTILE, *FORGED)
"""What `check_sandbox` runs by default. ``tests/sandbox/battery`` has many more."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of one program."""

    attack: Attack
    through: tuple[str, ...]
    """What got through, in words; empty if the sandbox held."""
    result: Result | None
    """How a hostile program ended; None for a forged solution, or if the sandbox failed."""


@dataclasses.dataclass(frozen=True)
class BatteryReport:
    """The outcome of the battery."""

    isolation: Isolation
    findings: tuple[Finding, ...]

    @property
    def got_through(self) -> tuple[Finding, ...]:
        """The findings of programs that got through."""
        return tuple(finding for finding in self.findings if finding.through)

    def groups(self) -> dict[str, tuple[int, int]]:
        """Group → number of programs, and how many of them got through."""
        through = Counter(finding.attack.group for finding in self.got_through)
        return {
            group: (count, through[group])
            for group, count in Counter(finding.attack.group for finding in self.findings).items()
        }


def check_sandbox(
    sandbox: Sandbox,
    programs: Sequence[Attack] = PROGRAMS,
    *,
    limits: Limits = LIMITS,
    on_finding: Callable[[Finding], None] | None = None,
) -> BatteryReport:
    """Run hostile programs and forged solutions, and report everything that got through.

    Without isolation only the harmless ones run, to show what the sandbox is for.

    Args:
        on_finding: called after each program.

    Raises:
        SandboxError: the isolation level is not available on this machine, or an honest solution does not pass.
    """
    if sandbox.isolation is Isolation.NONE:
        programs = [attack for attack in programs if attack.is_harmless]
    _check_honest(sandbox)
    findings: list[Finding] = []
    with Witness() as witness:
        lines = prelude(witness.targets)
        for attack in programs:
            if attack.group.startswith("forged"):
                finding = _try_forged(sandbox, attack, limits)
            else:
                finding = _try_hostile(sandbox, attack, lines, witness, limits)
                lines = prelude(witness.targets)  # a killed victim has been replaced
            findings.append(finding)
            if on_finding is not None:
                on_finding(finding)
    return BatteryReport(sandbox.isolation, tuple(findings))


def _try_hostile(sandbox: Sandbox, attack: Attack, lines: str, witness: Witness, limits: Limits) -> Finding:
    witness.snapshot()
    started = time.monotonic()
    try:
        result = sandbox.run(lines + attack.source, limits=limits)
    except SandboxError as error:
        return Finding(attack, (f"the sandbox failed: {error}", *witness.effects()), None)
    took_s = time.monotonic() - started
    through = witness.effects(result.stdout, result.stderr)
    through += _claims(result.stdout)
    if not result.stdout.startswith(b"begun"):
        through.append(f"it never began: {result.stderr[-200:]!r}")
    if took_s > limits.wall_s + _SLACK_S:
        through.append(f"it took {took_s:.1f} s of {limits.wall_s} s")
    if result.peak_memory_bytes > limits.memory_bytes:
        through.append(f"it took {result.peak_memory_bytes >> 20} MiB of {limits.memory_bytes >> 20} MiB")
    if max(len(result.stdout), len(result.stderr)) > limits.output_bytes:
        through.append("it wrote more than it may")
    return Finding(attack, tuple(through), result)


def _try_forged(sandbox: Sandbox, attack: Attack, limits: Limits) -> Finding:
    try:
        passed = grading.passes(sandbox, attack, limits)
    except (SandboxError, TestsError) as error:
        return Finding(attack, (f"the sandbox failed: {error}",), None)
    return Finding(attack, ("it was counted as right",) if passed else (), None)


def _claims(stdout: bytes) -> list[str]:
    """What the program reports that it could do."""
    return [
        "it says: " + line.removeprefix(b"THROUGH").strip().decode(errors="replace")[:100]
        for line in stdout.split(b"\n")
        if line.startswith(b"THROUGH")
    ][:3]


def _check_honest(sandbox: Sandbox) -> None:
    """Honest solutions must pass: a sandbox in which nothing passes would look safe."""
    for group, source in (
        ("forged tests", grading.HONEST),
        ("forged calls", grading.HONEST),
        ("forged programs", grading.HONEST_PROGRAM),
    ):
        if not grading.passes(sandbox, Attack(group, "honest", source, is_harmless=True), Limits()):
            raise SandboxError(f"an honest solution does not pass ({group})")
