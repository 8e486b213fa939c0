"""A contestant's side of the conversation with the process that measures. Standard library only.

One line of JSON on the standard input asks for a step, one on the standard output answers. What libraries print goes to
the standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

MIB = 2**20


class Place(Protocol):
    """Where a contestant computes, and how much of its memory it uses."""

    def finish(self) -> None:
        """Wait for what has been asked for."""
        ...

    def now(self) -> int:
        """Bytes in use."""
        ...

    def peak(self) -> int:
        """The most bytes in use since ``restart``."""
        ...

    def rest(self) -> None:
        """A step has been measured."""
        ...

    def restart(self) -> None:
        """The next step begins."""
        ...


class Host:
    """The process itself: its resident memory, as the kernel counts it."""

    def finish(self) -> None:
        return

    def now(self) -> int:
        return _status("VmRSS")

    def peak(self) -> int:
        return _status("VmHWM")

    def rest(self) -> None:
        return

    def restart(self) -> None:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


class Gate:
    """Holds a contestant until it is told to take a step, and answers with what the step took."""

    place: Place = Host()

    def __init__(self) -> None:
        # What a library writes on its own, it writes to file descriptor 1.
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._started = 0.0
        self._loaded = 0

    def settings(self) -> dict[str, Any]:
        """The first line: what to do."""
        line: dict[str, Any] = json.loads(sys.stdin.readline())
        return line

    def loaded(self) -> None:
        """The model is in memory, and nothing else yet."""
        self._loaded = self.place.now()

    def ready(self, *packages: str) -> None:
        """Everything is in place, made with these packages; waits for the first step."""
        self._say({"loaded_bytes": self._loaded, "versions": {name: _version(name) for name in packages}})
        self._wait()

    def done(self, **figures: float) -> None:
        """A step has ended; waits for the next."""
        self.place.finish()
        seconds = time.perf_counter() - self._started
        peak = self.place.peak()
        self.place.rest()
        self._say({"seconds": seconds, "peak_bytes": peak, "above_bytes": peak - self._loaded, **figures})
        self._wait()

    def _wait(self) -> None:
        if json.loads(sys.stdin.readline() or '"end"') != "step":
            # With all that it has started; nobody is to spend time on ending well.
            os.kill(0 if os.getpgrp() == os.getpid() else os.getpid(), signal.SIGKILL)
        self.place.restart()
        self._started = time.perf_counter()

    def _say(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _status(field: str) -> int:
    """A line of the kernel's account of this process, in bytes: VmRSS is its memory now, VmHWM the most it had."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
