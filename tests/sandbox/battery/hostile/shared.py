"""Programs that want to hold, drop or keep busy what all programs of the machine share."""

from sharpen.sandbox.battery import attacks

ATTACKS = (
    *attacks(
        "what all share",
        r"""
#: locks of open files (harmless)
for command in (36, 37, 38):
    refused("fcntl", 0, command, 0)

#: reads past the kernel's cache (harmless)
import fcntl, json
for flags in (os.O_RDONLY, os.O_RDWR):
    try:
        os.open(json.__file__, flags | os.O_DIRECT)
        through("opened")
    except OSError as error:
        print(error)
fd = os.open(json.__file__, os.O_RDONLY)
refused("fcntl", fd, 4, os.O_DIRECT)

#: signals from the machine's random numbers (harmless)
fd = os.open("/dev/urandom", os.O_RDONLY)
refused("fcntl", fd, 4, os.O_ASYNC)

#: reads and writes in the way of the disk (harmless)
for flag in (1, 2, 4, 0x80):
    refused("preadv2", -1, 0, 0, 0, 0, flag)
    refused("pwritev2", -1, 0, 0, 0, 0, flag)

#: pages given up, merged, made huge or declared broken
import mmap
area = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(area))
for advice in (9, 12, 14, 20, 21, 25, 100, 101):
    refused("madvise", address, 4 << 20, advice)

#: descriptors of its own for each thread (harmless)
refused("close_range", 1000, 2000, 2)

#: renames that swap, or leave a device behind (harmless)
for flag in (2, 4):
    refused("renameat2", -100, b"a", -100, b"b", flag)
""",
    ),
    *attacks(
        "what others feel",
        r"""
#: questions to the list of all processes
import threading
threading.stack_size(1 << 18)
def ask():
    libc = ctypes.CDLL(None)
    while True:
        libc.wait4(-1, 0, 1, 0)
        libc.getpriority(0, 0)
for _ in range(15):
    threading.Thread(target=ask, daemon=True).start()
ask()

#: files renamed without end
import threading
threading.stack_size(1 << 18)
def rename(name):
    try:
        open(name, "w").close()
    except OSError:
        return
    while True:
        os.rename(name, name + "x")
        os.rename(name + "x", name)
for n in range(15):
    threading.Thread(target=rename, args=(f"file{n}",), daemon=True).start()
rename("file")

#: pipes and pairs of sockets, kept by waiting for them
import select, socket, threading
threading.stack_size(1 << 18)
def hold():
    ends = []
    try:
        while True:
            ends += os.pipe() if len(ends) % 4 else [end.detach() for end in socket.socketpair()]
    except OSError:
        pass
    waiting = select.poll()
    for end in ends:
        os.set_blocking(end, False)
        waiting.register(end, select.POLLPRI)
        try:
            while os.write(end, bytes(4096)):
                pass
        except OSError:
            pass
    threading.Timer(0.02, os.closerange, (10, 64)).start()
    waiting.poll(10_000)
for _ in range(8):
    threading.Thread(target=hold, daemon=True).start()
    import time
    time.sleep(0.05)
hold()

#: threads that wait for one another at many addresses
import threading
threading.stack_size(1 << 18)
libc = ctypes.CDLL(None)
words = (ctypes.c_uint32 * 65536)()
def wake():
    n = 0
    while True:
        n = (n + 1) % 65536
        libc.syscall(NUMBERS["futex"], ctypes.byref(words, 4 * n), 129, 100, 0, 0, 0)
for _ in range(15):
    threading.Thread(target=wake, daemon=True).start()
wake()
""",
    ),
)
