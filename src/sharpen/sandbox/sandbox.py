"""Running untrusted programs."""

from __future__ import annotations

import enum
import functools
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .arguments import Arguments, EncodedCalls
from .cgroups.delegated import VARIABLE, NoCgroup, delegated_cgroup
from .cgroups.files import Cgroup
from .cgroups.runs import RunCgroups
from .inside import plain, wire
from .inside.assertions import PASSED, UNUSABLE
from .inside.forking import CLONE, MOVE
from .inside.limits import DEFAULT_LIMITS, Limits
from .result import Calls, Outcome, Raised, Result, Returned, SandboxError, Status, TestsError, Verdict
from .zygote import Job, Missing, Zygote

_log = logging.getLogger("sharpen.sandbox")


class Isolation(enum.StrEnum):
    """How a program is isolated from the machine."""

    AUTO = "auto"
    """The first of the next two that this machine supports."""
    NAMESPACES = "namespaces"
    """Namespaces, a private root folder, Landlock, a system call filter, resource limits."""
    LANDLOCK = "landlock"
    """Landlock, the filter and the limits, for machines that forbid user namespaces. Programs cannot write files."""
    NONE = "none"
    """Resource limits only. Requires `unsafe=True`."""


class Sandbox:
    """Runs untrusted Python, several programs at once, from any thread. Starts with the first program.

    Use it as a context manager, or call `close`.
    """

    def __init__(self, isolation: Isolation | str = Isolation.AUTO, *, unsafe: bool = False) -> None:
        """
        Args:
            isolation: the level.
            unsafe: run programs without isolation if the machine does not support the level.

        Raises:
            ValueError: the level is unknown, or is "none" without `unsafe`.
        """
        self._asked = Isolation(isolation)
        self._unsafe = unsafe
        if self._asked is Isolation.NONE and not unsafe:
            raise ValueError(
                "isolation='none' runs programs with all your rights: add unsafe=True (--unsafe) if you want that"
            )
        self._lock = threading.Lock()
        self._zygote: Zygote | None = None
        self._level: Isolation | None = None
        self._cgroup: Cgroup | None = None
        self._no_cgroup = ""
        self._way: str | None = None
        self._is_closed = False

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all programs and the process that starts them."""
        with self._lock:
            self._is_closed = True
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None

    @property
    def isolation(self) -> Isolation:
        """The level that programs run at. Starts the sandbox.

        Raises:
            SandboxError: this machine does not support the requested level.
        """
        self._alive()
        assert self._level is not None
        return self._level

    @property
    def cgroup(self) -> Path | None:
        """The delegated cgroup in which each run gets one with its limits. Starts the sandbox.

        None: the limits are those of each process alone (rlimits), and `why_no_cgroup` says why.

        Raises:
            SandboxError: this machine does not support the requested level, or the cgroup named by ``SHARPEN_CGROUP``
                cannot be used.
        """
        self._alive()
        return self._cgroup.path if self._cgroup is not None else None

    @property
    def why_no_cgroup(self) -> str:
        """What is missing for limits from cgroups; empty if nothing is."""
        self._alive()
        return self._no_cgroup

    def run(self, source: str, *, stdin: str | bytes = b"", limits: Limits = DEFAULT_LIMITS) -> Result:
        """Run a program as `__main__`.

        Raises:
            SandboxError: the sandbox failed, not the program.
        """
        given = stdin.encode("utf-8", "surrogatepass") if isinstance(stdin, str) else stdin
        result, _ = self._submit("run", source.encode("utf-8", "surrogatepass"), limits, stdin=given).wait()
        return result

    def call(self, source: str, function: str, calls: Sequence[Arguments], *, limits: Limits = DEFAULT_LIMITS) -> Calls:
        """Run a program once, then call its function (or ``Class.method``) with each of the given arguments.

        Its module is named ``solution``, so code under ``if __name__ == "__main__"`` does not run.

        Raises:
            NotPlain: the arguments are not plain data.
            SandboxError: the sandbox failed, not the program.
        """
        with EncodedCalls(calls) as encoded:
            return self.call_from(source, function, encoded, 0, limits=limits)

    def call_from(
        self, source: str, function: str, calls: EncodedCalls, first: int, *, limits: Limits = DEFAULT_LIMITS
    ) -> Calls:
        """As `call`, beginning with the call number `first`: for the rest, after the program ended during a call.

        Takes no time for the calls before it, and does not encode any arguments again.

        Raises:
            SandboxError: the sandbox failed, not the program.
        """
        payload = plain.encode({"source": source, "function": function, "start": calls.start_of(first)})
        result, results = self._submit("call", payload, limits, fds=(calls.fileno(),)).wait()
        return Calls(result, tuple(_outcomes(results, len(calls) - first)))

    def check(
        self,
        tests: str,
        candidate: str,
        *,
        entry_point: str | Sequence[str],
        preamble: str = "",
        limits: Limits = DEFAULT_LIMITS,
    ) -> Verdict:
        """Run tests written as code, such as asserts, on a candidate in a separate process.

        When the tests call a function of the candidate, they send its process a message of plain data. The candidate
        has no other access to the tests: it cannot see, change or end them. They pass if they run to their last line.

        Args:
            tests: trusted code. Any exception fails the candidate, and so does an exit, even with code 0.
            candidate: the untrusted program.
            entry_point: the function or functions that the tests may call by name. For ``Class.method`` the tests get
                the class, and every call runs on a new instance.
            preamble: trusted code that both processes run first, such as helpers that the tests also call.
            limits: of each of the two processes.

        Raises:
            TestsError: the preamble raises, the tests do not compile, or they pass arguments that are not plain data.
            SandboxError: the sandbox failed, not the program.
        """
        functions = [entry_point] if isinstance(entry_point, str) else list(entry_point)
        asked = plain.encode({"source": candidate, "preamble": preamble})
        asking = plain.encode({"tests": tests, "preamble": preamble, "functions": functions})
        requests_read, requests_write = os.pipe()
        replies_read, replies_write = os.pipe()
        try:
            candidate_job = self._submit("candidate", asked, limits, fds=(requests_read, replies_write))
            tests_job = self._submit("tests", asking, limits, fds=(requests_write, replies_read))
        finally:
            for fd in (requests_read, requests_write, replies_read, replies_write):
                os.close(fd)
        try:
            result, results = tests_job.wait()
        finally:
            candidate_job.cancel()
            candidate_result, _ = candidate_job.wait()
        return _verdict(result, results, candidate_result)

    def _submit(
        self, kind: str, payload: bytes, limits: Limits, *, stdin: bytes = b"", fds: tuple[int, ...] = ()
    ) -> Job:
        return self._alive().submit(kind, payload, stdin, limits, fds)

    def _alive(self) -> Zygote:
        """The zygote. Starts a new one if there is none, it died, or it belongs to the parent of a fork."""
        with self._lock:
            if self._is_closed:
                raise SandboxError("the sandbox is closed")
            zygote = self._zygote
            if zygote is not None and zygote.pid_of_owner == os.getpid() and zygote.is_alive:
                return zygote
            if zygote is not None:
                zygote.close()
            self._zygote = self._start()
            return self._zygote

    def _start(self) -> Zygote:
        levels = [Isolation.NAMESPACES, Isolation.LANDLOCK] if self._asked is Isolation.AUTO else [self._asked]
        if self._unsafe and Isolation.NONE not in levels:
            levels.append(Isolation.NONE)
        is_first = self._level is None
        if is_first:
            self._find_cgroup()
        missing: list[str] = []
        for level in levels:
            try:
                zygote = self._proven(level)
            except Missing as error:
                missing.append(f"{level}: {error}")
                continue
            if is_first and missing:
                _log.warning("isolation level is %s; not available: %s", level, "; ".join(missing))
            if is_first:
                _say_limits(self._cgroup, self._no_cgroup)
            self._level = level
            return zygote
        raise SandboxError(
            "this machine cannot isolate programs: "
            + "; ".join(missing)
            + ". Sandbox(unsafe=True) runs them without isolation, with all the rights of this process."
        )

    def _find_cgroup(self) -> None:
        named = os.environ.get(VARIABLE)
        try:
            self._cgroup = delegated_cgroup(named)
        except NoCgroup as error:
            if named is not None:
                raise SandboxError(f"{VARIABLE}={named}: {error}") from error
            self._no_cgroup = str(error)

    def _proven(self, level: Isolation) -> Zygote:
        if self._cgroup is None or self._way is not None:
            return _proven(level, self._cgroup, self._way)
        errors = []
        for way in (CLONE, MOVE):
            try:
                zygote = _proven(level, self._cgroup, way)
            except SandboxError as error:
                errors.append(str(error))
                continue
            self._way = way
            return zygote
        zygote = _proven(level, None, None)  # if this works, the cgroup is what does not
        if os.environ.get(VARIABLE) is not None:
            zygote.close()
            raise SandboxError(f"{VARIABLE}={self._cgroup.path}: {errors[-1]}")
        self._cgroup, self._no_cgroup = None, errors[-1]
        return zygote


def _proven(level: Isolation, cgroup: Cgroup | None, way: str | None) -> Zygote:
    """A zygote that has successfully run an empty program.

    Raises:
        Missing: it failed to.
    """
    zygote = Zygote(level.value, RunCgroups(cgroup, way) if cgroup is not None and way is not None else None)
    try:
        zygote.submit("run", b"", b"", DEFAULT_LIMITS).wait()
    except SandboxError as error:
        zygote.close()
        raise Missing(str(error)) from None
    return zygote


@functools.cache
def _say_limits(cgroup: Cgroup | None, why_none: str) -> None:
    """Log where limits come from: once in a process, however many sandboxes it has."""
    if cgroup is not None:
        _log.info("each program gets its limits from a cgroup in %s", cgroup.path)
    else:
        _log.info("programs' limits are rlimits, which do not count the kernel's memory: %s", why_none)


def _outcomes(results: bytes, count: int) -> list[Outcome]:
    """The outcomes that the program reports. The first invalid one ends the list: the program wrote it itself."""
    outcomes: list[Outcome] = []
    for frame in wire.frames(results):
        if len(outcomes) == count:
            break
        try:
            is_value, what = plain.decode(frame)
            outcomes.append(Returned(what) if is_value is True else _raised(what))
        except plain.TooCostly as error:
            outcomes.append(Raised("NotPlain", str(error)))
        except (TypeError, ValueError, LookupError):  # NotPlain is a ValueError
            break
    return outcomes


def _raised(said: Any) -> Raised:
    kind, message = said["classes"][0], said["message"]
    if type(kind) is not str or type(message) is not str:
        raise TypeError("an exception without a name or a message")
    return Raised(kind, message)


def _verdict(tests: Result, results: bytes, candidate: Result) -> Verdict:
    said = [plain.decode(frame) for frame in wire.frames(results)]
    if not said:
        reason = "the candidate" if candidate.status in (Status.TIMEOUT, Status.OUTPUT) else "the tests"
        return Verdict(False, f"{reason} did not finish: {tests.status}", tests, candidate)
    word, reason = said[-1]
    if word == UNUSABLE:
        raise TestsError(f"the tests cannot be used: {reason}")
    passed = word == PASSED and tests.status is Status.OK
    if candidate.status not in (Status.OK, Status.CANCELLED) and not passed:
        reason = f"{reason}; the candidate's process: {candidate.status}"
    return Verdict(passed, reason, tests, candidate)
