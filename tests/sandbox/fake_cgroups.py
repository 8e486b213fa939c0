"""A folder that behaves as the kernel's cgroup2 file system does, for all that the sandbox asks of it."""

import errno
import shutil
from pathlib import Path

import pytest

from sharpen.sandbox.cgroups.files import Cgroup

CONTROLLERS = ("memory", "pids")
EVENTS = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"


class FakeCgroups:
    """Follows Documentation/admin-guide/cgroup-v2.rst. Keeps what was written, in order."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.written: list[tuple[str, str, str]] = []
        """Cgroup, file, text."""
        self.failing: dict[str, OSError] = {}
        """File → the error that writing it gives."""
        self.ended: set[int] = set()
        monkeypatch.setattr(Cgroup, "make", lambda cgroup: self.make(cgroup.path))
        monkeypatch.setattr(Cgroup, "write", lambda cgroup, name, text: self.write(cgroup.path, name, text))
        monkeypatch.setattr(Cgroup, "_rmdir", lambda cgroup: self.rmdir(cgroup.path))
        root.mkdir()
        self._fill(root, CONTROLLERS)
        (root / "cgroup.type").unlink()  # which the root cgroup does not have, nor this one
        (root / "cgroup.kill").unlink()

    def make(self, path: Path) -> Path:
        path.mkdir()
        self._fill(path, tuple((path.parent / "cgroup.subtree_control").read_text().split()))
        return path

    def delegate(self, name: str, *pids: int) -> Path:
        """A cgroup with both controllers and these processes."""
        (self.root / "cgroup.subtree_control").write_text("memory pids\n")
        path = self.make(self.root / name)
        self._put(path, list(pids))
        return path

    def write(self, path: Path, name: str, text: str) -> None:
        self.written.append((str(path.relative_to(self.root)), name, text))
        if name in self.failing:
            raise self.failing[name]
        if not (path / name).exists():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path / name))
        if name == "cgroup.subtree_control":
            self._enable(path, text)
        elif name == "cgroup.procs":
            self._move(path, int(text))
        elif name == "cgroup.kill":
            for procs in path.rglob("cgroup.procs"):
                procs.write_text("")
        else:
            (path / name).write_text(f"{text}\n")

    def rmdir(self, path: Path) -> None:
        if (path / "cgroup.procs").read_text().split() or any(child.is_dir() for child in path.iterdir()):
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        shutil.rmtree(path)

    def processes(self, path: Path) -> list[int]:
        return [int(pid) for pid in (path / "cgroup.procs").read_text().split()]

    def _enable(self, path: Path, text: str) -> None:
        if path != self.root and self.processes(path):  # no internal processes
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        wanted = [word.removeprefix("+") for word in text.split()]
        if not set(wanted) <= set((path / "cgroup.controllers").read_text().split()):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        (path / "cgroup.subtree_control").write_text(" ".join(wanted) + "\n")

    def _move(self, path: Path, pid: int) -> None:
        if pid in self.ended:
            for procs in self.root.rglob("cgroup.procs"):
                self._put(procs.parent, [other for other in self.processes(procs.parent) if other != pid])
            raise ProcessLookupError(errno.ESRCH, "No such process", str(path))
        if path != self.root and (path / "cgroup.subtree_control").read_text().split():
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        for procs in self.root.rglob("cgroup.procs"):
            self._put(procs.parent, [other for other in self.processes(procs.parent) if other != pid])
        self._put(path, [*self.processes(path), pid])

    def _put(self, path: Path, pids: list[int]) -> None:
        (path / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    def _fill(self, path: Path, controllers: tuple[str, ...]) -> None:
        content = {
            "cgroup.type": "domain\n",
            "cgroup.controllers": " ".join(controllers) + "\n",
            "cgroup.subtree_control": "\n",
            "cgroup.procs": "",
            "cgroup.kill": "",
        }
        if "memory" in controllers:
            content |= {"memory.max": "max\n", "memory.swap.max": "max\n", "memory.oom.group": "0\n"}
            content["memory.events"] = EVENTS
        if "pids" in controllers:
            content["pids.max"] = "max\n"
        for name, text in content.items():
            (path / name).write_text(text)


def fake_proc(folder: Path, cgroup: str, mountinfo: str, parents: dict[int, int] | None = None) -> Path:
    """A folder as /proc: this process's cgroup, what is mounted, and which process started which."""
    (folder / "self").mkdir(parents=True)
    (folder / "self" / "cgroup").write_text(cgroup)
    (folder / "self" / "mountinfo").write_text(mountinfo)
    for pid, parent in (parents or {}).items():
        (folder / str(pid)).mkdir()
        (folder / str(pid) / "stat").write_text(f"{pid} (a ) b) S {parent} 1 1 0 -1\n")
    return folder


def mounted(at: Path | str, root: str = "/") -> str:
    """A machine's mounts, with a cgroup2 file system among them."""
    return (
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "31 22 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        f"41 31 0:38 {root} {at} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    )
