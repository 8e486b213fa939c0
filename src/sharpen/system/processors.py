"""How many processors this process may use, which in a container or a cluster's job is fewer than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

CGROUPS_OF_PROCESS = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


def available_processors() -> int:
    """At least 1: the processors that this process is bound to, or fewer if its cgroup's quota of time is smaller.

    A quota of one and a half processors counts as 2.
    """
    quota = cgroup_quota()
    bound = _bound_to()
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def cgroup_quota(of_process: Path | None = None, mounted: Path | None = None) -> float | None:
    """The quota of processor time in processors, the smallest of this process's cgroup and those around it.

    None if there is none. Reads ``cpu.max`` of cgroups v2, and ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` of v1.
    """
    mounted = mounted or CGROUPS
    try:
        lines = (of_process or CGROUPS_OF_PROCESS).read_text(encoding="utf-8").splitlines()
    except OSError:  # another system than Linux
        return None
    quotas: list[float] = []
    for line in lines:
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            quotas += _along(mounted, path, _quota_v2)
        elif "cpu" in controllers.split(","):
            quotas += _along(mounted / controllers, path, _quota_v1) or _along(mounted / "cpu", path, _quota_v1)
    return min(quotas, default=None)


def _bound_to() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13, which also follows PYTHON_CPU_COUNT
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _along(mounted: Path, path: str, quota: Callable[[Path], float | None]) -> list[float]:
    """The quotas from a cgroup up to the one that is mounted; in a container, its own cgroup may be that one."""
    inner = mounted / path.lstrip("/")
    folders = [inner, *inner.parents]
    found = (quota(folder) for folder in folders[: folders.index(mounted) + 1])
    return [value for value in found if value is not None]


def _quota_v2(folder: Path) -> float | None:
    return _quota(_words(folder / "cpu.max"))


def _quota_v1(folder: Path) -> float | None:
    return _quota(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _quota(words: list[str]) -> float | None:
    """Of a quota and its period in microseconds; the quota is ``max`` (v2) or -1 (v1) where there is none."""
    if len(words) != 2 or not words[0].isdigit() or not words[1].isdigit() or words[1] == "0":
        return None
    return int(words[0]) / int(words[1])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:  # the root cgroup has no such file, and another process's may be hidden
        return []
