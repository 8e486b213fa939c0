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
from .forgeries import FORGED
from .hostile import ATTACKS
from .prelude import prelude
from .witness import Witness

LIMITS = Limits(
    wall_s=1.5, cpu_s=2, memory_bytes=512 << 20, output_bytes=1 << 20, files_bytes=4 << 20, files=100, threads=16
)
_SLACK_S = 10.0
"""How much longer than its limits a program may take to go away, on a busy machine."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one program came to."""

    attack: Attack
    through: tuple[str, ...]
    """What got through, in words; nothing, if the sandbox held."""
    result: Result | None
    """How a hostile program ended; None for a forged solution, or where the sandbox failed."""


@dataclasses.dataclass(frozen=True)
class BatteryReport:
    """What the battery found."""

    isolation: Isolation
    findings: tuple[Finding, ...]

    @property
    def got_through(self) -> tuple[Finding, ...]:
        """Those that did what they must not."""
        return tuple(finding for finding in self.findings if finding.through)

    def groups(self) -> dict[str, tuple[int, int]]:
        """Group → programs, and how many of them got through."""
        through = Counter(finding.attack.group for finding in self.got_through)
        return {
            group: (count, through[group])
            for group, count in Counter(finding.attack.group for finding in self.findings).items()
        }


def check_sandbox(
    sandbox: Sandbox,
    programs: Sequence[Attack] | None = None,
    *,
    limits: Limits = LIMITS,
    told: Callable[[Finding], None] | None = None,
) -> BatteryReport:
    """Run hostile programs and forged solutions, and see whether anything happened that must not.

    Without isolation only the harmless ones are run, which show what the sandbox is for.

    Args:
        programs: all of them by default.
        told: called with each finding as it comes.

    Raises:
        SandboxError: this machine cannot give the level asked for, or an honest solution does not pass.
    """
    chosen: Sequence[Attack] = (*ATTACKS, *FORGED) if programs is None else programs
    if sandbox.isolation is Isolation.NONE:
        chosen = [attack for attack in chosen if attack.is_harmless]
    _check_honest(sandbox)
    findings: list[Finding] = []
    with Witness() as witness:
        lines = prelude(witness.targets)
        for attack in chosen:
            if attack.group.startswith("forged"):
                finding = _try_forged(sandbox, attack, limits)
            else:
                finding = _try_hostile(sandbox, attack, lines, witness, limits)
                lines = prelude(witness.targets)  # a victim that was ended has been replaced
            findings.append(finding)
            if told is not None:
                told(finding)
    return BatteryReport(sandbox.isolation, tuple(findings))


def _try_hostile(sandbox: Sandbox, attack: Attack, lines: str, witness: Witness, limits: Limits) -> Finding:
    witness.look()
    started = time.monotonic()
    try:
        result = sandbox.run(lines + attack.source, limits=limits)
    except SandboxError as error:
        return Finding(attack, (f"the sandbox failed: {error}", *witness.effects()), None)
    took_s = time.monotonic() - started
    through = witness.effects(result.stdout, result.stderr)
    through += list(_said(result.stdout))
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


def _said(stdout: bytes) -> list[str]:
    """What the program says that it could do."""
    return [
        "it says: " + line.removeprefix(b"THROUGH").strip().decode(errors="replace")[:100]
        for line in stdout.split(b"\n")
        if line.startswith(b"THROUGH")
    ][:3]


def _check_honest(sandbox: Sandbox) -> None:
    """A sandbox that lets nothing pass would look safe."""
    for group, source in (
        ("forged tests", grading.HONEST),
        ("forged calls", grading.HONEST),
        ("forged programs", grading.HONEST_PROGRAM),
    ):
        if not grading.passes(sandbox, Attack(group, "honest", source, is_harmless=True), Limits()):
            raise SandboxError(f"an honest solution does not pass ({group})")
