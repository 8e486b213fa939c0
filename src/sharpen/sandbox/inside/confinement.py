"""The three levels of isolation: what the zygote drops once, and what each job drops before its program runs."""

from __future__ import annotations

import fcntl
import os
import resource
import time
from collections.abc import Callable

from . import landlock, linux, root, seccomp, visible
from .limits import Limits

FIRST_LEVEL_FD, LAST_LEVEL_FD = 40, 44
"""A level's descriptors are kept here, above those of a job."""

_USERS = range(1_879_048_192, 1_879_048_192 + (1 << 16))
"""User ids: at the level landlock, root runs every job as a different user."""
_STACK_BYTES = 64 << 20  # of the main thread; deep recursion needs more than the usual 8 MiB
_FIRST_TO_GO = "1000"
"""oom_score_adj: when the machine runs out of memory, the kernel kills a job, not its supervisor or the trainer."""

_HEADROOM = 64  # threads that an ordinary user's other processes may start while a job is counted as one of them


class Unconfined:
    """No isolation, only resource limits. For programs that you would run anyway."""

    def enter(self) -> None:
        """Called once, in the zygote."""
        os.chdir("/tmp")

    def before_job(self) -> None:
        """Called in the zygote before each job."""

    def open_job(self, limits: Limits) -> None:
        """Called in a job's supervisor, before it forks the job."""

    def threads_limit(self, limits: Limits) -> int | None:
        """RLIMIT_NPROC of the job, or None if the kernel would count other processes too."""
        return None

    def close_job(self, job: int) -> Callable[[], None]:
        """Called in the job itself, last but one before the program. The returned function is called last."""
        return lambda: None


class Namespaces(Unconfined):
    """Full isolation: namespaces, a private root, Landlock, the filter."""

    def __init__(self) -> None:
        self._proc_fd = -1
        self._filter = b""
        self._has_landlock = landlock.is_there()

    def enter(self) -> None:
        self._proc_fd = _lift(os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        root.enter(self._proc_fd)
        self._filter = seccomp.program(1, own_files=True)  # a job has PID 1 in its own namespace

    def open_job(self, limits: Limits) -> None:
        uid, gid = os.getuid(), os.getgid()
        linux.syscall("unshare", linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC)
        root.map_one_id(self._proc_fd, uid, gid)
        options = f"mode=0700,size={limits.files_bytes},nr_inodes={limits.files + 1}"
        linux.mount("work", root.WORK, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC, options)

    def threads_limit(self, limits: Limits) -> int | None:
        return limits.threads + 2  # in the job's user namespace, plus the supervisor and the main thread

    def close_job(self, job: int) -> Callable[[], None]:
        root.write(self._proc_fd, "self/oom_score_adj", _FIRST_TO_GO)
        os.close(self._proc_fd)
        os.chdir(root.WORK)
        linux.set_capabilities()
        _forbid_huge_pages()

        def confine() -> None:
            if self._has_landlock:  # a second barrier: the root contains nothing else
                landlock.restrict_to([("/", landlock.READ), (root.WORK, landlock.WORK), ("/dev", landlock.DEVICE)])
            seccomp.install(self._filter)

        return confine


class Landlock(Unconfined):
    """For machines without user namespaces: Landlock and the filter. Nothing is writable, not even /tmp."""

    def __init__(self) -> None:
        self._rules_fd = -1
        self._users = _users_to_become()
        self._kept: tuple[int, ...] = ()
        self._counted_at = -1.0
        self._others = 0

    def enter(self) -> None:
        parts = [part for folder in visible.folders() for part in visible.readable_parts(folder)]
        devices = [(path, landlock.DEVICE) for path in visible.DEVICES]
        self._rules_fd = _lift(landlock.ruleset([*((part, landlock.READ) for part in parts), *devices]))
        os.chdir("/")
        if self._users and not _readable_by_others(os.__file__):
            self._kept = (linux.CAP_DAC_READ_SEARCH,)

    def before_job(self) -> None:
        if not self._users and time.monotonic() > self._counted_at + 1:
            self._others, self._counted_at = _threads_of(os.getuid()), time.monotonic()

    def threads_limit(self, limits: Limits) -> int | None:
        if self._users:
            return limits.threads + 1
        return self._others + limits.threads + _HEADROOM

    def close_job(self, job: int) -> Callable[[], None]:
        proc_fd = os.open("/proc", os.O_PATH)
        root.write(proc_fd, "self/oom_score_adj", _FIRST_TO_GO)
        os.close(proc_fd)
        if self._users:
            if self._kept:
                linux.prctl(linux.PR_SET_KEEPCAPS, 1)
            uid = self._users[job % len(self._users)]
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        linux.set_capabilities(*self._kept)
        _forbid_huge_pages()
        instructions = seccomp.program(os.getpid(), own_files=False)

        def confine() -> None:
            landlock.restrict(self._rules_fd)
            os.close(self._rules_fd)
            seccomp.install(instructions)

        return confine


LEVELS: dict[str, type[Unconfined]] = {"namespaces": Namespaces, "landlock": Landlock, "none": Unconfined}


def set_limits(limits: Limits, threads: int | None) -> None:
    """Set the kernel's resource limits, which cannot be raised again."""
    cpu_s = -int(-limits.cpu_s // 1)
    wanted = {
        "RLIMIT_CPU": cpu_s,
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_FSIZE": limits.files_bytes,
        "RLIMIT_STACK": _STACK_BYTES,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_SIGPENDING": 64,
        "RLIMIT_NPROC": threads,
    }
    for name, value in wanted.items():
        if value is not None and hasattr(resource, name):
            kind = getattr(resource, name)
            _, hard = resource.getrlimit(kind)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))


def _forbid_huge_pages() -> None:
    """A huge page stays in memory as a whole while any part is mapped, but the limit counts only that part."""
    linux.prctl(linux.PR_SET_THP_DISABLE, 1)


def _users_to_become() -> range:
    """The user ids for jobs. Empty for an ordinary user, and for container root that is an ordinary user outside.

    Raises:
        OSError: real root, but without the right to become another user.
    """
    if os.getuid() != 0:
        return range(0)
    with open("/proc/self/uid_map") as lines:
        extents = [(int(inside), int(outside), int(count)) for inside, outside, count in map(str.split, lines)]
    first, outside, count = max(extents, key=lambda extent: extent[2])
    if first <= _USERS.start and first + count >= _USERS.stop:
        users = _USERS
    else:
        users = range(max(first, 1), first + count)[-(1 << 14) :]
    if users and _may_become(users[0]):
        return users
    if (first, outside) == (0, 0):
        raise PermissionError(1, "root may not become another user (CAP_SETUID and CAP_SETGID are missing)")
    return range(0)


def _may_become(uid: int) -> bool:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _lift(fd: int) -> int:
    lifted = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_LEVEL_FD)
    os.close(fd)
    return lifted


def _readable_by_others(path: str) -> bool:
    folder = os.path.dirname(os.path.realpath(path))
    while folder != "/":
        if not os.stat(folder).st_mode & 0o001:
            return False
        folder = os.path.dirname(folder)
    return bool(os.stat(path).st_mode & 0o004)


def _threads_of(uid: int) -> int:
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
    return count
