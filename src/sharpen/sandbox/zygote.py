"""The trainer's handle on a zygote: starts it, submits jobs, notices its death."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from .cgroups.runs import RunCgroup, RunCgroups
from .inside import wire
from .inside.limits import Limits
from .result import Result, SandboxError, Status

_START = Path(__file__).parent / "inside" / "start.py"
_START_TIMEOUT_S = 60.0
_GRACE_S = 30.0
"""How long a supervisor may exceed its job's time limit before it counts as lost."""
_SIGKILL, _SIGXCPU = 9, 24


class Missing(SandboxError):
    """This machine does not support a level of isolation."""


class Job:
    """A running job."""

    def __init__(self, parent: socket.socket, limits: Limits, cgroup: RunCgroup | None) -> None:
        self._socket = parent
        self._limits = limits
        self._cgroup = cgroup

    def cancel(self) -> None:
        """End it. `wait` then returns what it wrote so far."""
        with contextlib.suppress(OSError):  # it has ended
            self._socket.shutdown(socket.SHUT_WR)

    def wait(self) -> tuple[Result, bytes]:
        """How it ended, and what it wrote to the results pipe.

        Raises:
            SandboxError: the machinery failed.
        """
        try:
            report, blobs = wire.unpack(self._socket.recv)
        except (wire.Cut, ConnectionError):
            raise SandboxError("the sandbox's process died before the job's end; the job's result is unknown") from None
        except TimeoutError:
            raise SandboxError("the sandbox's process does not answer; the job's result is unknown") from None
        finally:
            self._socket.close()
            oom_kills = self._cgroup.end() if self._cgroup is not None else 0
        if "machinery" in report:
            raise SandboxError(f"the sandbox could not set a job up: {report['machinery']}")
        stdout, stderr, results = blobs
        return _result(report, stdout, stderr, results, self._limits, oom_kills), results


class Zygote:
    """A process that forks jobs at one level of isolation."""

    def __init__(self, level: str, cgroups: RunCgroups | None = None) -> None:
        """Start it and wait until it is ready.

        Args:
            cgroups: where each job gets a cgroup with its limits; closed with the zygote. By default jobs have none.

        Raises:
            Missing: this machine does not support the level.
            SandboxError: it did not start.
        """
        if level != "none" and sys.platform != "linux":
            raise Missing(f"needs Linux, and this is {sys.platform}")
        self._cgroups = cgroups
        self._control, inner = socket.socketpair()
        self._lock = threading.Lock()
        self.pid_of_owner = os.getpid()
        with inner:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", str(_START), str(inner.fileno()), level],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[inner.fileno()],
                start_new_session=True,  # only the trainer handles Ctrl-C
            )
        self._control.settimeout(_START_TIMEOUT_S)
        try:
            if cgroups is not None:
                cgroups.take_in(self._process.pid)
            answer, _ = wire.unpack(self._control.recv)
        except TimeoutError:
            self.close()
            raise SandboxError(f"the sandbox did not start within {_START_TIMEOUT_S:.0f} s") from None
        except wire.Cut:
            answer = {}
        except SandboxError:
            self.close()
            raise
        if "ready" not in answer:
            said = answer.get("missing") or self._last_words()
            self.close()
            raise Missing(said) if "missing" in answer else SandboxError(f"the sandbox did not start: {said}")
        self._control.settimeout(None)
        if cgroups is not None:
            try:
                cgroups.let(answer["user"])
            except SandboxError:
                self.close()
                raise

    @property
    def is_alive(self) -> bool:
        """Whether it can take jobs. Valid only in the process that started it."""
        return self._process.poll() is None

    def submit(self, kind: str, payload: bytes, stdin: bytes, limits: Limits, fds: tuple[int, ...] = ()) -> Job:
        """Start a job.

        Raises:
            SandboxError: the zygote is dead, or the job's cgroup could not be made.
        """
        cgroup = self._cgroups.new(limits) if self._cgroups is not None else None
        way, cgroup_fds = (None, ()) if cgroup is None else (cgroup.way, (cgroup.fd,))
        parent, inner = socket.socketpair()
        parent.settimeout(limits.wall_s + _GRACE_S)
        request = {"kind": kind, "limits": dataclasses.asdict(limits), "cgroup": way}
        try:
            with inner, self._lock:
                socket.send_fds(self._control, [b"j"], [inner.fileno(), *cgroup_fds, *fds])
            parent.sendall(wire.pack(request, stdin, payload))
        except (ConnectionError, TimeoutError):
            parent.close()
            if cgroup is not None:
                cgroup.end()
            raise SandboxError("the sandbox's process is dead or does not answer; the job did not begin") from None
        finally:
            for fd in cgroup_fds:
                os.close(fd)
        return Job(parent, limits, cgroup)

    def close(self) -> None:
        """End it and every running job."""
        self._control.close()
        if self._process.stderr is not None:
            self._process.stderr.close()
        if os.getpid() == self.pid_of_owner:
            self._process.kill()
            self._process.wait()
            if self._cgroups is not None:
                self._cgroups.close()

    def _last_words(self) -> str:
        self._process.kill()
        _, said = self._process.communicate()
        return (said or b"").decode(errors="replace")[-2000:] or "it ended without any output"


def _result(
    report: dict[str, Any], stdout: bytes, stderr: bytes, results: bytes, limits: Limits, oom_kills: int
) -> Result:
    cause, code, signal = report["cause"], report["exit_code"], report["signal"]
    # The kernel enforces RLIMIT_CPU on another clock than the one it reports in rusage.
    is_out_of_cpu = signal in (_SIGKILL, _SIGXCPU) and report["cpu_s"] > 0.5 * math.ceil(limits.cpu_s)
    if signal is not None and oom_kills:
        status = Status.MEMORY
    elif cause == "wall" or (cause is None and is_out_of_cpu):
        status = Status.TIMEOUT
    elif cause is not None:
        status = Status(cause)
    elif signal is not None:
        status = Status.KILLED
    elif code == 0:
        status = Status.OK
    else:
        status = Status.MEMORY if results.endswith(wire.frame(b"memory")) else Status.ERROR
    return Result(
        status=status,
        exit_code=code,
        signal=signal,
        stdout=stdout,
        stderr=stderr,
        wall_s=report["wall_s"],
        cpu_s=report["cpu_s"],
        peak_memory_bytes=report["peak_memory_bytes"],
    )
