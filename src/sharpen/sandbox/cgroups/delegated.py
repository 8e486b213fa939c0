"""Finds a cgroup that this process may divide, and readies it.

The kernel's rules, from its Documentation/admin-guide/cgroup-v2.rst: a cgroup can give controllers to its children only
while no process is in itself ("no internal processes"), and a process may be moved only by who may write
``cgroup.procs`` of the cgroup that encloses both places.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .files import Cgroup

VARIABLE = "SHARPEN_CGROUP"
"""The environment variable that names the folder of a delegated cgroup."""

_CONTROLLERS = ("memory", "pids")
_MAIN = "sharpen-main"
"""The child into which this process and its descendants move, so that no process is in the delegated cgroup itself."""
_ROUNDS = 20
_SYSTEMCTL_TIMEOUT_S = 10.0
_PROC = Path("/proc")
_SYSTEMD = Path("/run/systemd/system")
"""Exists where systemd manages the machine's cgroups: only those that it delegates are ours to divide."""


class NoCgroup(Exception):
    """Runs cannot get their limits from a cgroup. The message says why."""


def delegated_cgroup(named: str | None, *, proc: Path = _PROC, systemd: Path = _SYSTEMD) -> Cgroup:
    """A cgroup whose children have the controllers for memory and processes.

    Moves this process and its descendants into a child of it if they are in the cgroup itself, and never others.

    Args:
        named: the folder of a delegated cgroup. By default it is the cgroup of this process, if it is delegated.

    Raises:
        NoCgroup: there is none.
    """
    try:
        cgroup = _own(proc, systemd) if named is None else _named(named)
        _ready(cgroup, proc)
    except OSError as error:
        raise NoCgroup(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    return cgroup


def _named(folder: str) -> Cgroup:
    cgroup = Cgroup(Path(folder))
    if not cgroup.path.is_absolute() or not cgroup.has("cgroup.controllers"):
        raise NoCgroup(f"{folder} is not the folder of a cgroup of version 2, such as /sys/fs/cgroup/sharpen")
    return cgroup


def _own(proc: Path, systemd: Path) -> Cgroup:
    cgroup = _cgroup_of_process(proc)
    if cgroup.path.name == _MAIN:  # this process, or one that started it, has found it delegated and moved there
        return Cgroup(cgroup.path.parent)
    if not cgroup.has("cgroup.type"):
        raise NoCgroup("this process is in the root cgroup, which all others share")
    if systemd.exists() and not _systemd_delegates(cgroup):
        raise NoCgroup(f"systemd does not delegate {cgroup.path}")
    return cgroup


def _cgroup_of_process(proc: Path) -> Cgroup:
    lines = (proc / "self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    for root, mounted_at in _mounts(proc):
        inside = _below(root, path) if path is not None else None
        if inside is not None:
            return Cgroup(Path(mounted_at, inside))
    raise NoCgroup("no cgroup of version 2 is mounted that this process is in")


def _mounts(proc: Path) -> Iterator[tuple[str, str]]:
    """Of each cgroup2 file system: the cgroup that is mounted, and where."""
    for line in (proc / "self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        mount, _, file_system = line.partition(" - ")
        if file_system.split()[0] == "cgroup2":
            root, mounted_at = mount.split()[3:5]
            yield _unescaped(root), _unescaped(mounted_at)


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _below(root: str, path: str) -> str | None:
    """A cgroup's path relative to the mounted one; None if it is outside, as of a process of another namespace."""
    inside = os.path.relpath(path, root)
    return None if ".." in [*root.split("/"), *path.split("/"), *inside.split("/")] else inside


def _systemd_delegates(cgroup: Cgroup) -> bool:
    for name in ("user.delegate", "trusted.delegate"):  # any user may read the first; systemd before 251 has the second
        try:
            if os.getxattr(cgroup.path, name) == b"1":
                return True
        except OSError:  # not set, as by a user's own systemd, or not readable for this user
            continue
    whose = ["--user"] if re.search(r"/user@\d+\.service/", str(cgroup.path)) else []
    asked = ["systemctl", *whose, "show", "--property=Delegate", "--value", "--", cgroup.path.name]
    try:
        answer = subprocess.run(asked, capture_output=True, timeout=_SYSTEMCTL_TIMEOUT_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):  # there is none, or it does not answer
        return False
    return answer.stdout.strip() == b"yes"


def _ready(cgroup: Cgroup, proc: Path) -> None:
    absent = [name for name in _CONTROLLERS if name not in cgroup.read("cgroup.controllers").split()]
    if absent:
        raise NoCgroup(f"{cgroup.path} has no controller for {' and '.join(absent)}")
    for path in (cgroup.path, cgroup.path / "cgroup.procs", cgroup.path / "cgroup.subtree_control"):
        if not os.access(path, os.W_OK):
            raise NoCgroup(f"this process may not write {path}")
    if cgroup.has("cgroup.type"):  # the root cgroup has none, and may have processes
        kind = cgroup.read("cgroup.type").strip()
        if kind != "domain":
            raise NoCgroup(f"{cgroup.path} is of the type {kind!r}, not 'domain'")
        _vacate(cgroup, proc)
    if not set(_CONTROLLERS) <= set(cgroup.read("cgroup.subtree_control").split()):
        cgroup.write("cgroup.subtree_control", " ".join(f"+{name}" for name in _CONTROLLERS))


def _vacate(cgroup: Cgroup, proc: Path) -> None:
    """Move this process and its descendants out of the cgroup itself, into a child.

    Raises:
        NoCgroup: others are in it.
    """
    main = cgroup.child(_MAIN)
    for _ in range(_ROUNDS):  # a process may start another while it is being moved
        found = cgroup.processes()
        if not found:
            return
        ours = {pid: _descends(pid, os.getpid(), proc) for pid in found}
        others = [pid for pid, is_ours in ours.items() if is_ours is False]
        if others:
            shown = ", ".join(map(str, others[:5])) + (", …" if len(others) > 5 else "")
            raise NoCgroup(f"processes that this one did not start are in {cgroup.path}: {shown}")
        if None in ours.values():
            continue
        if not main.path.exists():
            main.make()
        for pid in sorted(found, key=lambda pid: pid != os.getpid()):  # what this one starts from now on follows it
            try:
                main.write("cgroup.procs", str(pid))
            except ProcessLookupError:  # it has ended
                continue
    raise NoCgroup(f"the processes in {cgroup.path} are hidden, or ever more of them start")


def _descends(pid: int, ancestor: int, proc: Path) -> bool | None:
    """Whether a process is the ancestor or descends from it. None if it has just ended, or is hidden."""
    while pid not in (ancestor, 0):
        try:
            stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        pid = int(stat.rpartition(")")[2].split()[1])
    return pid == ancestor
