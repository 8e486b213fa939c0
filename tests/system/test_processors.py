"""The processors that a process may use, from faked affinities and cgroups."""

import os
from pathlib import Path

import pytest

from sharpen.system import processors
from sharpen.system.processors import available_processors, cgroup_quota


def cgroups(folder: Path, of_process: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A ``/proc/self/cgroup`` and a ``/sys/fs/cgroup``."""
    (folder / "cgroup").write_text(of_process)
    for name, text in files.items():
        (folder / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "sys" / name).write_text(text)
    return folder / "cgroup", folder / "sys"


V1 = "7:cpu,cpuacct:/docker/ab\n3:cpuset:/docker/ab\n0::/\n"


@pytest.mark.parametrize(
    ("of_process", "files", "quota"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        # The smallest on the way up counts; a job's own cgroup may have none.
        ("0::/slurm/job\n", {"slurm/job/cpu.max": "max 100000\n", "slurm/cpu.max": "400000 100000\n"}, 4.0),
        ("0::/slurm/job\n", {"slurm/job/cpu.max": "20000 10000\n", "slurm/cpu.max": "400000 100000\n"}, 2.0),
        # In a container the path is the host's, and only its own cgroup is mounted.
        ("0::/docker/ab\n", {"cpu.max": "300000 100000\n"}, 3.0),
        (
            V1,
            {"cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "-1", "cpu,cpuacct/docker/ab/cpu.cfs_period_us": "100000"},
            None,
        ),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2.5),
        (V1, {"cpu/docker/ab/cpu.cfs_quota_us": "50000", "cpu/docker/ab/cpu.cfs_period_us": "100000"}, 0.5),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
    ],
)
def test_the_quota_of_a_cgroup(of_process: str, files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    assert cgroup_quota(*cgroups(tmp_path, of_process, files)) == quota


def test_there_is_no_quota_where_there_are_no_cgroups(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(
    ("bound", "cpu_max", "available"),
    [(3, "max 100000", 3), (3, "200000 100000", 2), (3, "150000 100000", 2), (3, "10000 100000", 1), (1, "8 1", 1)],
)
def test_what_is_available_is_the_smaller_of_both(
    bound: int, cpu_max: str, available: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_process, mounted = cgroups(tmp_path, "0::/\n", {"cpu.max": cpu_max})
    monkeypatch.setattr(processors, "CGROUPS_OF_PROCESS", of_process)
    monkeypatch.setattr(processors, "CGROUPS", mounted)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(bound)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert available_processors() == available
