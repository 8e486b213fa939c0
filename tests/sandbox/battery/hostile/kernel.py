"""Programs that want more rights, or a part of the kernel that few programs need."""

from sharpen.sandbox.battery import attacks

ATTACKS = tuple(
    attacks(
        "the kernel",
        r"""
#: capabilities
refused("capset", 0, 0)
for option in (8, 24, 28, 47):
    refused("prctl", option, 0, 0, 0, 0)

#: mounts by the newer calls
refused("open_tree", -100, b"/", 1)
refused("move_mount", 0, b"", 0, b"", 0)
refused("fsopen", b"tmpfs", 0)
refused("fsmount", 0, 0, 0)
refused("mount_setattr", -100, b"/", 0, 0, 0)

#: modules and other kernels
refused("init_module", 0, 0, b"")
refused("finit_module", 0, b"", 0)
refused("kexec_load", 0, 0, 0, 0)

#: the machine's end
refused("reboot", 0, 0, 0, 0)
refused("swapon", b"/none", 0)
refused("acct", b"/none")
refused("quotactl", 0, 0, 0, 0)

#: the machine's clock and name
refused("settimeofday", 0, 0)
refused("clock_settime", 0, 0)
refused("adjtimex", 0)
refused("sethostname", b"x", 1)

#: ports of the processor
refused("iopl", 3)
refused("ioperm", 0, 1, 1)
refused("modify_ldt", 0, 0, 0)
refused("personality", 0x40000)

#: timers and descriptors that few need
refused("timer_create", 0, 0, 0)
refused("timerfd_create", 0, 0)
refused("signalfd4", -1, 0, 8, 0)
refused("memfd_secret", 0)

#: pages given to the kernel
refused("splice", 0, 0, 1, 0, 1, 0)
refused("vmsplice", 1, 0, 0, 0)
refused("tee", 0, 1, 1, 0)

#: the places of memory
refused("mbind", 0, 0, 0, 0, 0, 0)
refused("set_mempolicy", 0, 0, 0)

#: a filter of its own, to see the calls of others
refused("seccomp", 1, 8, 0)
refused("prctl", 22, 2, 0, 0, 0)
refused("landlock_create_ruleset", 0, 0, 0)

#: attributes of the process
for option in (1, 3, 4, 10, 14, 22, 23, 26, 35, 36, 38, 41, 59):
    refused("prctl", option, 0, 0, 0, 0)

#: characters typed into the terminal
import fcntl
for request in (0x5412, 0x541C, 0x540E, 0x5401 + (1 << 32)):
    try:
        fcntl.ioctl(0, request, b"x")
        through(hex(request))
    except OverflowError:
        pass
    except OSError as error:
        if error.errno not in (1, 25):
            through(f"{hex(request)}: {error}")

#: signals from descriptors
import fcntl
for command in (8, 10, 1024, 1026):
    try:
        fcntl.fcntl(0, command, VICTIM)
        through(command)
    except OSError as error:
        if error.errno != 1:
            through(f"{command}: {error}")

#: limits raised
import resource
for name in ("CPU", "FSIZE", "NOFILE", "NPROC", "CORE", "MEMLOCK"):
    kind = getattr(resource, "RLIMIT_" + name)
    soft, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY:
        continue
    try:
        resource.setrlimit(kind, (hard + 1, hard + 1))
        through(name)
    except (ValueError, OSError) as error:
        print(error)

#: a fork by the calls of a 32-bit program
import mmap
if os.uname().machine == "x86_64":
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    area = mmap.mmap(-1, 4096, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    area.write(b"\xb8\x02\x00\x00\x00\xcd\x80\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    if result == 0:
        os._exit(0)
    through(result)

#: the calls of the x32 ABI
if os.uname().machine == "x86_64":
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    for number in (39, 57, 41, 512 + 8):
        result = libc.syscall(ctypes.c_long(0x40000000 | number), 2, 1, 0)
        if result >= 0 or ctypes.get_errno() != 38:
            through(f"{number}: {result}")
""",
    )
)
