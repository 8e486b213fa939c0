"""The seccomp filter of system calls, as a classic BPF program."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence

from .linux import syscall
from .syscalls import ABSENT, ALLOWED, DONE, METADATA, UNSUPPORTED, numbers

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

_THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000  # VM, FS, FILES, SIGHAND, THREAD
_NO_THREAD = 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x20000 | 0x02000000 | 0x7C000000 | 0x80 | 0x80000000
"""PIDFD, PTRACE, VFORK, PARENT, NEWNS, NEWCGROUP, the other namespaces and IO, NEWTIME."""

_TERMINAL_AND_LENGTH = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: nothing that changes a device."""
_DESCRIPTORS = (0, 1, 2, 3, 5, 1030)
"""DUPFD, GETFD, SETFD, GETFL, GETLK, DUPFD_CLOEXEC: no signals, leases or pipe sizes."""
_SETFL = 4
_SET_LOCK = (6, 7)
"""SETLK, SETLKW: a record lock on a shared file slows everyone who opens it, and uses kernel memory that no limit
counts. No other process has a job's own files, so the job is told that it holds the lock. Open file description locks
(36 to 38), which may conflict within one process, are refused."""
_O_ASYNC = 0x2000
_O_DIRECT = {"x86_64": 0x4000, "aarch64": 0x10000}
"""Bypasses the kernel's cache, which keeps the disk busy."""

_SHARED_ANONYMOUS = 0x1 | 0x20
"""Such memory stays allocated as a whole while one page of it is mapped, but only mapped pages count."""
_MAP_FLAGS = 0x3 | 0x10 | 0x20 | 0x40 | 0x800 | 0x1000 | 0x4000 | 0x8000 | 0x10000 | 0x20000 | 0x100000
"""SHARED, PRIVATE, FIXED, ANONYMOUS, 32BIT, DENYWRITE, EXECUTABLE, NORESERVE, POPULATE, NONBLOCK, STACK,
FIXED_NOREPLACE: no huge pages, no locked memory."""
_ADVICE = (0, 1, 2, 3, 4, 8, 102, 103)
"""NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED, FREE, GUARD_INSTALL, GUARD_REMOVE. A huge page
stays allocated as a whole while one small page is mapped; COLD and PAGEOUT drop pages that others also read; MERGEABLE
keeps a kernel thread busy."""
_CLOSE_RANGE_FLAGS = (0, 4)
"""None, and CLOEXEC. UNSHARE would give every thread its own descriptors, each up to the limit."""
_RENAME_FLAGS = (0, 1)  # none, and NOREPLACE

_FUTEX_PRIVATE = 0x80
_FUTEX_WAITS = (0, 9)
"""WAIT and WAIT_BITSET. A futex that is not private is known by its file and offset if it is on a page of a file, and
so shared with every process that maps the file: one program could wake another. Waiting on one reports that its value
has changed (EAGAIN), which every caller must expect, and answers with a new look at it: the C library waits so for the
end of a thread. The kernel's own wake at that end (CLEARTID, robust lists) then finds no one."""
_CLOCK_KINDS, _CLOCK_OF_A_PROCESS, _CPU_TIME = 0x80000004, 0x80000000, 2
"""Clocks with the highest bit count the processor time of a process, or with bit 4 that of a thread, which the kernel
allows for the caller's own threads only."""
_SO_COOKIE = 57
"""A number that the kernel counts up for all sockets of the network namespace."""

_NAMES = (15, 16)  # SET_NAME, GET_NAME
_AF_UNIX = 1

Instruction = tuple[int, int, int, int]


def program(pid: int, *, own_files: bool, machine: str = os.uname().machine) -> bytes:
    """The filter for the process `pid`, as numbered in its own PID namespace.

    Args:
        own_files: every writable file the process sees is its own, so it may change modes and times.
    """
    number = numbers(machine)
    refuse = _give(errno.EPERM)
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL_PROCESS)]
    done, allow = _give(0), (_RETURN, 0, 0, _ALLOW)
    clock = [
        *_argument(0),
        *_one_of([_clock_of_process(0), _clock_of_process(pid)]),
        (_AND, 0, 0, _CLOCK_KINDS),
        *_one_of([_CLOCK_OF_A_PROCESS], refuse),
        allow,
    ]
    checks: dict[str, list[Instruction]] = {
        # Frequent calls first: the kernel caches only decisions that do not depend on arguments.
        "mmap": [
            *_argument(3),
            (_AND, 0, 0, _SHARED_ANONYMOUS),
            (_EQUAL, 0, 1, _SHARED_ANONYMOUS),
            refuse,
            *_none_of(3, ~_MAP_FLAGS),
            refuse,
        ],
        "futex": [
            *_argument(1),
            (_AND, 0, 0, _FUTEX_PRIVATE),
            *_one_of([_FUTEX_PRIVATE]),
            *_argument(1),
            (_AND, 0, 0, 0x7F),
            *_one_of(_FUTEX_WAITS, _give(errno.EAGAIN)),
            refuse,
        ],
        "openat": [*_none_of(2, _O_DIRECT[machine]), refuse],
        "open": [*_none_of(1, _O_DIRECT[machine]), refuse],
        "ioctl": [*_argument(1), *_one_of(_TERMINAL_AND_LENGTH), refuse],
        "fcntl": [
            *_argument(1),
            *_one_of(_DESCRIPTORS),
            *_one_of(_SET_LOCK, done),
            (_EQUAL, 1, 0, _SETFL),
            refuse,
            *_none_of(2, _O_DIRECT[machine] | _O_ASYNC),
            refuse,
        ],
        "madvise": [*_argument(2), *_one_of(_ADVICE), refuse],
        **dict.fromkeys(("clock_gettime", "clock_getres", "clock_nanosleep"), clock),
        **{name: [allow] for name in (*ALLOWED, *(METADATA if own_files else ()))},
        **{name: [done] for name in DONE},
        **{name: [_give(errno.ENOSYS)] for name in ABSENT},
        **{name: [_give(errno.EOPNOTSUPP)] for name in UNSUPPORTED},
        "preadv2": [*_argument(5), *_one_of([0]), refuse],
        "pwritev2": [*_argument(5), *_one_of([0]), refuse],
        "close_range": [*_argument(2), *_one_of(_CLOSE_RANGE_FLAGS), refuse],
        "renameat2": [*_argument(4), *_one_of(_RENAME_FLAGS), refuse],
        "clone": [*_argument(0), (_AND, 0, 0, _THREAD | _NO_THREAD), *_one_of([_THREAD]), refuse],
        "kill": [*_argument(0), *_one_of([pid]), refuse],
        "tgkill": [*_argument(0), *_one_of([pid]), refuse],
        "prlimit64": [*_argument(0), *_one_of([0, pid]), refuse],
        "prctl": [*_argument(0), *_one_of(_NAMES), refuse],
        # Only PRIO_PROCESS: the other kinds look at all processes of the machine.
        "getpriority": [*_argument(0), (_EQUAL, 1, 0, 0), refuse, *_argument(1), *_one_of([0, pid]), refuse],
        "getsockopt": [*_argument(2), *_one_of([_SO_COOKIE], refuse), allow],
        "socketpair": [*_argument(0), *_one_of([_AF_UNIX]), refuse],
        # Only without an address, so to the other end of a socket pair.
        "sendto": [
            *_argument(4),
            (_EQUAL, 1, 0, 0),
            refuse,
            (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * 4 + 4),
            *_one_of([0]),
            refuse,
        ],
    }
    for name, check in checks.items():
        if name in number:
            code += [(_EQUAL, 0, len(check), number[name]), *check]
    code.append(refuse)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def install(instructions: bytes) -> None:
    """Filter every later system call of this process. Needs no_new_privs."""
    held = ctypes.create_string_buffer(instructions, len(instructions))
    count = len(instructions) // 8
    head = struct.pack("@HxxxxxxP", count, ctypes.addressof(held))
    syscall("seccomp", 1, 0, head)


def _give(code: int) -> Instruction:
    return (_RETURN, 0, 0, 0x00050000 | code)


def _clock_of_process(pid: int) -> int:
    """The clock of the processor time that a process has used."""
    return (~pid << 3 | _CPU_TIME) & 0xFFFFFFFF


def _argument(index: int) -> list[Instruction]:
    """Load the lower half of an argument: the kernel reads only that of an int."""
    return [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index)]


def _one_of(values: Sequence[int], answer: Instruction = (_RETURN, 0, 0, _ALLOW)) -> list[Instruction]:
    return [step for value in values for step in ((_EQUAL, 0, 1, value), answer)]


def _none_of(index: int, bits: int) -> list[Instruction]:
    """Allow the call if the argument has none of these bits."""
    return [*_argument(index), (_AND, 0, 0, bits & 0xFFFFFFFF), *_one_of([0])]
