"""Parts of the battery that are files of the test suite."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from batteries.part import Outcome

TESTS = Path(__file__).parents[1]
CHANGES = ("training/test_accepted_changes.py", "training/test_changed_base.py", "training/test_fingerprint.py")
COMPLETIONS = (
    *("rewards/test_hostile_completions.py", "rewards/test_hostile_texts.py", "rewards/code/test_code_budget.py"),
    *("test_worker.py", "cli/test_cli_hostile.py"),
)
TIMEOUT_S = 3600.0


def changes(short: bool) -> Outcome:
    """Every kind of change to what a run reads, between its stop and its going on."""
    return _suite(CHANGES, short)


def completions(short: bool) -> Outcome:
    """Texts that try to stop a reward, to take its time or to reach the terminal."""
    return _suite(COMPLETIONS, short)


def _suite(files: tuple[str, ...], short: bool) -> Outcome:
    outcome = Outcome()
    if short:
        outcome.skipped.append(f"{', '.join(files)}: the test suite runs them as they are")
        return outcome
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-o",
            "addopts=",
            "-p",
            "no:cacheprovider",
            *(str(TESTS / file) for file in files),
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=TESTS.parent,
        check=False,
    )
    for count, what in re.findall(r"(\d+) (passed|failed|errors?)\b", ended.stdout.splitlines()[-1]):
        outcome.cases += int(count)
        if what != "passed":
            outcome.failed(f"{count} {what}: {ended.stdout[-4000:]}")
    if not outcome.cases:
        outcome.failed(ended.stdout + ended.stderr)
    return outcome
