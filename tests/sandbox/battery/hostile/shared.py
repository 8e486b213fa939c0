"""Programs that want to hold, drop or keep busy what all programs of the machine share."""

from sharpen.sandbox.battery import attacks

ATTACKS = tuple(
    attacks(
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
    )
)
