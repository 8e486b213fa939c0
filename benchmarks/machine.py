"""What the machine is, and who else used its processors meanwhile. Linux only."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Busy:
    """Processor seconds so far: of everybody, of the living processes of one group, and stolen by the host."""

    all_s: float
    group_s: float
    stolen_s: float

    @classmethod
    def now(cls, group: int) -> Busy:
        user, nice, system, _, _, irq, soft_irq, steal = (int(x) for x in _read("/proc/stat").split()[1:9])
        own = 0
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):
                # What follows the name: state, parent, group, session, and further on utime and stime.
                fields = _read(folder / "stat").rpartition(")")[2].split()
                own += int(fields[11]) + int(fields[12]) if int(fields[2]) == group else 0
        return cls((user + nice + system + irq + soft_irq) / TICKS_PER_S, own / TICKS_PER_S, steal / TICKS_PER_S)

    def others_since(self, before: Busy) -> float:
        """Processor seconds that others than the group had, stolen ones included."""
        own = self.group_s - before.group_s
        return max(0.0, self.all_s - before.all_s - own) + self.stolen_s - before.stolen_s


def description() -> dict[str, str | int]:
    """The processor, how many of them, the memory, and the kernel."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    memory_kib = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_GiB": round(memory_kib / 2**20),
        "kernel": platform.release(),
    }


def _read(path: str | Path) -> str:
    return Path(path).read_text(encoding="utf-8")


def _lines(path: str) -> list[str]:
    return _read(path).splitlines()
