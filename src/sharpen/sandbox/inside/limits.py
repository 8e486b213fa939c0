"""The resource limits of a job."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Limits:
    """Resource limits of one job. Exceeding one ends the job, or fails the call that asked for more."""

    wall_s: float = 10.0
    """Wall-clock seconds from the start of the program to its end."""
    cpu_s: float = 10.0
    """Processor seconds of all threads together, rounded up to whole seconds."""
    memory_bytes: int = 1 << 30
    """Address space, including the interpreter's own (about 40 MB). In a cgroup, also memory of the kernel."""
    output_bytes: int = 4 << 20
    """Limit for each of standard output, standard error and the results."""
    files_bytes: int = 16 << 20
    """Total size of all files in the working folder, each rounded up to 4096 bytes."""
    files: int = 256
    """Files and folders in the working folder."""
    threads: int = 16
    """Threads besides the first."""
    call_s: float | None = None
    """Longest wait for the result of one call in `Sandbox.call`, in seconds. By default only `wall_s` applies."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "call_s" and value is None:
                continue
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole or (isinstance(value, float) and field.type != "int")) or not math.isfinite(value):
                raise ValueError(f"{field.name}={value!r} is not a number of the kind {field.type}")
            if value < 0 or (value == 0 and field.name != "threads"):
                raise ValueError(f"{field.name}={value!r} must be above 0")


DEFAULT_LIMITS = Limits()
