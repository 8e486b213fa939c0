"""Programs that want to leave something behind."""

from sharpen.sandbox.battery import attacks

ATTACKS = tuple(
    attacks(
        "writing",
        r"""
#: a folder (harmless)
os.mkdir(os.path.join(OUTSIDE, "left"))

#: a file appended to (harmless)
open(os.path.join(OUTSIDE, "kept"), "a").write("x")

#: a file emptied by opening it (harmless)
os.close(os.open(os.path.join(OUTSIDE, "kept"), os.O_WRONLY | os.O_TRUNC))

#: a file removed (harmless)
os.unlink(os.path.join(OUTSIDE, "kept"))

#: a file renamed (harmless)
os.rename(os.path.join(OUTSIDE, "kept"), os.path.join(OUTSIDE, "other"))

#: a file moved in
open("mine", "w").write("x")
os.rename("mine", os.path.join(OUTSIDE, "mine"))

#: a symbolic link (harmless)
os.symlink("/", os.path.join(OUTSIDE, "left"))

#: a hard link (harmless)
os.link(os.path.join(OUTSIDE, "kept"), os.path.join(OUTSIDE, "left"))

#: a pipe (harmless)
os.mkfifo(os.path.join(OUTSIDE, "left"))

#: a socket (harmless)
import socket
socket.socket(socket.AF_UNIX).bind(os.path.join(OUTSIDE, "left"))

#: a device
os.mknod(os.path.join(OUTSIDE, "left"), 0o20666, os.makedev(1, 8))
through("a device")

#: a file's times (harmless)
os.utime(os.path.join(OUTSIDE, "kept"), (1, 1))

#: a file's owner
refused("fchownat", -100, os.path.join(OUTSIDE, "kept").encode(), 1, 1, 0)

#: a file's attributes
refused("setxattr", os.path.join(OUTSIDE, "kept").encode(), b"user.left", b"x", 1, 0)

#: a file through the way up (harmless)
os.chdir("..")
open("." + os.path.join(OUTSIDE, "left"), "w").write("x")

#: a file through the name of a folder that changes
import threading
stop = []
os.mkdir("real")
def swap():
    while not stop:
        try:
            os.rename("real", "kept-aside")
            os.symlink(OUTSIDE, "real")
            os.unlink("real")
            os.rename("kept-aside", "real")
        except OSError:
            pass
threading.Thread(target=swap, daemon=True).start()
for n in range(2000):
    try:
        open(f"real/left{n % 5}", "w").close()
    except OSError:
        pass
stop.append(1)

#: the standard library's compiled files
import json
folder = os.path.join(os.path.dirname(json.__file__), "__pycache__")
open(os.path.join(folder, "left.pyc"), "w").write("x")
through("a compiled file was left")

#: the standard library's modes
import json
os.chmod(json.__file__, 0o666)
through("a mode was changed")

#: settings of the kernel
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/self/oom_score_adj", "/proc/self/mem"):
    try:
        os.close(os.open(path, os.O_WRONLY))
        through(path)
    except OSError as error:
        print(error)

#: a lock on a library file, which others would wait for
import json
fd = os.open(json.__file__, os.O_RDONLY)
refused("flock", fd, 2)

#: a control group
for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"):
    try:
        os.mkdir(os.path.join(root, "left-by-a-program"))
        through(root)
    except OSError as error:
        print(error)

#: a core dump
import resource
resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
through("core dumps")
""",
    )
)
