"""Keeps freed CPU memory between steps instead of returning it to the kernel, and says how much there is."""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass
from pathlib import Path

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_MiB = 2**20
GIB = 2**30


@functools.cache
def keep_freed_memory() -> bool:
    """Make glibc's allocator serve all allocations from a single heap that never shrinks; False without glibc.

    By default glibc maps and unmaps blocks of more than 32 MiB (at first also smaller ones) at every use, so every step
    page-faults on freshly zeroed memory. Call this before starting threads: existing threads keep their heaps.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 * _MiB))
    return all(mallopt(name, value) == 1 for name, value in settings)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of memory: all, and those that are free or can be freed."""

    total: int
    available: int


def cpu_memory() -> Memory | None:
    """The memory of this machine, or less where a control group limits this process; None outside Linux."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    kib = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in meminfo.read_text().splitlines())}
    total, available = 1024 * kib["MemTotal"], 1024 * kib["MemAvailable"]
    limit = _limit()
    return Memory(total, available) if limit is None else Memory(min(total, limit), min(available, limit))


def _limit() -> int | None:
    """The limit of the control group, of version 2 or 1, if there is one."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        file = Path("/sys/fs/cgroup") / name
        if file.is_file() and (limit := file.read_text().strip()).isdigit():
            return int(limit)
    return None
