"""What a process outside the sandbox feels while a program runs, and what the kernel keeps after the program."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

_Made = TypeVar("_Made")

MOST_SLOWDOWN = 5.0
"""Opening a file or starting a process may take this many times as long as on the quiet machine (medians)."""
MOST_LEFT_BYTES = 64 << 20
"""Kernel memory that is neither reclaimable nor free again some seconds after a program."""
MOST_LEFT_FILES = 4096
"""Open files that are left some seconds after a program."""

_QUIET_ROUNDS = 20
_STARTING_S = 30.0
_SETTLING_S = 3.0
_FEWEST_ROUNDS = 8
"""A median of fewer rounds says nothing: the program was too short."""
_STANDSTILL_S = 1.0
"""So long, fewer rounds do say something."""

# Times 20 opens of a file and the start of a process. Waiting for a processor does not count: that programs use all
# processors is no breach, and other work on the machine would be felt as theirs.
_SCRIPT = """
import os, time
schedule = os.open("/proc/self/schedstat", os.O_RDONLY)
def now_ns():
    return time.monotonic_ns() - int(os.pread(schedule, 100, 0).split()[1])
while True:
    started = now_ns()
    for _ in range(20):
        os.close(os.open(os.__file__, os.O_RDONLY))
    opened = now_ns()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    forked = now_ns()
    os.waitpid(pid, 0)
    with open("/proc/meminfo") as lines:
        available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    os.write(1, b"%d %d %d\\n" % ((opened - started) // 20, forked - opened, available))
    time.sleep(0.02)
"""


class _Round(NamedTuple):
    opening_ns: int
    starting_ns: int
    available_bytes: int


@dataclasses.dataclass(frozen=True)
class Felt:
    """What others felt of one program."""

    opening: float | None
    """Time to open a file, as a multiple of the quiet machine's; None: the program was too short to tell."""
    starting: float | None
    """The same for the start of a process."""
    taken_bytes: int
    """How much less memory was available while it ran, at the worst."""
    left_bytes: int
    """Kernel memory that it left and that cannot be reclaimed."""
    cached_bytes: int
    """Kernel memory that it left and that the kernel reclaims when it is needed."""
    left_files: int
    """Open files that it left."""

    @property
    def breaches(self) -> tuple[str, ...]:
        """What exceeds a threshold, in words."""
        found = [
            f"others needed {times:.0f} times as long to {what}"
            for what, times in (("open a file", self.opening), ("start a process", self.starting))
            if times is not None and times > MOST_SLOWDOWN
        ]
        if self.left_bytes > MOST_LEFT_BYTES:
            found.append(f"it left {self.left_bytes >> 20} MiB of kernel memory")
        if self.left_files > MOST_LEFT_FILES:
            found.append(f"it left {self.left_files} open files")
        return tuple(found)

    def milder(self, other: Felt) -> Felt:
        """The lower of each number: what two trials agree on is not the noise of a busy machine."""
        return Felt(
            opening=_lower(self.opening, other.opening),
            starting=_lower(self.starting, other.starting),
            taken_bytes=min(self.taken_bytes, other.taken_bytes),
            left_bytes=min(self.left_bytes, other.left_bytes),
            cached_bytes=min(self.cached_bytes, other.cached_bytes),
            left_files=min(self.left_files, other.left_files),
        )


class Bystander:
    """A process that opens files and starts processes all the time, and times them. A context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SCRIPT], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._cut = b""
        self.rest()

    def __enter__(self) -> Bystander:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def rest(self) -> None:
        """Measure the quiet machine again."""
        self._rounds()
        began_s, until = self._awake_s(), time.monotonic() + _STARTING_S
        self._quiet: list[_Round] = []
        while len(self._quiet) < _QUIET_ROUNDS:
            if time.monotonic() > until:
                raise RuntimeError(f"the process that feels what programs do to others said nothing in {_STARTING_S} s")
            time.sleep(0.05)
            self._quiet += self._rounds()
        self._quiet_round_s = (self._awake_s() - began_s) / len(self._quiet)

    def during(self, run: Callable[[], _Made]) -> tuple[_Made, Felt]:
        """What the function returns, and what is felt of it compared with the quiet machine."""
        self._rounds()
        before, began_s = _memory(), self._awake_s()
        made = run()
        rounds, awake_s = self._rounds(), self._awake_s() - began_s
        until = time.monotonic() + _SETTLING_S
        while True:
            after = _memory()
            left_bytes, left_files = after.kept_bytes - before.kept_bytes, after.files - before.files
            if (left_bytes < MOST_LEFT_BYTES and left_files < MOST_LEFT_FILES) or time.monotonic() > until:
                break
            time.sleep(0.1)
        available_bytes = min((r.available_bytes for r in rounds), default=before.available_bytes)
        opening = _slowdown([r.opening_ns for r in self._quiet], [r.opening_ns for r in rounds])
        starting = _slowdown([r.starting_ns for r in self._quiet], [r.starting_ns for r in rounds])
        if opening is None and awake_s > _STANDSTILL_S:  # it was held up within a round, in one of the two
            opening = starting = awake_s / max(1, len(rounds)) / self._quiet_round_s
        return made, Felt(
            opening=opening,
            starting=starting,
            taken_bytes=max(0, before.available_bytes - available_bytes),
            left_bytes=max(0, left_bytes),
            cached_bytes=max(0, after.cached_bytes - before.cached_bytes),
            left_files=max(0, left_files),
        )

    def _awake_s(self) -> float:
        """The time, without that in which the process waited for a processor."""
        waited_ns = int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1])
        return time.monotonic() - waited_ns / 1e9

    def _rounds(self) -> list[_Round]:
        """The rounds since the last call."""
        data = self._cut
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._output, 1 << 16):
                data += part
        if self._process.poll() is not None:
            raise RuntimeError("the process that feels what programs do to others has ended")
        *lines, self._cut = data.split(b"\n")
        return [_Round(*map(int, line.split())) for line in lines]


def _lower(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else min(one, other)


def _slowdown(quiet: list[int], rounds: list[int]) -> float | None:
    if len(rounds) < _FEWEST_ROUNDS:
        return None
    return statistics.median(rounds) / statistics.median(quiet)


class _Memory(NamedTuple):
    kept_bytes: int
    """Of the kernel, not reclaimable."""
    cached_bytes: int
    """Of the kernel, reclaimable."""
    available_bytes: int
    files: int
    """Open ones."""


def _memory() -> _Memory:
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {name: int(size.split()[0]) << 10 for name, size in (line.split(":") for line in lines)}
    files = int(Path("/proc/sys/fs/file-nr").read_text().split()[0])
    kept = sum(sizes[name] for name in ("SUnreclaim", "PageTables", "KernelStack"))
    return _Memory(kept, sizes["SReclaimable"], sizes["MemAvailable"], files)
