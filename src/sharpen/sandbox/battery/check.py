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
from .bystander import Bystander, Felt
from .forged import FORGED
from .hostile import HOSTILE
from .prelude import prelude
from .witness import Witness

LIMITS = Limits(
    wall_s=1.5, cpu_s=2, memory_bytes=512 << 20, output_bytes=1 << 20, files_bytes=4 << 20, files=100, threads=16
)
_SLACK_S = 10.0
"""How long a program may take to disappear after its time limit, on a busy machine."""

_TRIALS = 3
"""Of a program that others felt too much of, before that counts."""

PROGRAMS: tuple[Attack, ...] = (*HOSTILE, *FORGED)
"""What `check_sandbox` runs by default. ``tests/sandbox/battery`` has many more."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of one program."""

    attack: Attack
    through: tuple[str, ...]
    """What got through, in words; empty if the sandbox held."""
    felt: Felt | None
    """What other processes felt of it; None for a forged solution, or if the sandbox failed."""
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

    def worst_felt(self, field: str) -> Finding | None:
        """The finding with the highest number in that field of `Felt`; None if none has one."""
        measured = [f for f in self.findings if f.felt is not None and getattr(f.felt, field) is not None]
        return max(measured, key=lambda finding: getattr(finding.felt, field), default=None)

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
    with Bystander() as bystander, Witness(apart_from=bystander.pid) as witness:
        for attack in programs:
            if attack.group.startswith("forged"):
                finding = _try_forged(sandbox, attack, limits)
            else:
                finding = _try_until_sure(sandbox, attack, witness, bystander, limits)
            findings.append(finding)
            if on_finding is not None:
                on_finding(finding)
    return BatteryReport(sandbox.isolation, tuple(findings))


def _try_until_sure(
    sandbox: Sandbox, attack: Attack, witness: Witness, bystander: Bystander, limits: Limits
) -> Finding:
    """Run a program again if others felt too much of it: what is not felt each time was the machine's own noise."""
    finding = _try_hostile(sandbox, attack, witness, bystander, limits)
    for _ in range(_TRIALS - 1):
        if finding.felt is None or not finding.felt.breaches:
            break
        bystander.rest()
        again = _try_hostile(sandbox, attack, witness, bystander, limits)
        felt = finding.felt.milder(again.felt) if again.felt is not None else finding.felt
        through = tuple(dict.fromkeys((*finding.through, *again.through)))
        finding = dataclasses.replace(again, through=through, felt=felt)
    felt_too_much = finding.felt.breaches if finding.felt is not None else ()
    return dataclasses.replace(finding, through=(*finding.through, *felt_too_much))


def _try_hostile(sandbox: Sandbox, attack: Attack, witness: Witness, bystander: Bystander, limits: Limits) -> Finding:
    source = prelude(witness.targets) + attack.source
    witness.snapshot()
    started = time.monotonic()
    try:
        result, felt = bystander.during(lambda: sandbox.run(source, limits=limits))
    except SandboxError as error:
        return Finding(attack, (f"the sandbox failed: {error}", *witness.effects()), None, None)
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
    return Finding(attack, tuple(through), felt, result)


def _try_forged(sandbox: Sandbox, attack: Attack, limits: Limits) -> Finding:
    try:
        passed = grading.passes(sandbox, attack, limits)
    except (SandboxError, TestsError) as error:
        return Finding(attack, (f"the sandbox failed: {error}",), None, None)
    return Finding(attack, ("it was counted as right",) if passed else (), None, None)


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
