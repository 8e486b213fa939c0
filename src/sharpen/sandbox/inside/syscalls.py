"""The system calls that a confined program may make, and their numbers on the two supported architectures.

Anything not listed is refused, including new system calls of later kernels.
"""

from __future__ import annotations

import os


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name for line in text.splitlines() for name in line.partition("#")[0].split())


ALLOWED = _listed("""
# reading and writing
read write readv writev pread64 pwrite64 preadv pwritev lseek creat close dup dup2 dup3 pipe
pipe2 copy_file_range sendfile fallocate ftruncate
# waiting
select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2
# a pair of sockets inside the process, which asyncio needs
recvfrom getsockname shutdown
# files
stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd chdir
fchdir getdents getdents64 mkdir mkdirat rmdir unlink unlinkat rename renameat link linkat
symlink symlinkat umask statfs fstatfs
# memory
brk munmap mprotect mremap
# time
nanosleep gettimeofday time times getitimer setitimer alarm pause
# signals
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait
sigaltstack restart_syscall
# threads and the end of the process
set_robust_list get_robust_list set_tid_address rseq gettid sched_yield sched_getaffinity
sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min getcpu exit
exit_group arch_prctl wait4 waitid
# questions about the process and the machine
getpid getppid getuid geteuid getgid getegid getgroups getresuid getresgid getpgid getpgrp
getsid capget uname getrusage getrlimit getrandom
""")
"""Allowed with any arguments."""

METADATA = _listed("truncate chmod fchmod fchmodat fchmodat2 utimensat utime utimes futimesat")
"""Landlock does not govern these: allowed only if every visible file is the job's own or read-only."""

CHECKED = _listed(
    """
    open openat preadv2 pwritev2 close_range renameat2 mmap madvise
    kill tgkill clone ioctl fcntl prctl prlimit64 socketpair sendto
    futex clock_gettime clock_getres clock_nanosleep getpriority getsockopt
    """
)
"""Allowed for some arguments (`seccomp.py`)."""

DONE = _listed("fsync fdatasync msync fadvise64")
"""Reported as successful but never made. On a shared file they flush the disk's cache, or drop the file from the
kernel's, even if it is only readable. A job's own files are in memory, with nothing to flush."""

ABSENT = _listed("clone3 openat2")
"""Answered with ENOSYS, so that the C library falls back to a call whose arguments can be checked."""

UNSUPPORTED = _listed("listxattr llistxattr flistxattr")
"""Answered with EOPNOTSUPP, as on a file system without extended attributes, so that file copies skip them."""

SETUP = _listed(
    """
    capset seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self mount
    umount2 pivot_root mount_setattr unshare
    """
)
"""Never allowed in a program: the calls that set up the confinement."""

_NUMBERS = """
access 21 - | alarm 37 - | arch_prctl 158 - | brk 12 214 | capget 125 90 | capset 126 91 | chdir 80 49
chmod 90 - | clock_getres 229 114 | clock_gettime 228 113 | clock_nanosleep 230 115 | clone 56 220
clone3 435 435 | close 3 57 | close_range 436 436 | copy_file_range 326 285 | creat 85 - | dup 32 23 | dup2 33 -
dup3 292 24 | epoll_create 213 - | epoll_create1 291 20 | epoll_ctl 233 21 | epoll_pwait 281 22
epoll_wait 232 - | eventfd2 290 19 | exit 60 93 | exit_group 231 94 | faccessat 269 48 | faccessat2 439 439
fadvise64 221 223 | fallocate 285 47 | fchdir 81 50 | fchmod 91 52 | fchmodat 268 53 | fchmodat2 452 452
fcntl 72 25 | fdatasync 75 83 | flistxattr 196 13 | fstat 5 80 | fstatfs 138 44 | fsync 74 82 | ftruncate 77 46
futex 202 98 | futimesat 261 - | get_robust_list 274 100 | getcpu 309 168 | getcwd 79 17 | getdents 78 -
getdents64 217 61 | getegid 108 177 | geteuid 107 175 | getgid 104 176 | getgroups 115 158 | getitimer 36 102
getpgid 121 155 | getpgrp 111 - | getpid 39 172 | getppid 110 173 | getpriority 140 141 | getrandom 318 278
getresgid 120 150 | getresuid 118 148 | getrlimit 97 163 | getrusage 98 165 | getsid 124 156
getsockname 51 204 | getsockopt 55 209 | gettid 186 178 | gettimeofday 96 169 | getuid 102 174 | ioctl 16 29
kill 62 129 | landlock_add_rule 445 445 | landlock_create_ruleset 444 444 | landlock_restrict_self 446 446
link 86 - | linkat 265 37 | listxattr 194 11 | llistxattr 195 12 | lseek 8 62 | lstat 6 - | madvise 28 233
mkdir 83 - | mkdirat 258 34 | mmap 9 222 | mount 165 40 | mount_setattr 442 442 | mprotect 10 226
mremap 25 216 | msync 26 227 | munmap 11 215 | nanosleep 35 101 | newfstatat 262 79 | open 2 - | openat 257 56
openat2 437 437 | pause 34 - | pipe 22 - | pipe2 293 59 | pivot_root 155 41 | poll 7 - | ppoll 271 73
prctl 157 167 | pread64 17 67 | preadv 295 69 | preadv2 327 286 | prlimit64 302 261 | pselect6 270 72
pwrite64 18 68 | pwritev 296 70 | pwritev2 328 287 | read 0 63 | readlink 89 - | readlinkat 267 78 | readv 19 65
recvfrom 45 207 | rename 82 - | renameat 264 38 | renameat2 316 276 | restart_syscall 219 128 | rmdir 84 -
rseq 334 293 | rt_sigaction 13 134 | rt_sigpending 127 136 | rt_sigprocmask 14 135 | rt_sigreturn 15 139
rt_sigsuspend 130 133 | rt_sigtimedwait 128 137 | sched_get_priority_max 146 125
sched_get_priority_min 147 126 | sched_getaffinity 204 123 | sched_getparam 143 121 | sched_getscheduler 145 120
sched_yield 24 124 | seccomp 317 277 | select 23 - | sendfile 40 71 | sendto 44 206 | set_robust_list 273 99
set_tid_address 218 96 | setitimer 38 103 | shutdown 48 210 | sigaltstack 131 132 | socketpair 53 199 | stat 4 -
statfs 137 43 | statx 332 291 | symlink 88 - | symlinkat 266 36 | tgkill 234 131 | time 201 -
times 100 153 | truncate 76 45 | umask 95 166 | umount2 166 39 | uname 63 160 | unlink 87 - | unlinkat 263 35
unshare 272 97 | utime 132 - | utimensat 280 88 | utimes 235 - | wait4 61 260 | waitid 247 95 | write 1 64
writev 20 66
"""

MACHINES = ("x86_64", "aarch64")


def numbers(machine: str = os.uname().machine) -> dict[str, int]:
    """Name → number of every call above that the architecture has.

    Raises:
        OSError: the architecture is not supported.
    """
    if machine not in MACHINES:
        raise OSError(f"system calls of {machine} are not known; known are {' and '.join(MACHINES)}")
    column = 1 + MACHINES.index(machine)
    found = {}
    for entry in _NUMBERS.replace("\n", "|").split("|"):
        fields = entry.split()
        if fields and fields[column] != "-":
            found[fields[0]] = int(fields[column])
    return found
