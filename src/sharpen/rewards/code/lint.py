"""A reward from a linter's findings."""

from __future__ import annotations

import importlib
import importlib.util
import json
import signal
import subprocess
from typing import Any, ClassVar

from pydantic import Field, field_validator

from sharpen.rewards.code.running import CORES
from sharpen.rewards.code.verifiers import Code
from sharpen.settings import Seconds


class CodeLint(Code):
    """1 minus ``cost`` for each finding of the linter ruff, at least 0; 0 if the program is not valid Python.

    ``rules`` are ruff rules or prefixes; the default selects likely mistakes. Suppression comments are ignored. The
    program is not run. If ruff takes longer than ``timeout_s`` or crashes, the score is 0. Needs ruff:
    ``pip install "sharpen[lint]"``.
    """

    name: ClassVar[str] = "code_lint"
    at_once: ClassVar[int] = CORES

    rules: tuple[str, ...] = Field(("E4", "E7", "E9", "F"), min_length=1)
    """Ruff's rules, or their prefixes."""
    cost: float = Field(0.1, gt=0, le=1)
    """What each finding takes from the reward."""
    timeout_s: Seconds = 10.0
    """Time limit of ruff for one program in seconds."""

    @field_validator("rules")
    @classmethod
    def _known(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        if importlib.util.find_spec("ruff") is None:
            raise ValueError('the linter ruff is not installed: pip install "sharpen[lint]"')
        tried = _ruff("", rules, timeout_s=60.0)
        if tried.returncode != 0:
            raise ValueError(f"ruff rejects these rules: {tried.stderr.strip()}")
        return rules

    def __call__(self, completion: str, **row: Any) -> float:
        code = self._code(completion, row)
        count = None if code is None else findings(code, self.rules, self.timeout_s)
        return 0.0 if count is None else max(0.0, 1.0 - self.cost * count)


def findings(code: str, rules: tuple[str, ...], timeout_s: float) -> int | None:
    """The number of findings; None if the program is not valid Python or ruff could not process it.

    Raises RuntimeError if ruff itself fails.
    """
    try:
        # The line break before a closing fence belongs to the program: its absence is not a finding.
        ran = _ruff(code if code.endswith("\n") else f"{code}\n", rules, timeout_s)
    except subprocess.TimeoutExpired:
        return None
    # A crash, for example a stack overflow from deep nesting, is the program's fault; what others send is not.
    if ran.returncode < 0 and -ran.returncode not in (signal.SIGKILL, signal.SIGTERM):
        return None
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"ruff ended with status {ran.returncode}: {ran.stderr.strip()[-500:]}")
    rules_broken: list[dict[str, Any]] = json.loads(ran.stdout or "[]")
    if any(rule["code"] in (None, "invalid-syntax") for rule in rules_broken):
        return None
    return sum(int(rule["count"]) for rule in rules_broken)


def _ruff(code: str, rules: tuple[str, ...], timeout_s: float) -> subprocess.CompletedProcess[str]:
    ruff = importlib.import_module("ruff.__main__").find_ruff_bin()
    return subprocess.run(
        [
            *(ruff, "check", "--isolated", "--no-cache", "--quiet", "--ignore-noqa", "--select", ",".join(rules)),
            # Counts only: the full findings can be a thousand times as long as the program.
            *("--statistics", "--output-format", "json", "--stdin-filename", "program.py", "-"),
        ],
        input=code,
        env={},
        cwd="/",
        capture_output=True,
        encoding="utf-8",
        timeout=timeout_s,
        start_new_session=True,
    )
