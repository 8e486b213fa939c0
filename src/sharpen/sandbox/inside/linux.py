"""Linux system calls that Python's `os` lacks."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from .syscalls import MACHINES, numbers

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x2, 0x4, 0x8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 0x2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8
AT_FDCWD = -100
AT_RECURSIVE = 0x8000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 1, 4, 8, 38
PR_SET_THP_DISABLE = 41
CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522

IS_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_numbers = numbers() if IS_LINUX and os.uname().machine in MACHINES else {}

Argument = int | bytes | None | ctypes.Structure | ctypes.Array[ctypes.c_char]


def syscall(name: str, *arguments: Argument) -> int:
    """Make a system call by name.

    Raises:
        OSError: it failed, or its number on this machine is unknown. The message names the call.
    """
    called = number(name)
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = int(_syscall(ctypes.c_long(called), *given))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def number(name: str) -> int:
    """The number of a system call on this machine.

    Raises:
        OSError: it is unknown.
    """
    if name not in _numbers:
        raise OSError(errno.ENOSYS, f"{name}: not known on {sys.platform}, {os.uname().machine}")
    return _numbers[name]


def prctl(option: int, value: int) -> None:
    """Set a process attribute."""
    syscall("prctl", option, value, 0, 0, 0)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount a file system. The `OSError` names the target."""
    try:
        syscall("mount", source.encode(), os.fsencode(target), kind.encode(), flags, options.encode())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({target})") from None


def restrict_mount(target: str, attributes: int, *, recursive: bool) -> None:
    """Add attributes to a mount, keeping those it has."""
    wanted = attributes.to_bytes(8, "little") + bytes(24)
    flags = AT_RECURSIVE if recursive else 0
    try:
        syscall("mount_setattr", AT_FDCWD, os.fsencode(target), flags, wanted, len(wanted))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({target})") from None


def set_capabilities(*kept: int) -> None:
    """Keep only these capabilities, permitted and effective."""
    mask = sum(1 << capability for capability in kept).to_bytes(8, "little")
    low, high = mask[:4], mask[4:]
    header = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
    syscall("capset", header, low + low + bytes(4) + high + high + bytes(4))
