"""Hostile programs against what all programs of the machine share, and what others feel of it."""

TEXTS = {
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

#: a word of a file that everybody maps, as a bell (harmless)
import json
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
page = libc.mmap(None, 4096, 1, 1, os.open(json.__file__, os.O_RDONLY), 0)
value = ctypes.c_uint32.from_address(page).value
result, error = raw("futex", page, 0, value, (ctypes.c_long * 2)(0, 100_000_000), 0, 0)
if error != 11:
    through(f"it waited: {result}, errno {error}")
for operation in (1, 3, 4, 5, 10, 12):
    refused("futex", page, operation, 1, 1, page, value)

#: the processor time of other processes (harmless)
for pid in (VICTIM, TRAINER, 2):
    for kind in (0, 1, 2):
        for name in ("clock_gettime", "clock_getres"):
            refused(name, ~pid << 3 | kind, (ctypes.c_long * 2)())

#: numbers that the kernel counts for the whole machine (harmless)
import socket
refused("sysinfo", (ctypes.c_long * 64)())
for which in (1, 2):
    refused("getpriority", which, 0)
one, other = socket.socketpair()
refused("getsockopt", one.fileno(), 1, 57, (ctypes.c_long * 1)(), (ctypes.c_int * 1)(8))
""",
    "what others feel": r"""
#: names of files that do not exist
n, folder = 0, os.path.dirname(os.__file__)
while True:
    try:
        os.stat(f"{folder}/a-name-that-nobody-uses-{n}")
    except OSError:
        n += 1

#: one file opened by all its threads
import threading
threading.stack_size(1 << 18)
def open_it():
    while True:
        os.close(os.open(os.__file__, os.O_RDONLY))
for _ in range(15):
    threading.Thread(target=open_it, daemon=True).start()
open_it()

#: threads that come and go
import threading
while True:
    started = [threading.Thread(target=int) for _ in range(8)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()

#: page tables
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
at = 1 << 40
while libc.mmap(at, 4096, 3, 0x100022, -1, 0) == at:
    ctypes.memset(at, 1, 1)
    at += 1 << 30

#: open files without number, kept by mapping them
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
failed = ctypes.c_void_p(-1).value
address = 0
while address != failed:
    fd = os.open(os.__file__, os.O_RDONLY)
    address = libc.mmap(None, 4096, 1, 2, fd, 0)
    os.close(fd)
import time
time.sleep(10)
""",
}
