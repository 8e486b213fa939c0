"""The job's own process, up to the point where the untrusted program takes over."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import select
import signal
import traceback
from collections.abc import Callable
from typing import NoReturn

from . import assertions, linux, programs
from .confinement import FIRST_LEVEL_FD, LAST_LEVEL_FD, Unconfined, set_limits
from .limits import Limits

PROGRAMS: dict[str, Callable[[bytes, Limits], NoReturn]] = {
    "run": programs.run_program,
    "call": programs.call_function,
    "candidate": programs.serve_candidate,
    "tests": assertions.run_tests,
}


@dataclasses.dataclass(frozen=True)
class Pipes:
    """The five pipes between a supervisor and its job."""

    stdin_read: int
    stdin_write: int
    stdout_read: int
    stdout_write: int
    stderr_read: int
    stderr_write: int
    results_read: int
    results_write: int
    setup_read: int
    setup_write: int

    @classmethod
    def create(cls) -> Pipes:
        return cls(*(end for _ in range(5) for end in os.pipe()))

    @property
    def inner(self) -> tuple[int, ...]:
        """The job's ends."""
        return (self.stdin_read, self.stdout_write, self.stderr_write, self.results_write, self.setup_write)


def run_job(
    level: Unconfined, job: int, limits: Limits, pipes: Pipes, kind: str, payload: bytes, extra_fds: list[int]
) -> NoReturn:
    """Drop all privileges, then run the program. Does not return."""
    setup_fd = pipes.setup_write
    try:
        setup_fd = _arrange_descriptors(pipes, extra_fds)
        os.setsid()
        confine = level.close_job(job)
        if linux.IS_LINUX:
            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            linux.prctl(linux.PR_SET_DUMPABLE, 0)
            linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        set_limits(limits, level.threads_limit(limits))
        confine()
        gone = select.poll()
        gone.register(setup_fd, 0)
        if gone.poll(0):  # the supervisor died before its death could be noticed
            os._exit(1)
    except Exception:  # noqa: BLE001 - report any error: the parent must learn that the program never ran
        os.write(setup_fd, traceback.format_exc().encode()[-4000:])
        os._exit(1)
    os.close(setup_fd)
    PROGRAMS[kind](payload, limits)


def _arrange_descriptors(pipes: Pipes, extra_fds: list[int]) -> int:
    """Keep 0, 1, 2, the results, the extra ones, the setup pipe (returned), and the level's own; close all others."""
    inner = (*pipes.inner[:4], *extra_fds, pipes.setup_write)
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LAST_LEVEL_FD + 1) for fd in inner]
    for number, fd in enumerate(moved):
        os.dup2(fd, number)
        os.close(fd)
    os.closerange(len(moved), FIRST_LEVEL_FD)
    return len(moved) - 1
