"""One process per job, outside of it: sets the job up, feeds it, collects its output, and ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import select
import signal
import socket
import time
from typing import Any

from . import linux, wire
from .confinement import Unconfined
from .forking import fork
from .job import Pipes, run_job
from .limits import Limits

_CHUNK_BYTES = 1 << 16
_LAST_MOMENT_S = 0.1


def supervise(level: Unconfined, job: int, zygote: int, parent: socket.socket, extra_fds: list[int]) -> None:
    """Run the job that the parent describes, and reply with its result."""
    if linux.IS_LINUX:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != zygote:
            return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        request, (stdin, payload) = wire.unpack(parent.recv)
    except wire.Cut:  # the parent abandoned the job
        return
    limits = Limits(**request["limits"])
    cgroup_fds = [extra_fds.pop(0)] if request["cgroup"] else []
    try:
        level.open_job(limits)
    except OSError as error:
        parent.sendall(wire.pack({"machinery": str(error)}))
        return
    pipes = Pipes.create()
    pid = fork(request["cgroup"], cgroup_fds[0] if cgroup_fds else -1, pipes.setup_write)
    if pid == 0:
        try:
            parent.close()
            run_job(level, job, limits, pipes, request["kind"], payload, extra_fds)
        finally:
            os._exit(1)
    for fd in (*pipes.inner, *cgroup_fds, *extra_fds):
        os.close(fd)
    _answer(parent, pid, pipes, stdin, limits)


def _answer(parent: socket.socket, pid: int, pipes: Pipes, stdin: bytes, limits: Limits) -> None:
    setup_error = _read_all(pipes.setup_read)
    if setup_error:
        os.waitpid(pid, 0)
        parent.sendall(wire.pack({"machinery": setup_error.decode(errors="replace")}))
        return
    watch = _Watch(parent, pid, pipes, stdin, limits)
    watch.until_the_end()
    parent.sendall(wire.pack(watch.report, *watch.written))


@dataclasses.dataclass
class _Output:
    data: bytearray
    limit_bytes: int

    @property
    def is_over(self) -> bool:
        return len(self.data) > self.limit_bytes


class _Watch:
    """Watches the program from its start to its end."""

    def __init__(self, parent: socket.socket, pid: int, pipes: Pipes, stdin: bytes, limits: Limits) -> None:
        self._parent, self._pid, self._limits = parent, pid, limits
        self._stdin, self._stdin_fd = memoryview(stdin), pipes.stdin_write
        self._outputs = {
            fd: _Output(bytearray(), limits.output_bytes)
            for fd in (pipes.stdout_read, pipes.stderr_read, pipes.results_read)
        }
        self._results_fd = pipes.results_read
        self._poll = select.poll()
        self._started = self._heard = time.monotonic()
        self._deadline, self._out_of_time = self._started + limits.wall_s, "wall"
        self._patience_ms = math.inf if hasattr(os, "pidfd_open") else 1.0
        self._cause: str | None = None
        self.report: dict[str, Any] = {}

    @property
    def written(self) -> list[bytes]:
        """Standard output, standard error and results, each cut at its limit."""
        return [bytes(output.data[: output.limit_bytes]) for output in self._outputs.values()]

    def until_the_end(self) -> None:
        """Return once the job and all its threads are gone."""
        for fd in self._outputs:
            os.set_blocking(fd, False)
            self._poll.register(fd, select.POLLIN)
        self._poll.register(self._parent, select.POLLIN)
        os.set_blocking(self._stdin_fd, False)
        self._feed()
        reading = set(self._outputs)
        while reading and self._cause is None:
            for fd, _ in self._poll.poll(max(0.0, self._left_s()) * 1000):
                if fd in reading and not self._read(fd):
                    self._poll.unregister(fd)
                    reading.discard(fd)
                self._attend(fd)
            if self._left_s() <= 0:
                self._cause = self._cause or self._out_of_time
        self._end(reading)

    def _left_s(self) -> float:
        now = time.monotonic()
        left_s = self._deadline - now
        if self._limits.call_s is not None:
            left_s = min(left_s, self._heard + self._limits.call_s - now)
        return left_s

    def _end(self, reading: set[int]) -> None:
        # A program that closed all its outputs may still be running.
        if hasattr(os, "pidfd_open"):
            self._poll.register(os.pidfd_open(self._pid), select.POLLIN)
        while self._cause is None:
            if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            if self._left_s() <= 0:
                self._cause = self._out_of_time
            for fd, _ in self._poll.poll(min(self._patience_ms, max(0.0, self._left_s()) * 1000)):
                self._attend(fd)
        # Kills the whole PID namespace with its first process; without a namespace, the program's process group.
        os.killpg(self._pid, signal.SIGKILL)
        wall_s = time.monotonic() - self._started
        _, status, usage = os.wait4(self._pid, 0)
        for fd in reading:
            self._read(fd)
        code = os.waitstatus_to_exitcode(status)
        self.report = {
            "cause": self._cause,
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "wall_s": wall_s,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_memory_bytes": usage.ru_maxrss * 1024,
        }

    def _attend(self, fd: int) -> None:
        if fd == self._stdin_fd:
            self._feed()
        elif fd == self._parent.fileno():
            # The caller cancelled. A program that ends by itself within this last moment still counts as such.
            self._poll.unregister(self._parent)
            self._deadline, self._out_of_time = min(self._deadline, time.monotonic() + _LAST_MOMENT_S), "cancelled"

    def _feed(self) -> None:
        """Write as much of standard input as the pipe takes."""
        try:
            while self._stdin:
                self._stdin = self._stdin[os.write(self._stdin_fd, self._stdin[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            self._poll.register(self._stdin_fd, select.POLLOUT)
            return
        except BrokenPipeError:  # the program does not read it
            pass
        with contextlib.suppress(KeyError):
            self._poll.unregister(self._stdin_fd)
        os.close(self._stdin_fd)
        self._stdin_fd = -1

    def _read(self, fd: int) -> bool:
        """Read what is available. False at the end of the stream."""
        output = self._outputs[fd]
        try:
            while not output.is_over:
                chunk = os.read(fd, _CHUNK_BYTES)
                if not chunk:
                    return False
                output.data += chunk
                if fd == self._results_fd:
                    self._heard = time.monotonic()
        except BlockingIOError:
            return True
        self._cause = self._cause or "output"
        return True


def _read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, _CHUNK_BYTES):
        parts.append(part)
    os.close(fd)
    return b"".join(parts)
