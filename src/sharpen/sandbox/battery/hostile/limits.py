"""Hostile programs against what a program may use: processes, memory, time, files and output."""

TEXTS = {
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
}
