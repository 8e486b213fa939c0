"""Runs untrusted Python programs. Stands alone: imports nothing from the rest of the package."""

from .arguments import Arguments, EncodedCalls
from .inside.limits import Limits
from .inside.plain import NotPlain
from .result import Calls, Outcome, Raised, Result, Returned, SandboxError, Status, TestsError, Verdict
from .sandbox import Isolation, Sandbox

__all__ = [
    "Arguments",
    "Calls",
    "EncodedCalls",
    "Isolation",
    "Limits",
    "NotPlain",
    "Outcome",
    "Raised",
    "Result",
    "Returned",
    "Sandbox",
    "SandboxError",
    "Status",
    "TestsError",
    "Verdict",
]
