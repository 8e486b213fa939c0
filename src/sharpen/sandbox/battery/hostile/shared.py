"""Programs that want to hold, drop or keep busy what all programs of the machine share."""

from sharpen.sandbox.battery.attack import attacks

ATTACKS = tuple(
    attacks(
        "what all share",
        r"""
#: record locks on a file that everybody opens (harmless)
not_made("fcntl", -1, 6, 0)
not_made("fcntl", -1, 7, 0)

#: locks of open files (harmless)
for command in (36, 37, 38):
    refused("fcntl", 0, command, 0)

#: the disk's cache flushed by a file that it may only read (harmless)
not_made("fsync", -1)
not_made("fdatasync", -1)
not_made("msync", 1, 4096, 4)

#: a library dropped from the kernel's cache (harmless)
not_made("fadvise64", -1, 0, 0, 4)

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

#: the machine's stock of huge pages (harmless)
refused("mmap", 0, 2 << 20, 3, 0x22 | 0x40000, -1, 0)
refused("mmap", 0, 4096, 3, 0x22 | 0x2000, -1, 0)

#: a barrier on every processor (harmless)
for command in (1, 2, 8):
    refused("membarrier", command, 0, 0)

#: descriptors of its own for each thread (harmless)
refused("close_range", 1000, 2000, 2)

#: renames that swap, or leave a device behind (harmless)
for flag in (2, 4):
    refused("renameat2", -100, b"a", -100, b"b", flag)
""",
    )
)
