"""One cgroup for each run, in a cgroup that belongs to one zygote."""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets

from sharpen.sandbox.inside.forking import CLONE
from sharpen.sandbox.inside.limits import Limits
from sharpen.sandbox.result import SandboxError

from .files import Cgroup

_PREFIX = "sharpen-runs-"
_ZYGOTE = "zygote"


class RunCgroup:
    """The cgroup of one run: made before its process, which joins it; ended and removed after it."""

    def __init__(self, cgroup: Cgroup, limits: Limits, way: str, user: int) -> None:
        """
        Args:
            way: how its process gets there: `CLONE` or `MOVE`.
            user: the id of the user whose process starts the run.

        Raises:
            SandboxError: it could not be made.
        """
        self._cgroup = cgroup
        self.way = way
        try:
            cgroup.make()
            try:
                for name, value in wanted_limits(limits).items():
                    if name != "memory.swap.max" or cgroup.has(name):  # a kernel without swap has no such file
                        cgroup.write(name, value)
                cgroup.let(user, "cgroup.procs")
                # What may be moved is decided by the rights of who opens the file, not of who writes into it.
                self.fd = cgroup.open_folder() if way == CLONE else cgroup.open_to_write("cgroup.procs")
            except BaseException:
                cgroup.remove()
                raise
        except OSError as error:
            raise SandboxError(f"a run's cgroup could not be made: {error}") from error

    def end(self) -> int:
        """Kill what is left in it, remove it, and return how many processes the kernel has killed for its memory.

        Raises:
            SandboxError: it could not be read or removed.
        """
        try:
            oom_kills = self._cgroup.events("memory.events")["oom_kill"]
            self._cgroup.remove()
        except OSError as error:
            raise SandboxError(f"a run's cgroup could not be ended: {error}") from error
        return oom_kills


class RunCgroups:
    """The cgroup in which a zygote's runs have theirs.

    The kernel lock on its folder is released when this process ends in whatever way, so that the next one in the same
    delegated cgroup can tell that it is left over, and removes it.
    """

    def __init__(self, delegated: Cgroup, way: str) -> None:
        """
        Args:
            way: how processes get into the runs' cgroups: `CLONE` or `MOVE`.

        Raises:
            SandboxError: it could not be made.
        """
        self._way = way
        self._numbers = itertools.count()
        self._user = os.geteuid()
        try:
            _remove_leftovers(delegated)
            self._cgroup, self._lock = _made(delegated)
            try:
                if not self._cgroup.has("cgroup.kill"):
                    raise SandboxError("the kernel is older than Linux 5.14 and cannot end a cgroup as a whole")
                self._cgroup.write("cgroup.subtree_control", "+memory +pids")
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise SandboxError(f"a cgroup for runs could not be made in {delegated.path}: {error}") from error

    def take_in(self, zygote: int) -> None:
        """Move the zygote into a cgroup of its own beside the runs.

        A process may start another in a run's cgroup if it may also write ``cgroup.procs`` of the one around both.

        Raises:
            SandboxError: it could not be moved.
        """
        place = self._cgroup.child(_ZYGOTE)
        try:
            place.make()
            place.write("cgroup.procs", str(zygote))
        except OSError as error:
            raise SandboxError(f"the process that starts programs could not be moved to a cgroup: {error}") from error

    def let(self, user: int) -> None:
        """Let the zygote, which may have become another user, start processes in the runs' cgroups.

        Raises:
            SandboxError: it could not be allowed.
        """
        self._user = user
        try:
            self._cgroup.let(user, "cgroup.procs")
        except OSError as error:
            raise SandboxError(f"a cgroup of runs could not be given to user {user}: {error}") from error

    def new(self, limits: Limits) -> RunCgroup:
        """A cgroup for one more run.

        Raises:
            SandboxError: it could not be made.
        """
        return RunCgroup(self._cgroup.child(str(next(self._numbers))), limits, self._way, self._user)

    def close(self) -> None:
        """Kill all that is left of all runs, and remove everything.

        Raises:
            SandboxError: it could not be removed.
        """
        try:
            self._cgroup.remove()
        except OSError as error:
            raise SandboxError(f"a cgroup of runs could not be removed: {error}") from error
        finally:
            os.close(self._lock)


def wanted_limits(limits: Limits) -> dict[str, str]:
    """The files of a run's cgroup and what they must say.

    Of `memory_bytes`, the part that is the interpreter's own is counted where the zygote is, not here: it leaves room
    for what the kernel needs for an ordinary program. Files of the working folder are in memory.
    """
    return {
        "memory.max": str(limits.memory_bytes + limits.files_bytes),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": str(limits.threads + 1),
    }


def _made(delegated: Cgroup) -> tuple[Cgroup, int]:
    while True:
        cgroup = delegated.child(f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}")
        cgroup.make()
        lock = _locked(cgroup)
        if lock is not None:
            return cgroup, lock


def _locked(cgroup: Cgroup) -> int | None:
    """A descriptor that holds the lock on a cgroup's folder; None if another process has it, or has removed it."""
    try:
        fd = cgroup.open_folder()
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(cgroup.path), os.fstat(fd)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _remove_leftovers(delegated: Cgroup) -> None:
    """Remove the cgroups of processes that were killed."""
    for cgroup in delegated.children():
        if not cgroup.path.name.startswith(_PREFIX) or (lock := _locked(cgroup)) is None:
            continue
        try:
            cgroup.remove()
        except PermissionError:  # another user's, in a folder that several share: left to its owner
            continue
        finally:
            os.close(lock)
