"""One cgroup of version 2 and its files."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import time
from pathlib import Path

_REMOVAL_TIMEOUT_S = 10.0
_POLL_S = 0.001


@dataclasses.dataclass(frozen=True)
class Cgroup:
    """A folder of a cgroup2 file system. Each `OSError` names the file."""

    path: Path

    def child(self, name: str) -> Cgroup:
        return Cgroup(self.path / name)

    def children(self) -> list[Cgroup]:
        with os.scandir(self.path) as entries:
            return [Cgroup(Path(entry.path)) for entry in entries if entry.is_dir(follow_symlinks=False)]

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def read(self, name: str) -> str:
        return (self.path / name).read_text(encoding="ascii")

    def write(self, name: str, text: str) -> None:
        """Write a file in one piece, which the kernel takes as one command."""
        fd = self.open_to_write(name)
        try:
            os.write(fd, text.encode("ascii"))
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}, for {text!r}", str(self.path / name)) from None
        finally:
            os.close(fd)

    def open_to_write(self, name: str) -> int:
        return os.open(self.path / name, os.O_WRONLY | os.O_CLOEXEC)

    def open_folder(self) -> int:
        return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def let(self, user: int, name: str) -> None:
        """Let a user write a file."""
        if user != os.stat(self.path / name).st_uid:
            os.chown(self.path / name, user, -1)

    def processes(self) -> list[int]:
        """The ids of the processes in it, without those of its children. 0 is one outside this PID namespace."""
        return [int(line) for line in self.read("cgroup.procs").split()]

    def events(self, name: str) -> dict[str, int]:
        """The counters of a file of events, such as memory.events."""
        return {key: int(count) for key, count in (line.split() for line in self.read(name).splitlines())}

    def make(self) -> None:
        self.path.mkdir(mode=0o755)

    def remove(self) -> None:
        """Kill all processes in it and in its children, and remove them.

        Raises:
            OSError: processes are left after ten seconds.
        """
        with contextlib.suppress(FileNotFoundError):  # it is gone, or the kernel is older than 5.14
            self.write("cgroup.kill", "1")
        self._remove_until(time.monotonic() + _REMOVAL_TIMEOUT_S)

    def _remove_until(self, deadline: float) -> None:
        try:
            for child in self.children():
                child._remove_until(deadline)
            while not self._is_removed():  # killed processes leave their cgroup a moment later
                if time.monotonic() > deadline:
                    raise OSError(errno.EBUSY, "processes in it do not end", str(self.path))
                time.sleep(_POLL_S)
        except FileNotFoundError:  # another thread has removed it
            return

    def _rmdir(self) -> None:
        os.rmdir(self.path)

    def _is_removed(self) -> bool:
        try:
            self._rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True
