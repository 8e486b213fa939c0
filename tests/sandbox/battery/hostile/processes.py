"""Programs that want to be more than one process, or another program."""

from sharpen.sandbox.battery import attacks

ATTACKS = tuple(
    attacks(
        "processes",
        r"""
#: fork by its number (harmless)
result, error = raw("fork")
if result == 0:
    os._exit(0)
if result > 0 or error not in (1, 38):
    through(f"forked: errno {error}")

#: vfork through the C library (harmless)
libc = ctypes.CDLL(None, use_errno=True)
pid = libc.vfork()
if pid == 0:
    os._exit(0)
if pid > 0:
    through("forked")

#: clone of a process by its number (harmless)
result, error = raw("clone", 17, 0, 0, 0, 0)
if result == 0:
    os._exit(0)
if result > 0 or error not in (1, 38):
    through(f"cloned: errno {error}")

#: clone that shares memory but is no thread
result, error = raw("clone", 0x100 | 0x4000 | 17, 0, 0, 0, 0)
if result == 0:
    ctypes.CDLL(None)._exit(0)
if result > 0 or error not in (1, 38):
    through(f"cloned: errno {error}")

#: clone of a thread into a new user namespace
result, error = raw("clone", 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x10000000, 0, 0, 0, 0)
if result >= 0 or error not in (1, 38):
    through(f"cloned: errno {error}")

#: clone3 by its number (harmless)
arguments = (ctypes.c_uint64 * 11)()
arguments[4] = 17
result, error = raw("clone3", arguments, 88)
if result == 0:
    os._exit(0)
if result > 0 or error not in (1, 38):
    through(f"cloned: errno {error}")

#: fork bomb by every call that makes a process
while True:
    for name, arguments in (("fork", ()), ("vfork", ()), ("clone", (17, 0, 0, 0, 0)), ("clone3", (0, 0))):
        result, error = raw(name, *arguments)
        if result >= 0:
            os.write(1, b"THROUGH")
            os._exit(0)

#: subprocess (harmless)
import subprocess
subprocess.run([sys.executable or "/usr/bin/python3", "-c", "0"], check=True)
through("a program was started")

#: os.popen of the environment (harmless)
with os.popen("env; id") as pipe:
    text = pipe.read()
if text:
    through(text)

#: posix_spawn (harmless)
os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
through("a program was started")

#: exec of the dynamic loader (harmless)
for loader in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"):
    try:
        os.execv(loader, [loader, "/bin/echo", "THROUGH"])
    except OSError as error:
        print(error)

#: exec of a file that it wrote itself
for place in (".", OUTSIDE):
    path = os.path.join(place, "own")
    with open(path, "w") as file:
        file.write("#!/bin/sh\necho THROUGH\n")
    os.chmod(path, 0o755)
    os.execv(path, ["own"])

#: execveat of a descriptor
refused("execveat", 0, b"", 0, 0, 0x1000)

#: multiprocessing (harmless)
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=print)
process.start()
process.join()
through("a process was started")

#: a pseudo terminal with a shell (harmless)
import pty
if pty.fork()[0] == 0:
    os._exit(0)
through("forked")

#: thread bomb whose threads start threads
import _thread, time
started = []
def more():
    started.append(1)
    for _ in range(100):
        try:
            _thread.start_new_thread(more, ())
        except RuntimeError:
            pass
    time.sleep(30)
try:
    more_of_it = [_thread.start_new_thread(more, ()) for _ in range(10)]
except RuntimeError:
    pass
time.sleep(0.5)
if len(started) > 200:
    through(f"{len(started)} threads")
os._exit(0)
""",
    )
)
