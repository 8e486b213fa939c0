"""Worker processes, one for each contestant, of which one works at a time."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

from machine import Busy

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
THREADS = 2
ENVIRONMENT = {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
PAUSE_S = 0.3
"""Between waking and a turn."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who takes part: a worker script, the environment that it runs in, its settings and environment variables."""

    name: str
    script: str
    environment: str
    settings: dict[str, Any]
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        return ROOT / self.environment / "bin" / "python"


class Running:
    """A contestant's process, from loading to its end. A context manager."""

    def __init__(
        self, contestant: Contestant, settings: dict[str, Any], log: Path, *, patience_s: float | None = None
    ) -> None:
        """``patience_s``: how long an answer may take; by default as long as it takes."""
        self.contestant = contestant
        self._log, self._patience_s = log, patience_s
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [contestant.python, HERE / contestant.script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, **ENVIRONMENT, **contestant.variables},
                process_group=0,
            )
        self._send({**contestant.settings, **settings, "threads": THREADS})
        self.facts = self._answer()
        self._signal(signal.SIGSTOP)

    def step(self) -> dict[str, Any]:
        """One turn: what it took, and how many processor seconds others had meanwhile."""
        self._signal(signal.SIGCONT)
        time.sleep(PAUSE_S)
        before = Busy.now(self._process.pid)
        self._send("step")
        answer = self._answer()
        others_s = Busy.now(self._process.pid).others_since(before)
        self._signal(signal.SIGSTOP)
        return {**answer, "others_s": others_s}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        if self._process.poll() is None:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """To all processes of the contestant. Between its turns it is stopped: some look for work without a rest.

        Should this process die, the kernel hangs up on a group that is stopped, and one that is not ends by itself.
        """
        os.killpg(self._process.pid, number)

    def _send(self, line: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], self._patience_s)[0]:
            self.end()
            self._give_up(f"gave no answer in {self._patience_s} s")
        line = self._process.stdout.readline()
        if not line:
            self._give_up(f"ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _give_up(self, why: str) -> NoReturn:
        tail = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:]
        sys.exit("\n".join([*tail, f"{self.contestant.name} {why}; see {self._log}"]))
