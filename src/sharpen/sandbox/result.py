"""The results of jobs."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any


class SandboxError(RuntimeError):
    """The sandbox itself failed, or cannot work on this machine. Says nothing about the program."""


class TestsError(ValueError):
    """The tests are unusable with any candidate: they do not compile, or the first call has no plain arguments."""

    __test__ = False  # tells pytest that this is not a test case


class Status(enum.StrEnum):
    """How a program ended."""

    OK = "ok"
    """It exited with code 0."""
    ERROR = "error"
    """It exited with another code: 1 after an exception."""
    TIMEOUT = "timeout"
    """It exceeded its wall-clock or processor time."""
    MEMORY = "memory"
    """It ended with an uncaught MemoryError, or the kernel killed it because its cgroup was full."""
    OUTPUT = "output"
    """It wrote more than its limit."""
    KILLED = "killed"
    """A signal killed it, such as SIGSEGV after a stack overflow, or the system call filter did."""
    CANCELLED = "cancelled"
    """The caller cancelled it."""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a program ended and what it wrote. The program controls everything in it but the times."""

    status: Status
    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    """Peak resident set, including the interpreter's shared pages."""


@dataclasses.dataclass(frozen=True)
class Returned:
    """A call returned a value: plain data of builtin types."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Raised:
    """A call raised, or returned a value that is not plain data or too slow to decode (then `type` is NotPlain)."""

    type: str
    message: str


Outcome = Returned | Raised


@dataclasses.dataclass(frozen=True)
class Calls:
    """The outcomes of calling one function."""

    result: Result
    """Of the program as a whole."""
    outcomes: tuple[Outcome, ...]
    """One per completed call, in order: fewer than requested if the program ended early."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The tests' verdict on a candidate."""

    passed: bool
    """The tests ran to their last line."""
    reason: str
    """Why they did not; empty if they did."""
    tests: Result
    """Of the process of the tests."""
    candidate: Result
    """Of the process of the candidate."""
