"""Code prepended to every hostile program: the addresses of its targets, and helpers for raw system calls."""

from __future__ import annotations

import dataclasses
import os
import pprint

from sharpen.sandbox.inside.syscalls import MACHINES


@dataclasses.dataclass(frozen=True)
class Targets:
    """What hostile programs aim at. All of it is on this machine and was created for them."""

    canary: str
    """A world-readable file with a secret in it."""
    outside: str
    """A world-writable folder."""
    tcp_port: int
    udp_port: int
    unix_path: str
    abstract_name: str
    victim_pid: int
    """A process of the same user, with a secret in its environment."""
    trainer_pid: int
    """The process that runs the sandbox."""


_PRELUDE = '''
import ctypes, os, sys
CANARY, OUTSIDE, TCP, UDP = {canary!r}, {outside!r}, {tcp_port}, {udp_port}
UNIX, ABSTRACT, VICTIM, TRAINER = {unix_path!r}, {abstract_name!r}, {victim_pid}, {trainer_pid}
NUMBERS = {numbers}

def through(what=""):
    os.write(1, ("\\nTHROUGH " + str(what) + "\\n").encode())

def raw(name, *arguments):
    """A system call by number: (result, errno). ENOSYS if this architecture does not have it."""
    if name not in NUMBERS:
        return -1, 38
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *given)
    return result, ctypes.get_errno()

def refused(name, *arguments):
    """Only the seccomp filter answers EPERM or ENOSYS to these arguments; anything else got through."""
    result, error = raw(name, *arguments)
    if result >= 0 or error not in (1, 38):
        through(f"{{name}}: {{result}}, errno {{error}}")

def not_made(name, *arguments):
    """The kernel would fail with these arguments; the filter reports success without making the call."""
    result, error = raw(name, *arguments)
    if result != 0:
        through(f"{{name}}: {{result}}, errno {{error}}")

os.write(1, b"begun\\n")
'''

_NUMBERS = """
fork 57 - | vfork 58 - | clone 56 220 | clone3 435 435 | execve 59 221 | execveat 322 281 | kill 62 129
tkill 200 130 | tgkill 234 131 | rt_sigqueueinfo 129 138 | rt_tgsigqueueinfo 297 240 | pidfd_open 434 434
pidfd_send_signal 424 424 | pidfd_getfd 438 438 | ptrace 101 117 | process_vm_readv 310 270
process_vm_writev 311 271 | kcmp 312 272 | socket 41 198 | connect 42 203 | bind 49 200 | listen 50 201
accept 43 202 | sendmsg 46 211 | recvmsg 47 212 | sendmmsg 307 269 | mount 165 40 | umount2 166 39
pivot_root 155 41 | chroot 161 51 | unshare 272 97 | setns 308 268 | open_tree 428 428 | move_mount 429 429
fsopen 430 430 | fsmount 432 432 | mount_setattr 442 442 | setuid 105 146 | setgid 106 144
setresuid 117 147 | setgroups 116 159 | capset 126 91 | prctl 157 167 | seccomp 317 277 | keyctl 250 219
add_key 248 217 | request_key 249 218 | bpf 321 280 | perf_event_open 298 241 | userfaultfd 323 282
io_uring_setup 425 425 | memfd_create 319 279 | memfd_secret 447 - | init_module 175 105
finit_module 313 273 | kexec_load 246 104 | reboot 169 142 | swapon 167 224 | sethostname 170 161
settimeofday 164 170 | clock_settime 227 112 | adjtimex 159 171 | iopl 172 - | ioperm 173 - | syslog 103 116
acct 163 89 | personality 135 92 | modify_ldt 154 - | quotactl 179 60 | fanotify_init 300 262
inotify_init1 294 26 | open_by_handle_at 304 265 | name_to_handle_at 303 264 | shmget 29 194 | msgget 68 186
semget 64 190 | mq_open 240 180 | mlockall 151 230 | timer_create 222 107 | vhangup 153 58
prlimit64 302 261 | setrlimit 160 164 | setpriority 141 140 | sched_setaffinity 203 122
sched_setscheduler 144 119 | ioprio_set 251 30 | mknodat 259 33 | splice 275 76 | vmsplice 278 75
tee 276 77 | getpid 39 172 | openat2 437 437 | signalfd4 289 74 | timerfd_create 283 85
lookup_dcookie 212 18 | process_madvise 440 440 | move_pages 279 239 | migrate_pages 256 238 | mbind 237 235
set_mempolicy 238 237 | setxattr 188 5 | lsetxattr 189 6 | removexattr 197 14 | getxattr 191 8
setsid 112 157 | setpgid 109 154 | flock 73 32 | landlock_create_ruleset 444 444 | truncate 76 45
chown 92 - | fchownat 260 54 | statmount 457 457 | listmount 458 458 | lsm_list_modules 461 461
futex 202 98 | clock_gettime 228 113 | clock_getres 229 114 | sysinfo 99 179 | getpriority 140 141
getsockopt 55 209 | fcntl 72 25 | fsync 74 82 | fdatasync 75 83 | msync 26 227 | fadvise64 221 223 | preadv2 327 286
pwritev2 328 287 | madvise 28 233 | mmap 9 222 | membarrier 324 283 | close_range 436 436 | renameat2 316 276"""


def prelude(targets: Targets) -> str:
    """The code to prepend to a program."""
    column = 1 + MACHINES.index(os.uname().machine)
    entries = [entry.split() for entry in _NUMBERS.replace("\n", "|").split("|") if entry.strip()]
    numbers = {entry[0]: int(entry[column]) for entry in entries if entry[column] != "-"}
    return _PRELUDE.format(**dataclasses.asdict(targets), numbers=pprint.pformat(numbers, compact=True, width=200))
