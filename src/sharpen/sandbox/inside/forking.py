"""A fork whose child begins in another cgroup."""

from __future__ import annotations

import ctypes
import os
import signal
import struct

from . import linux

_CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID, _CLONE_INTO_CGROUP = 0x00200000, 0x01000000, 0x200000000
_PR_GET_TID_ADDRESS = 40
_process = ctypes.PyDLL(None, use_errno=True)  # unlike CDLL it keeps the interpreter's lock, as os.fork does


CLONE, MOVE = "clone", "move"
"""The two ways into a cgroup: being born there, or moving there afterwards."""


def fork(way: str | None, cgroup_fd: int, setup_fd: int) -> int:
    """As `os.fork`, for a process of one thread; the child is in a cgroup.

    Moving there makes the kernel wait for an RCU grace period, 10 to 20 ms, unless it has just done so for another.
    Being born there needs clone3, which some containers forbid, and the right to write the cgroup's ``cgroup.procs``.
    If that fails in a new PID namespace, no process can start in it any more.

    Args:
        way: into the cgroup; None to stay.
        cgroup_fd: to be born, of the cgroup's folder; to move, of its ``cgroup.procs``.
        setup_fd: a pipe on which a child that could not move says so, and ends.

    Raises:
        OSError: no process could be started.
    """
    if way == CLONE:
        return _fork_into(cgroup_fd)
    pid = os.fork()
    if pid == 0 and way == MOVE:
        try:
            os.write(cgroup_fd, b"0")
        except OSError as error:
            os.write(setup_fd, f"the job could not join its cgroup: {error}".encode())
            os._exit(1)
    return pid


def _fork_into(folder_fd: int) -> int:
    clone3 = linux.number("clone3")
    flags, tid_address = _CLONE_INTO_CGROUP, _tid_address()
    if tid_address:
        flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
    # clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, its size, tls, set_tid, its size, cgroup
    arguments = struct.pack("=11Q", flags, 0, tid_address, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, folder_fd)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(_process.syscall(ctypes.c_long(clone3), arguments, ctypes.c_size_t(len(arguments))))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"clone3: {os.strerror(code)}")
    return pid


def _tid_address() -> int:
    """Where the C library keeps this thread's id, which its own fork has the kernel renew; 0 if that is not known."""
    address = ctypes.c_ulong()
    try:
        linux.prctl(_PR_GET_TID_ADDRESS, ctypes.addressof(address))
    except OSError:  # a kernel without CONFIG_CHECKPOINT_RESTORE
        return 0
    kept = ctypes.c_int.from_address(address.value).value if address.value else 0
    return address.value if kept == os.getpid() else 0  # another C library gives the kernel another address
