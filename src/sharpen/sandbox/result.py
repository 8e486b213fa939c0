"""What came of a job."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any


class SandboxError(RuntimeError):
    """The sandbox itself failed, or cannot work here. It says nothing about the program."""


class TestsError(ValueError):
    """The tests themselves cannot be used, whatever the candidate: they do not compile, or pass no plain data."""

    __test__ = False  # no test case, whatever the name says to pytest


class Status(enum.StrEnum):
    """How a program ended."""

    OK = "ok"
    """By itself, with exit code 0."""
    ERROR = "error"
    """By itself, with another exit code: 1 after an exception."""
    TIMEOUT = "timeout"
    """Out of time, on the wall clock or on the processor."""
    MEMORY = "memory"
    """By a MemoryError that it did not catch."""
    OUTPUT = "output"
    """It wrote more than it may."""
    KILLED = "killed"
    """By a signal, such as SIGSEGV after a stack overflow, or by the kernel's filter."""
    CANCELLED = "cancelled"
    """By whoever waited for it."""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a program ended and what it wrote. All of it but the times is the program's own word."""

    status: Status
    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    """Of its resident set, the interpreter's shared pages included."""


@dataclasses.dataclass(frozen=True)
class Returned:
    """A call gave back a value: plain data of builtin types."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Raised:
    """A call raised, or gave back what is no plain data or would take long to decode (then `type` is NotPlain)."""

    type: str
    message: str


Outcome = Returned | Raised


@dataclasses.dataclass(frozen=True)
class Calls:
    """What came of the calls of one function."""

    result: Result
    """Of the program as a whole."""
    outcomes: tuple[Outcome, ...]
    """One for each call that was made, in order: fewer than were asked for if the program ended before its last."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the tests say of a candidate."""

    passed: bool
    """The tests ran to their last line."""
    reason: str
    """Why they did not; empty if they passed."""
    tests: Result
    """Of the process of the tests."""
    candidate: Result
    """Of the process of the candidate."""
