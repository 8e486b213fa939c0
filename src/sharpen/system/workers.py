"""Worker processes that answer JSON requests, and are killed when an answer takes too long."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Condition, Lock
from typing import IO, Any

from sharpen.system.processors import available_processors
from sharpen.system.worker_program import MEMORY_STATUS

START_TIMEOUT_S = 60.0
MOST_WORKERS = 8
LEAST_SHARE = 0.1
"""A worker that gets less of a processor than this says nothing about the text that it judges."""

# The worker imports sharpen from where this process does, but after the standard library on sys.path.
_START = "import runpy, sys; sys.path.append(sys.argv[2]); runpy.run_path(sys.argv[1], run_name='__main__')"
_HOME = str(Path(__file__).parents[2])

# What a program needs to start, and no secrets that users keep in the environment.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


class Exhausted(Exception):
    """Judging a text took all the processor time or memory that it may take, or crashed the judge: the text's doing."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class WorkerEnded(RuntimeError):
    """A worker ended without an answer. ``status`` is its exit status, or minus the signal that ended it."""

    def __init__(self, script: Path, status: int) -> None:
        super().__init__(f"{script.name} ended with status {status}")
        self.status = status


_OUT_OF_TIME = -signal.SIGPROF
_CRASHES = {
    MEMORY_STATUS: "more memory than the check may take",
    **{-number: f"a crash of the check ({number.name})" for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)},
}


class WorkerPool:
    """A pool of `Worker`s for one script: requests run in parallel, and one that hangs does not block the others.

    A request goes to an idle worker; if there is none, a new one is started, up to ``size``: by default one per
    processor available to this process, at least 2 and at most `MOST_WORKERS`. If all are busy it waits; the wait does
    not count towards its time-out. Safe to use from any thread, and after a fork. The processes are killed at
    interpreter exit at the latest.
    """

    def __init__(self, script: Path, size: int | None = None) -> None:
        self.script = script
        self.size = size or min(max(available_processors(), 2), MOST_WORKERS)
        self._begin()
        atexit.register(self.close)

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._free_or_closed = Condition()
        self._free: list[Worker] = []
        self._all: list[Worker] = []

    def ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Return the script's answer. Raises as `Worker.ask` does."""
        if self._owner != os.getpid():
            # After a fork: the lock may have been copied while held, and the workers belong to the parent.
            self._begin()
        worker = self._take()
        try:
            return worker.ask(question, timeout_s)
        finally:
            with self._free_or_closed:
                self._free.append(worker)
                self._free_or_closed.notify()

    def judge(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Ask a script that `serve`s about a text that may be hostile; ``timeout_s`` is processor time.

        A worker that fails after others' texts may fail because of them: only a fresh one that fails alike convicts the
        text. Since a worker is ready only once it has answered a question of its own, what then fails is the text.

        Raises:
            Exhausted: the text took all the time or memory, or crashed the worker.
            TimeoutError: the worker did not get `LEAST_SHARE` of a processor, or did not start.
            WorkerEnded: it did not start, failed, or was ended from outside.
        """
        asked = {**question, "timeout_s": timeout_s, "wall_s": timeout_s / LEAST_SHARE}
        for fresh in (False, True):
            try:
                return self.ask(asked, timeout_s / LEAST_SHARE)
            except WorkerEnded as ended:
                if ended.status == _OUT_OF_TIME:
                    raise Exhausted(f"no answer within {timeout_s:g} s", timed_out=True) from None
                if ended.status not in _CRASHES:
                    raise
                if fresh:
                    raise Exhausted(_CRASHES[ended.status]) from None
        raise AssertionError("the second attempt returns or raises")

    def close(self) -> None:
        """Kill the processes. A request in progress raises; a later one starts new processes."""
        if self._owner != os.getpid():
            return
        for worker in self._all:
            worker.end()

    def pids(self) -> list[int]:
        """The pids of the running processes."""
        return [pid for worker in self._all if (pid := worker.pid) is not None]

    def _take(self) -> Worker:
        with self._free_or_closed:
            while not self._free:
                if len(self._all) < self.size:
                    self._all.append(Worker(self.script))
                    return self._all[-1]
                self._free_or_closed.wait()
            # Most recently used first, so that no more workers than needed are started.
            return self._free.pop()


class Worker:
    """Runs ``script`` and exchanges JSON lines with it; safe to use from any thread.

    The script writes one line when it is ready, then one line for each line it reads, and exits at the end of its
    input. It is started at the first request, and restarted after it was killed or died.
    """

    def __init__(self, script: Path, *, whole_environment: bool = False) -> None:
        """``whole_environment`` passes every variable, for user code that may need keys; else `_ENVIRONMENT` only."""
        self.script = script
        self._whole_environment = whole_environment
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Return the script's answer.

        Raises TimeoutError without an answer within ``timeout_s``, `WorkerEnded` if the script exits without one.
        """
        with self._lock:
            try:
                process = self._running()
                return self._exchange(process, json.dumps(question), timeout_s)
            except BaseException:
                # A late answer would be read as the answer to the next request.
                self._stop()
                raise

    @property
    def pid(self) -> int | None:
        """The pid of the running process, or None."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def close(self) -> None:
        """Kill the process, if any, after the request in progress."""
        with self._lock:
            self._stop()

    def end(self) -> None:
        """Kill the process, if any, at once: a request in progress raises."""
        process = self._process
        if process is not None and self._owner == os.getpid():
            process.kill()
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        # After a fork the pipes are shared with the parent, so the child needs its own process.
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self._stop()
        self._process = subprocess.Popen(
            # -P: a file beside the script, such as a math.py, must not shadow the standard library.
            [sys.executable, "-P", "-c", _START, str(self.script), _HOME],
            env={name: text for name, text in os.environ.items() if self._whole_environment or name in _ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C goes to the trainer only
        )
        assert self._process.stdin is not None
        # A worker that does not read its input must not block the writer.
        os.set_blocking(self._process.stdin.fileno(), False)
        self._owner = os.getpid()
        self._exchange(self._process, None, START_TIMEOUT_S)
        return self._process

    def _exchange(self, process: subprocess.Popen[bytes], line: str | None, timeout_s: float) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        ends_s = time.monotonic() + timeout_s
        answer = b""
        try:
            # The worker has exited; the missing answer below shows it.
            with contextlib.suppress(BrokenPipeError):
                if line is not None:
                    _write(process.stdin, line.encode() + b"\n", ends_s)
                answer = _read_line(process.stdout, ends_s)
            if answer.endswith(b"\n"):
                return dict(json.loads(answer))
            status = process.wait(max(0.0, ends_s - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise TimeoutError(f"no answer within {timeout_s:g} s") from None
        raise WorkerEnded(self.script, status)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _write(pipe: IO[bytes], data: bytes, ends_s: float) -> None:
    left = memoryview(data)
    while left:
        _wait(pipe, select.POLLOUT, ends_s)
        left = left[os.write(pipe.fileno(), left) :]


def _read_line(pipe: IO[bytes], ends_s: float) -> bytes:
    """Read up to the end of the line or of the pipe."""
    parts: list[bytes] = []
    while not parts or not parts[-1].endswith(b"\n"):
        _wait(pipe, select.POLLIN, ends_s)
        parts.append(os.read(pipe.fileno(), 1 << 16))
        if not parts[-1]:
            break
    return b"".join(parts)


def _wait(pipe: IO[bytes], event: int, ends_s: float) -> None:
    """Wait for ``event``; raises TimeoutError if it has not come by ``ends_s`` (monotonic clock)."""
    waiting = select.poll()
    waiting.register(pipe, event)
    if not waiting.poll(max(0.0, ends_s - time.monotonic()) * 1000):
        raise TimeoutError
