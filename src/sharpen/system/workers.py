"""Worker processes that serve requests and are killed when a reply takes too long."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from threading import Condition, Lock
from typing import IO, Any

START_TIMEOUT_S = 60.0
MOST_WORKERS = 8

# The program imports the same sharpen as this process, searched after Python's own modules.
_START = "import runpy, sys; sys.path.append(sys.argv[2]); runpy.run_path(sys.argv[1], run_name='__main__')"
_HOME = str(Path(__file__).parents[2])

# What a program needs to start, without the secrets that users keep in the environment.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


class WorkerPool:
    """A pool of `Worker`s for one script: requests run in parallel, and one that hangs does not block the others.

    A request goes to an idle worker, or starts a new one, up to ``size``: by default one per processor that this
    process may use, at least 2 and at most `MOST_WORKERS`. If all are busy it waits for one; the wait does not count
    towards its time-out. Thread-safe and fork-safe. The processes end with the interpreter at the latest.
    """

    def __init__(self, script: Path, size: int | None = None) -> None:
        self.script = script
        self.size = size or min(max(_processors(), 2), MOST_WORKERS)
        self._begin()
        atexit.register(self.close)

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._free_or_closed = Condition()
        self._free: list[Worker] = []
        self._all: list[Worker] = []

    def ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """The script's reply. Raises as `Worker.ask` does."""
        if self._owner != os.getpid():
            # Forked: the lock may have been held, and the workers belong to the parent.
            self._begin()
        worker = self._take()
        try:
            return worker.ask(question, timeout_s)
        finally:
            with self._free_or_closed:
                self._free.append(worker)
                self._free_or_closed.notify()

    def close(self) -> None:
        """Kill the processes. Pending requests fail; later requests start new processes."""
        if self._owner != os.getpid():
            return
        for worker in self._all:
            worker.end()

    def pids(self) -> list[int]:
        """Ids of the running processes."""
        return [pid for worker in self._all if (pid := worker.pid) is not None]

    def _take(self) -> Worker:
        with self._free_or_closed:
            while not self._free:
                if len(self._all) < self.size:
                    self._all.append(Worker(self.script))
                    return self._all[-1]
                self._free_or_closed.wait()
            # The most recently used worker: the others may not have to be started.
            return self._free.pop()


class Worker:
    """Runs ``script`` in a process and exchanges JSON lines with it. Thread-safe.

    The script first writes a line when it is ready, then one line per line that it reads, and exits at the end of its
    input. It starts at the first request, and restarts after it was ended or died.
    """

    def __init__(self, script: Path, *, whole_environment: bool = False) -> None:
        """``whole_environment``: pass every variable, for user code that may need its keys; else no keys are passed."""
        self.script = script
        self._whole_environment = whole_environment
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """The script's reply.

        Raises TimeoutError if there is none within ``timeout_s``, RuntimeError if the script ended without one.
        """
        with self._lock:
            try:
                process = self._running()
                return self._exchange(process, json.dumps(question), timeout_s)
            except BaseException:
                # A reply still in flight would be taken for the reply to the next request.
                self._stop()
                raise

    @property
    def pid(self) -> int | None:
        """Id of the running process, or None."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def close(self) -> None:
        """End the process, if there is one, after it has replied to the pending request."""
        with self._lock:
            self._stop()

    def end(self) -> None:
        """Kill the process, if there is one, at once: a pending request fails."""
        process = self._process
        if process is not None and self._owner == os.getpid():
            process.kill()
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        # After a fork the pipes are shared with the parent process: the child needs its own.
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self._stop()
        self._process = subprocess.Popen(
            # -P: a file beside the script, such as a math.py, must not hide Python's own.
            [sys.executable, "-P", "-c", _START, str(self.script), _HOME],
            env={name: text for name, text in os.environ.items() if self._whole_environment or name in _ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the trainer
        )
        assert self._process.stdin is not None
        # A program that does not read must not block the writer.
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
            # If the program has exited, the missing reply reports it.
            with contextlib.suppress(BrokenPipeError):
                if line is not None:
                    _write(process.stdin, line.encode() + b"\n", ends_s)
                answer = _read_line(process.stdout, ends_s)
            if answer.endswith(b"\n"):
                return dict(json.loads(answer))
            status = process.wait(max(0.0, ends_s - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise TimeoutError(f"no answer within {timeout_s:g} s") from None
        raise RuntimeError(f"{self.script.name} ended with status {status}")

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
    """Read up to the end of a line or of the pipe."""
    parts: list[bytes] = []
    while not parts or not parts[-1].endswith(b"\n"):
        _wait(pipe, select.POLLIN, ends_s)
        parts.append(os.read(pipe.fileno(), 1 << 16))
        if not parts[-1]:
            break
    return b"".join(parts)


def _wait(pipe: IO[bytes], event: int, ends_s: float) -> None:
    """Wait for ``event``. Raises TimeoutError if it does not occur by ``ends_s``."""
    waiting = select.poll()
    waiting.register(pipe, event)
    if not waiting.poll(max(0.0, ends_s - time.monotonic()) * 1000):
        raise TimeoutError


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
