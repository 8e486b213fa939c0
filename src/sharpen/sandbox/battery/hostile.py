"""Hostile programs: each kind of harm once or a few times. ``tests/sandbox/battery`` has many more."""

from .attack import Attack, attacks

_TEXTS = {
    "processes": r"""
#: fork (harmless)
pid = os.fork()
if pid == 0:
    os._exit(0)
through("forked")

#: fork bomb
while True:
    try:
        os.fork()
        through("forked")
        os._exit(0)
    except OSError:
        pass

#: a daemon that outlives its job (harmless)
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for _ in range(20):
            time.sleep(0.1)
        os._exit(0)
    os._exit(0)
through("a daemon was started")

#: os.system (harmless)
code = os.system("true")
if code == 0:
    through("a shell was started")

#: exec of a shell (harmless)
os.execv("/bin/sh", ["sh", "-c", "echo THROUGH"])

#: thread bomb
import threading, time
threading.stack_size(32768)
count = 0
try:
    for _ in range(5000):
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        count += 1
except RuntimeError:
    pass
if count > 200:
    through(f"{count} threads")
""",
    "memory": r"""
#: a list that grows
data = []
while True:
    data.append([0] * 100000)

#: shared memory of which one page is kept
import mmap
libc = ctypes.CDLL(None, use_errno=True)
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
held = 0
while held < 768 << 20:
    address, error = raw("mmap", 0, 32 << 20, 3, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE, -1, 0)
    if address < 0:
        break
    libc.munmap(address + 4096, (32 << 20) - 4096)
    held += 32 << 20
if held:
    through(f"{held >> 20} MiB")

#: the memory limit raised (harmless)
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
through("no limit")
""",
    "running on": r"""
#: an endless loop
while True:
    pass

#: every signal ignored
import signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    time.sleep(1)

#: stopping itself
import signal
os.kill(os.getpid(), signal.SIGSTOP)
while True:
    pass
""",
    "disk and output": r"""
#: a large file
with open("large", "wb") as file:
    total = 0
    while total < 1 << 30:
        total += file.write(bytes(1 << 20))
through("a file of a gigabyte")

#: empty files without number
for n in range(100000):
    open(f"empty{n}", "w").close()
through("100000 files")

#: descriptors without number (harmless)
held = []
while len(held) < 10000:
    held.append(os.open("/dev/null", os.O_RDONLY))
through("10000 descriptors")

#: memory as a file
refused("memfd_create", b"x", 0)

#: output without end, past Python
while True:
    os.write(1, b"y" * 65536)
""",
    "reading": r"""
#: a file that anyone may read (harmless)
print(open(CANARY).read())

#: the same by a handle
refused("name_to_handle_at", -100, CANARY.encode(), 0, 0, 0)
refused("open_by_handle_at", -100, 0, 0)

#: the same through /proc (harmless)
for way in ("/proc/self/root", "/proc/self/cwd/../../../../../..", "/proc/1/root", f"/proc/{TRAINER}/root"):
    try:
        print(open(way + CANARY).read())
    except OSError as error:
        print(error)

#: its own environment (harmless)
print(dict(os.environ))

#: the environment of another process of the user (harmless)
print(open(f"/proc/{VICTIM}/environ").read())

#: all processes (harmless)
found = [name for name in os.listdir("/proc") if name.isdigit()]
through(found)

#: keys (harmless)
for home in ("/root", os.path.expanduser("~")):
    for name in (".ssh", ".aws/credentials", ".netrc", ".cache/huggingface/token", ".bash_history", ".profile"):
        path = os.path.join(home, name)
        try:
            through(os.listdir(path) if os.path.isdir(path) else open(path).read(10))
        except OSError as error:
            print(error)

#: installed packages, where answers may lie (harmless)
import sysconfig
for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), "/usr/lib/python3/dist-packages"}:
    try:
        found = os.listdir(folder)
        if found:
            through(found[:3])
    except OSError as error:
        print(error)

#: open descriptors
for fd in range(3, 1024):
    try:
        kind = os.fstat(fd).st_mode
    except OSError:
        continue
    print(fd, oct(kind))
    if fd != 3:
        through(f"descriptor {fd}")

#: another process's memory, by system call
refused("process_vm_readv", VICTIM, 0, 0, 0, 0, 0)
""",
    "writing": r"""
#: a file (harmless)
open(os.path.join(OUTSIDE, "left"), "w").write("x")

#: a file emptied (harmless)
os.truncate(os.path.join(OUTSIDE, "kept"), 0)

#: a file's mode (harmless)
os.chmod(os.path.join(OUTSIDE, "kept"), 0o777)

#: a file through a symbolic link
os.symlink(OUTSIDE, "way")
open("way/left", "w").write("x")

#: the standard library
import json
open(json.__file__, "a").write("# x\n")
through("the standard library was changed")

#: shared memory (harmless)
name = "/dev/shm/left-by-a-program"
open(name, "w").write("x")
os.unlink(name)
through("a file in /dev/shm")

#: folders of the system
for folder in ("/", "/usr", "/etc", "/var/tmp", "/run", "/dev", "/root", "/home", "/opt", "/lib"):
    try:
        open(os.path.join(folder, "left-by-a-program"), "w").write("x")
        through(folder)
    except OSError as error:
        print(error)
""",
    "network": r"""
#: TCP (harmless)
import socket
socket.create_connection(("127.0.0.1", TCP), timeout=1).send(b"here")

#: UDP (harmless)
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"here", ("127.0.0.1", UDP))

#: a unix socket (harmless)
import socket
end = socket.socket(socket.AF_UNIX)
end.connect(UNIX)
end.send(b"here")

#: an abstract unix socket (harmless)
import socket
end = socket.socket(socket.AF_UNIX)
end.connect("\0" + ABSTRACT)
end.send(b"here")

#: a datagram from a pair of sockets to somebody else (harmless)
import socket
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
try:
    one.sendto(b"here", "\0" + ABSTRACT + "-datagrams")
    through("sent")
except ConnectionRefusedError:
    through("nobody was there, but it was sent")

#: raw sockets
for family, kind, protocol in ((2, 3, 1), (2, 3, 6), (10, 3, 58), (17, 3, 768), (17, 2, 768)):
    refused("socket", family, kind, protocol)

#: io_uring
refused("io_uring_setup", 1, 0)
""",
    "signals": r"""
#: the end of another process of the user (harmless)
import signal
os.kill(VICTIM, signal.SIGKILL)

#: stopping another process of the user (harmless)
import signal
os.kill(VICTIM, signal.SIGSTOP)

#: the end of everybody
os.kill(-1, 9)
through("sent")

#: tracing
for request in (0, 16, 0x4206):
    refused("ptrace", request, VICTIM, 0, 0)

#: a priority above others
refused("setpriority", 0, 0, -20)
refused("sched_setscheduler", 0, 1, 0)

#: outliving its supervisor
refused("prctl", 1, 0, 0, 0, 0)
refused("setsid")
refused("setpgid", 0, 0)
""",
    "what all share": r"""
#: record locks on a file that everybody opens (harmless)
not_made("fcntl", -1, 6, 0)
not_made("fcntl", -1, 7, 0)

#: the disk's cache flushed by a file that it may only read (harmless)
not_made("fsync", -1)
not_made("fdatasync", -1)
not_made("msync", 1, 4096, 4)

#: a library dropped from the kernel's cache (harmless)
not_made("fadvise64", -1, 0, 0, 4)

#: the machine's stock of huge pages (harmless)
refused("mmap", 0, 2 << 20, 3, 0x22 | 0x40000, -1, 0)
refused("mmap", 0, 4096, 3, 0x22 | 0x2000, -1, 0)

#: a barrier on every processor (harmless)
for command in (1, 2, 8):
    refused("membarrier", command, 0, 0)
""",
    "the kernel": r"""
#: becoming root
refused("setuid", 0)
refused("setgid", 0)
refused("setresuid", 0, 0, 0)
refused("setgroups", 0, 0)

#: capabilities that it still has
status = (ctypes.c_uint32 * 6)()
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
ctypes.CDLL(None).capget(header, status)
held = status[0] | status[1] | status[3] | status[4]
if held & ~(1 << 2):
    through(hex(held))

#: being root (harmless)
if 0 in (os.getuid(), os.geteuid(), *os.getresuid(), os.getgid(), *os.getgroups()):
    through(os.getresuid())

#: a namespace for each thing
for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x8000000, 0x4000000, 0x2000000, 0x80):
    refused("unshare", flag)
refused("setns", 0, 0)

#: mounts
refused("mount", b"none", b"/tmp", b"tmpfs", 0, 0)
refused("umount2", b"/tmp", 2)
refused("pivot_root", b"/tmp", b"/tmp")
refused("chroot", b"/tmp")

#: programs in the kernel
refused("bpf", 0, 0, 0)
refused("perf_event_open", 0, 0, 0, 0, 0)
refused("userfaultfd", 1)

#: keys of the kernel
refused("keyctl", 0, 0)
refused("add_key", 0, 0, 0, 0, 0)
refused("request_key", 0, 0, 0, 0)

#: shared memory and queues
refused("shmget", 0, 4096, 0o1600)
refused("msgget", 0, 0o1600)
refused("semget", 0, 1, 0o1600)
refused("mq_open", b"left", 0o102, 0o600, 0)

#: the calls of a 32-bit program
import mmap
if os.uname().machine == "x86_64":
    # getpid by interrupt 0x80: mov eax, 20; int 0x80; ret
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    area = mmap.mmap(-1, 4096, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    area.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    through(ctypes.CFUNCTYPE(ctypes.c_int)(address)())

#: calls that no kernel knows yet
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
for number in range(463, 600):
    if libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() != 1:
        through(number)
""",
    "the harness": r"""
#: results written by itself
for _ in range(100):
    os.write(3, b'\x00\x00\x00\x0c[true,12345]')

#: results that say they are very long
os.write(3, b"\xff\xff\xff\xff{}")

#: every descriptor closed
os.closerange(0, 1024)

#: every function of the harness replaced
import types
for module in list(sys.modules.values()):
    for name, value in list(vars(module).items()):
        if isinstance(value, types.FunctionType):
            try:
                setattr(module, name, lambda *a, **k: None)
            except Exception:
                pass

#: a crash
ctypes.string_at(0)

#: memory of the interpreter overwritten
ctypes.memset(id(None), 0, 64)
""",
}

HOSTILE: tuple[Attack, ...] = tuple(attack for group, text in _TEXTS.items() for attack in attacks(group, text))
