"""The filter of system calls, run by a machine for BPF written from the kernel's description of it."""

import errno
import re
import struct
from pathlib import Path

import pytest

from sharpen.sandbox.inside import seccomp
from sharpen.sandbox.inside.syscalls import ALLOWED, CHECKED, DONE, METADATA, SETUP, UNSUPPORTED, numbers

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PID = 4242
ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS, EOPNOTSUPP, EAGAIN = (
    0x00050000 | code for code in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EAGAIN)
)
WITHOUT_BEING_MADE = 0x00050000
"""SECCOMP_RET_ERRNO with 0: the call is not made, and its caller sees success."""
THREAD = 0x3D0F00  # the flags with which glibc starts a thread
AS_PROCESS = 17  # SIGCHLD
AT_FDCWD = 2**64 - 100


def answer(program: bytes, number: int, arguments: tuple[int, ...] = (), architecture: int = 0) -> int:
    """What the filter says of one call."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, architecture, 0, *padded)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        if operation == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif operation == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            accumulator &= k
        elif operation == 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
            at += if_true if accumulator == k else if_false
        elif operation == 0x35:  # BPF_JMP | BPF_JGE | BPF_K
            at += if_true if accumulator >= k else if_false
        elif operation == 0x06:  # BPF_RET | BPF_K
            return int(k)
        else:
            raise ValueError(f"no operation {operation:#x}")


@pytest.fixture(params=ARCHITECTURES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(machine: str, name: str, *arguments: int, own_files: bool = True) -> int:
    program = seccomp.program(PID, own_files=own_files, machine=machine)
    return answer(program, numbers(machine)[name], arguments, ARCHITECTURES[machine])


def test_what_is_listed_is_allowed_and_all_else_refused(machine: str) -> None:
    program = seccomp.program(PID, own_files=True, machine=machine)
    known = numbers(machine)
    allowed = {known[name] for name in (*ALLOWED, *METADATA) if name in known}
    checked = {known[n] for n in CHECKED if n in known}
    absent = {known[n] for n in ("clone3", "openat2")}
    done = {known[n] for n in DONE}
    unsupported = {known[n] for n in UNSUPPORTED}
    # All bits set: a private futex, the clock of a thread, and an unknown option.
    unless_refused = {known[n] for n in ("futex", "clock_gettime", "clock_getres", "clock_nanosleep", "getsockopt")}
    for number in range(600):
        said = answer(program, number, (2**64 - 1,) * 6, ARCHITECTURES[machine])
        if number in allowed | unless_refused:
            assert said == ALLOW, number
        elif number in absent:
            assert said == ENOSYS, number
        elif number in done:
            assert said == WITHOUT_BEING_MADE, number
        elif number in unsupported:
            assert said == EOPNOTSUPP, number
        else:
            assert said == EPERM, (number, number in checked)


def test_what_confines_a_program_is_not_among_what_it_may_do(machine: str) -> None:
    for name in SETUP:
        assert ask(machine, name) == EPERM


def test_another_architecture_and_the_x32_abi_end_the_process() -> None:
    program = seccomp.program(PID, own_files=True, machine="x86_64")
    assert answer(program, 39, architecture=0x40000003) == KILL  # i386
    assert answer(program, 0x40000000 | 39, architecture=ARCHITECTURES["x86_64"]) == KILL
    assert answer(program, 39, architecture=ARCHITECTURES["x86_64"]) == ALLOW


def test_threads_are_allowed_and_processes_are_not(machine: str) -> None:
    assert ask(machine, "clone", THREAD) == ALLOW
    for flags in (AS_PROCESS, 0x100 | AS_PROCESS, 0x4100 | AS_PROCESS, THREAD & ~0x10000, 0):
        assert ask(machine, "clone", flags) == EPERM
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask(machine, "clone", THREAD | namespace) == EPERM


def test_signals_go_to_the_process_itself_only(machine: str) -> None:
    for name in ("kill", "tgkill"):
        assert ask(machine, name, PID) == ALLOW
        for other in (PID + 1, 1, 0, 2**32 - 1):
            assert ask(machine, name, other) == EPERM


def test_a_pair_of_sockets_talks_to_nobody_else(machine: str) -> None:
    assert ask(machine, "socketpair", 1) == ALLOW
    assert ask(machine, "socketpair", 2) == EPERM
    assert ask(machine, "sendto", 3, 0, 0, 0, 0) == ALLOW
    for address in (1, 1 << 32, 2**64 - 1):
        assert ask(machine, "sendto", 3, 0, 0, 0, address) == EPERM


def test_a_futex_that_is_not_private_never_waits_and_wakes_nobody(machine: str) -> None:
    private, realtime = 128, 256
    for operation in range(14):
        assert ask(machine, "futex", 0, operation | private) == ALLOW
        assert ask(machine, "futex", 0, operation | private | realtime) == ALLOW
    wait, wait_bitset = 0, 9
    for operation in range(14):
        for flag in (0, realtime):
            expected = EAGAIN if operation in (wait, wait_bitset) else EPERM
            assert ask(machine, "futex", 0, operation | flag) == expected, operation


def test_the_processor_time_of_other_processes_is_out_of_reach(machine: str) -> None:
    def of_process(pid: int) -> int:
        return (~pid << 3 | 2) & 0xFFFFFFFF

    for name in ("clock_gettime", "clock_getres", "clock_nanosleep"):
        for clock in (0, 1, 2, 3, 4, 7, 11, of_process(0), of_process(PID), of_process(PID + 1) | 4):
            assert ask(machine, name, clock) == ALLOW, clock
        # Of processes, by each of the three ways to count, and of a device by its descriptor.
        for clock in (of_process(1), of_process(PID + 1), of_process(PID) & ~2, of_process(PID) | 1):
            assert ask(machine, name, clock) == EPERM, clock


def test_what_the_kernel_counts_for_all_is_out_of_reach(machine: str) -> None:
    so_type, so_error, so_cookie = 3, 4, 57
    assert [ask(machine, "getsockopt", 3, 1, option) for option in (so_type, so_error, so_cookie)] == [
        ALLOW,
        ALLOW,
        EPERM,
    ]
    prio_process, prio_group, prio_user = 0, 1, 2
    assert ask(machine, "getpriority", prio_process, 0) == ALLOW
    assert ask(machine, "getpriority", prio_process, PID) == ALLOW
    for which, who in ((prio_process, PID + 1), (prio_group, 0), (prio_user, 0)):
        assert ask(machine, "getpriority", which, who) == EPERM
    sysinfo = {"x86_64": 99, "aarch64": 179}[machine]
    program = seccomp.program(PID, own_files=True, machine=machine)
    assert answer(program, sysinfo, (), ARCHITECTURES[machine]) == EPERM


def test_modes_and_times_change_only_where_all_files_are_the_jobs_own(machine: str) -> None:
    for name in METADATA:
        if name in numbers(machine):
            assert ask(machine, name) == ALLOW
            assert ask(machine, name, own_files=False) == EPERM


def test_record_locks_are_not_taken_and_leases_are_refused(machine: str) -> None:
    getlk, setlk, setlkw = 5, 6, 7
    assert ask(machine, "fcntl", 3, getlk) == ALLOW  # it asks, and leaves no record
    for command in (setlk, setlkw):
        assert ask(machine, "fcntl", 3, command) == WITHOUT_BEING_MADE
    # F_GETLK64 to F_SETLKW64, locks of open files, owners and signals, leases, notices, pipe sizes, seals.
    for command in (12, 13, 14, 36, 37, 38, 8, 10, 15, 1024, 1025, 1026, 1031, 1033):
        assert ask(machine, "fcntl", 3, command) == EPERM


def test_the_caches_of_the_disk_and_the_kernel_are_out_of_reach(machine: str) -> None:
    for name in ("fsync", "fdatasync", "msync", "fadvise64"):
        assert ask(machine, name, 3, 0, 0, 4) == WITHOUT_BEING_MADE
    o_direct, o_directory = {"x86_64": (0o40000, 0o200000), "aarch64": (0o200000, 0o40000)}[machine]
    o_cloexec, o_nonblock, f_setfl = 0o2000000, 0o4000, 4
    assert ask(machine, "openat", AT_FDCWD, 0, o_cloexec | o_directory) == ALLOW
    assert ask(machine, "openat", AT_FDCWD, 0, o_cloexec | o_direct) == EPERM
    if "open" in numbers(machine):
        assert ask(machine, "open", 0, o_cloexec | o_directory) == ALLOW
        assert ask(machine, "open", 0, o_cloexec | o_direct) == EPERM
    assert ask(machine, "fcntl", 3, f_setfl, o_nonblock) == ALLOW
    for flag in (o_direct, 0o20000):  # O_ASYNC
        assert ask(machine, "fcntl", 3, f_setfl, o_nonblock | flag) == EPERM
    for name in ("preadv2", "pwritev2"):
        assert ask(machine, name, 3, 0, 1, 0, 0, 0) == ALLOW
        for flag in (1, 2, 4, 0x80):  # HIPRI, DSYNC, SYNC, DONTCACHE
            assert ask(machine, name, 3, 0, 1, 0, 0, flag) == EPERM


def test_memory_that_the_address_space_does_not_count_is_refused(machine: str) -> None:
    shared, private, anonymous = 1, 2, 0x20
    # Those of mmap.mmap on a file, of malloc, of a thread's stack, and of the loader of libraries.
    for flags in (shared, private | anonymous, private | anonymous | 0x20000, private | 0x10 | 0x800):
        assert ask(machine, "mmap", 0, 1 << 20, 3, flags, 3, 0) == ALLOW
    # Shared and anonymous, droppable, growing downwards, locked, huge, synchronous.
    for flags in (shared | anonymous, 8 | anonymous, private | 0x100, private | 0x2000, private | 0x40000, 3 | 0x80000):
        assert ask(machine, "mmap", 0, 1 << 20, 3, flags, 3, 0) == EPERM
    for advice in (0, 1, 2, 3, 4, 8, 102, 103):
        assert ask(machine, "madvise", 0, 4096, advice) == ALLOW
    # REMOVE, MERGEABLE, HUGEPAGE, COLD, PAGEOUT, COLLAPSE, HWPOISON, SOFT_OFFLINE
    for advice in (9, 12, 14, 20, 21, 25, 100, 101):
        assert ask(machine, "madvise", 0, 4096, advice) == EPERM


def test_threads_keep_one_table_of_descriptors(machine: str) -> None:
    for flags, said in ((0, ALLOW), (4, ALLOW), (2, EPERM), (6, EPERM)):
        assert ask(machine, "close_range", 3, 2**32 - 1, flags) == said


def test_a_rename_replaces_and_does_nothing_else(machine: str) -> None:
    for flags, said in ((0, ALLOW), (1, ALLOW), (2, EPERM), (4, EPERM)):  # none, NOREPLACE, EXCHANGE, WHITEOUT
        assert ask(machine, "renameat2", AT_FDCWD, 0, AT_FDCWD, 0, flags) == said


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")],
)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str, header: str) -> None:
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()))
    shared = {"fstatat": "newfstatat", "fadvise64": "fadvise64"}  # the generic header names the first for both widths
    official = {shared.get(name, name): int(number) for name, number in found.items()}
    ours = numbers(machine)
    assert len(ours.keys() & official.keys()) > 120
    for name in ours.keys() & official.keys():
        assert ours[name] == official[name], name
