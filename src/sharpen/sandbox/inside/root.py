"""The zygote's environment: private namespaces, and a root folder with only what Python needs."""

from __future__ import annotations

import os
import socket

from . import linux, visible

WORK = "/tmp"
"""The working folder of every job, the only place where it can write."""

_BASE = "/tmp"  # any folder works: mounts there are visible only here
_NOBODY = 65534
_QUIET = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID


def enter(proc_fd: int) -> None:
    """Leave the machine's files, network, host name and ids. Only open descriptors remain.

    Raises:
        OSError: the kernel or the machine's configuration does not allow it.
    """
    uid, gid = os.getuid(), os.getgid()
    spaces = linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
    if uid == 0:
        _unshare_with_all_ids(spaces, proc_fd)
    else:
        linux.syscall("unshare", spaces)
        map_one_id(proc_fd, uid, gid)
    linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    _build()
    socket.sethostname("sandbox")
    if uid == 0:
        become_nobody(proc_fd)
    linux.set_capabilities()


def map_one_id(proc_fd: int, uid: int, gid: int) -> None:
    """Map only the process's own user and group into its new user namespace."""
    write(proc_fd, "self/setgroups", "deny")
    write(proc_fd, "self/uid_map", f"{uid} {uid} 1")
    write(proc_fd, "self/gid_map", f"{gid} {gid} 1")


def become_nobody(proc_fd: int) -> None:
    """Switch from root to a user and group that own nothing."""
    uid, gid = _nobody(proc_fd, "uid"), _nobody(proc_fd, "gid")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # Otherwise /proc/self belongs to root, and a child could not write its own id maps.
    linux.prctl(linux.PR_SET_DUMPABLE, 1)


def _unshare_with_all_ids(spaces: int, proc_fd: int) -> None:
    """As root, keep every id so that Python is readable wherever it is. A process outside must write such a map."""
    maps = {
        f"{os.getpid()}/{kind}_map": "\n".join(
            f"{inside} {inside} {count}" for inside, _, count in _extents(proc_fd, kind)
        )
        for kind in ("uid", "gid")
    }
    asked, ask = os.pipe()
    helper = os.fork()
    if helper == 0:
        code = 1
        try:
            os.close(ask)
            if os.read(asked, 1):
                for path, lines in maps.items():
                    write(proc_fd, path, lines)
                code = 0
        finally:
            os._exit(code)
    os.close(asked)
    try:
        linux.syscall("unshare", spaces)
        os.write(ask, b"1")
    finally:
        os.close(ask)
        _, status = os.waitpid(helper, 0)
    if status != 0:
        raise PermissionError(1, "root's ids could not be kept in a user namespace")


def _build() -> None:
    """Build the new root: a read-only tmpfs with Python's folders and a few devices bind-mounted into it."""
    folders = visible.folders()
    opened = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in (*folders, *visible.DEVICES)]
    packages = [path for folder in folders for path in visible.hidden(folder)]
    links = {path: os.readlink(path) for path in ("/lib", "/lib64", "/usr/lib64", "/bin") if os.path.islink(path)}
    linux.mount("sandbox", _BASE, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755,size=1m,nr_inodes=512")
    for path, source_fd in opened:
        target = _BASE + path
        if path in visible.DEVICES:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
            attributes = _QUIET | linux.MOUNT_ATTR_NOEXEC
        else:
            os.makedirs(target, exist_ok=True)
            attributes = _QUIET | linux.MOUNT_ATTR_NODEV
        linux.mount(f"/proc/self/fd/{source_fd}", target, "", linux.MS_BIND | linux.MS_REC)
        linux.restrict_mount(target, attributes, recursive=True)
        os.close(source_fd)
    for path in packages:
        linux.mount("sandbox", _BASE + path, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755,size=4k,nr_inodes=1")
        linux.restrict_mount(_BASE + path, _QUIET | linux.MOUNT_ATTR_NODEV, recursive=False)
    os.makedirs(_BASE + WORK, exist_ok=True)
    for path, target in links.items():
        os.makedirs(os.path.dirname(_BASE + path), exist_ok=True)
        if not os.path.lexists(_BASE + path):
            os.symlink(target, _BASE + path)
    os.chdir(_BASE)
    linux.syscall("pivot_root", b".", b".")
    linux.syscall("umount2", b".", linux.MNT_DETACH)
    os.chdir("/")
    linux.restrict_mount("/", _QUIET | linux.MOUNT_ATTR_NODEV, recursive=False)


def _extents(proc_fd: int, kind: str) -> list[tuple[int, int, int]]:
    fd = os.open(f"self/{kind}_map", os.O_RDONLY, dir_fd=proc_fd)
    with os.fdopen(fd) as lines:
        return [(int(inside), int(outside), int(count)) for inside, outside, count in map(str.split, lines)]


def _nobody(proc_fd: int, kind: str) -> int:
    """65534, or the highest id in a container with fewer ids."""
    highest = max(inside + count - 1 for inside, _, count in _extents(proc_fd, kind))
    return min(highest, _NOBODY)


def write(proc_fd: int, path: str, text: str) -> None:
    """Write a file of /proc through a descriptor: /proc may no longer be mounted."""
    fd = os.open(path, os.O_WRONLY, dir_fd=proc_fd)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
