"""Hostile programs against what belongs to others: their files, their processes, the network."""

TEXTS = {
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
}
