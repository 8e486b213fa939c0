"""What one job may use."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one job may use; going beyond a limit ends the job, or fails the call that asked for more."""

    wall_s: float = 10.0
    """Seconds from the start of the program to its end."""
    cpu_s: float = 10.0
    """Seconds of processor time of all its threads together, counted in whole seconds, rounded up."""
    memory_bytes: int = 1 << 30
    """Address space, the interpreter's own (about 40 MB) included."""
    output_bytes: int = 4 << 20
    """The most that each of standard output, standard error and the results may hold."""
    files_bytes: int = 16 << 20
    """What all files of the working folder may hold; each 4096 bytes begun count whole."""
    files: int = 256
    """Files and folders in the working folder."""
    threads: int = 16
    """Threads besides the first."""
    call_s: float | None = None
    """The longest wait for the result of one call of `Sandbox.call`; none but `wall_s` by default."""

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
