"""What all programs of the machine share: a program in the sandbox cannot hold it, drop it or fill it."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from host import children

from sharpen.sandbox import Limits, Sandbox, Status
from sharpen.sandbox.inside import landlock

CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
FAILED = ctypes.c_void_p(-1).value
"""


def records() -> set[tuple[int, str]]:
    """The record locks that are held on this machine: process, file."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {(int(fields[4]), fields[5]) for fields in lines if fields[1] == "POSIX"}


def while_it_runs(sandbox: Sandbox, source: str, look: Callable[[set[int]], dict[str, str]]) -> tuple[bytes, object]:
    """What the program printed, and the last that was seen of each thing while it ran, and slept for a second.

    Args:
        look: is given the processes that are there for the program: its supervisor, and itself.
    """
    sandbox.run("")
    before = children(os.getpid())
    printed: list[bytes] = []
    runner = threading.Thread(
        target=lambda: printed.append(sandbox.run(source + "\nimport time; time.sleep(1)").stdout), daemon=True
    )
    runner.start()
    seen: dict[str, str] = {}
    while runner.is_alive():
        seen |= look(children(os.getpid()) - before)
        time.sleep(0.02)
    return printed[0], seen


def test_a_program_leaves_no_record_lock_on_a_file_that_others_use(sandbox: Sandbox) -> None:
    source = """
import fcntl, json, os
for path, kind, flags in ((os.devnull, fcntl.LOCK_EX, os.O_RDWR), (json.__file__, fcntl.LOCK_SH, os.O_RDONLY)):
    fd = os.open(path, flags)
    fcntl.lockf(fd, kind)
    for offset in range(1, 20, 2):
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset)
print("locked", flush=True)
"""

    def look(pids: set[int]) -> dict[str, str]:
        return {file: "locked" for pid, file in records() if pid in pids}

    assert while_it_runs(sandbox, source, look) == (b"locked\n", {})


def test_shared_memory_cannot_outgrow_the_limit_by_keeping_one_page_of_each_piece(sandbox: Sandbox) -> None:
    # Four times the limit, for each way to shared memory without a file of its own.
    source = (
        CALLS
        + """
def held(flags, fd):
    total = 0
    for _ in range(16):
        at = libc.mmap(None, 32 << 20, 3, flags, fd, 0)
        if at == FAILED:
            break
        for page in range(0, 32 << 20, 4096):
            ctypes.memset(at + page, 1, 1)
        libc.munmap(at + 4096, (32 << 20) - 4096)
        total += 32
    return total
print(held(0x1 | 0x20, -1))
try:
    print(held(0x1, os.open("/dev/zero", os.O_RDWR)))
except OSError:
    print(0)
"""
    )
    result = sandbox.run(source, limits=Limits(memory_bytes=128 << 20))
    assert (result.status, result.stdout) == (Status.OK, b"0\n0\n"), result.stderr


def test_a_job_has_no_huge_pages(sandbox: Sandbox) -> None:
    def look(pids: set[int]) -> dict[str, str]:
        found = {}
        for pid in pids:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
                if int(status["PPid"]) in pids:  # the program, and not its supervisor
                    found["THP_enabled"] = status.get("THP_enabled", "0")  # a kernel before 5.0 does not say
        return found

    source = CALLS + "print(libc.madvise(libc.mmap(None, 4 << 20, 3, 0x22, -1, 0), 4 << 20, 14), flush=True)"
    assert while_it_runs(sandbox, source, look) == (b"-1\n", {"THP_enabled": "0"})


@pytest.mark.parametrize(("version", "flags"), [(1, 0), (6, 0), (7, 1), (9, 1)])
def test_what_landlock_refuses_does_not_fill_the_audit_log(
    monkeypatch: pytest.MonkeyPatch, version: int, flags: int
) -> None:
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr(landlock, "version", lambda: version)
    monkeypatch.setattr(landlock, "syscall", lambda *call: made.append(call))
    landlock.restrict(40)
    assert made == [("landlock_restrict_self", 40, flags)]
