"""Programs that want to know what is not theirs."""

from sharpen.sandbox.battery import attacks

ATTACKS = tuple(
    attacks(
        "reading",
        r"""
#: the same through a symbolic link
os.symlink(CANARY, "way")
print(open("way").read())

#: the same through a hard link
os.link(CANARY, "way")
print(open("way").read())

#: the same by the way up (harmless)
print(open("/".join([".."] * 20) + CANARY).read())

#: the same from another folder (harmless)
os.chdir(os.path.dirname(CANARY))
print(open(os.path.basename(CANARY)).read())

#: the same by openat2
refused("openat2", -100, CANARY.encode(), 0, 24)

#: the same copied by the kernel (harmless)
source = os.open(CANARY, os.O_RDONLY)
os.sendfile(1, source, 0, 1000)

#: the list of users (harmless)
text = open("/etc/passwd").read()
through(text[:20])

#: passwords (harmless)
for path in ("/etc/shadow", "/etc/gshadow", "/etc/sudoers"):
    try:
        through(open(path).read(10))
    except OSError as error:
        print(error)

#: the host's name and network (harmless)
for path in ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id"):
    try:
        through(open(path).read(10))
    except OSError as error:
        print(error)

#: its environment in memory (harmless)
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
environ = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
n = 0
while environ[n]:
    print(environ[n])
    n += 1

#: its own process (harmless)
for name in ("environ", "cmdline", "maps", "status", "mountinfo"):
    try:
        print(open(f"/proc/self/{name}").read())
        through(name)
    except OSError as error:
        print(error)

#: the trainer's process (harmless)
for name in ("environ", "cmdline", "maps", "status", "fd", "cwd"):
    try:
        path = f"/proc/{TRAINER}/{name}"
        print(os.listdir(path) if name in ("fd", "cwd") else open(path).read())
        through(name)
    except OSError as error:
        print(error)

#: memory of another process of the user (harmless)
print(open(f"/proc/{VICTIM}/mem", "rb").seek(4096))
through("memory opened")

#: home folders (harmless)
for path in {"/root", "/home", os.path.expanduser("~")} - {"/"}:
    try:
        found = os.listdir(path)
        if [name for name in found if not name.startswith(".pyenv")]:
            through(found)
    except OSError as error:
        print(error)

#: the folders of the machine (harmless)
for path in ("/etc", "/var", "/proc", "/sys", "/run", "/opt", "/srv", "/mnt", "/boot", "/var/log"):
    try:
        through(f"{path}: {os.listdir(path)[:3]}")
    except OSError as error:
        print(error)

#: an installed package, imported (harmless)
for name in ("sharpen", "numpy", "torch", "pip", "setuptools"):
    try:
        __import__(name)
        through(name)
    except ImportError as error:
        print(error)

#: devices (harmless)
for path in ("/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/tty", "/dev/console", "/dev/kvm"):
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        through(path)
    except OSError as error:
        print(error)

#: objects that the sandbox left in memory
import gc
for held in gc.get_objects():
    if isinstance(held, dict) and "tests" in held and "preamble" in held and isinstance(held["tests"], str):
        through("tests")

#: the command line of its interpreter
if any("TRAINER" in part for part in sys.orig_argv):
    through(sys.orig_argv)

#: another process's descriptors, by system call
refused("pidfd_open", VICTIM, 0)
refused("pidfd_getfd", 3, 0, 0)

#: what other processes do to files
refused("inotify_init1", 0)
refused("fanotify_init", 0, 0)

#: the kernel's log
refused("syslog", 3, 0, 0)

#: the list of mounts
refused("listmount", 0, 0, 0, 0)
refused("statmount", 0, 0, 0, 0)
""",
    )
)
