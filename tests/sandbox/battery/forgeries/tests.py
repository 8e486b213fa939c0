"""Candidates for tests written as code."""

from sharpen.sandbox.battery import attacks

FORGED = tuple(
    attacks(
        "forged tests",
        r"""
#: an exit before anything is defined
import os
os._exit(0)

#: sys.exit before anything is defined
import sys
sys.exit(0)

#: sys.exit in the function
import sys
def total(numbers):
    sys.exit(0)

#: SystemExit raised in the function
def total(numbers):
    raise SystemExit(0)

#: KeyboardInterrupt raised in the function
def total(numbers):
    raise KeyboardInterrupt

#: GeneratorExit raised in the function
def total(numbers):
    raise GeneratorExit

#: an exception of a class called StopIteration
class StopIteration(Exception):
    pass
def total(numbers):
    raise StopIteration

#: TypeError for everything, since one is expected
def total(numbers):
    raise TypeError

#: an exit function that exits with success
import atexit, os
atexit.register(os._exit, 0)
def total(numbers):
    return 1

#: a number equal to everything
class Equal(int):
    def __eq__(self, other):
        return True
def total(numbers):
    return Equal(0)

#: a text equal to everything
class Equal(str):
    def __eq__(self, other):
        return True
def total(numbers):
    return Equal("6")

#: a list equal to everything
class Equal(list):
    def __eq__(self, other):
        return True
def total(numbers):
    return Equal()

#: a class whose instances are all instances
class Meta(type):
    def __instancecheck__(cls, other):
        return True
    def __eq__(cls, other):
        return True
    __hash__ = type.__hash__
class Any(metaclass=Meta):
    pass
def total(numbers):
    return Any

#: the ANY of unittest
from unittest.mock import ANY
def total(numbers):
    return ANY

#: a mock
from unittest.mock import MagicMock
def total(numbers):
    return MagicMock(__eq__=lambda self, other: True)

#: an object that claims to be an int
class Claims:
    @property
    def __class__(self):
        return int
    def __index__(self):
        return 6
    def __eq__(self, other):
        return True
def total(numbers):
    return Claims()

#: not a number
def total(numbers):
    return float("nan")

#: truth
def total(numbers):
    return True

#: nothing
def total(numbers):
    return None

#: an iterator
def total(numbers):
    return iter([6, 0, 4, 11])

#: itself
def total(numbers):
    return total

#: frames walked, to change what the tests expect
import sys
def total(numbers):
    frame = sys._getframe()
    while frame:
        for name in ("expected", "value", "candidate"):
            frame.f_locals[name] = None
            frame.f_globals[name] = None
        frame = frame.f_back
    return None

#: exec and compile patched
import builtins
builtins.exec = builtins.compile = lambda *a, **k: None
def total(numbers):
    return None

#: a trace function that skips asserts
import sys
def trace(frame, event, argument):
    if event == "line":
        frame.f_lineno = frame.f_lineno + 1
    return trace
sys.settrace(trace)
def total(numbers):
    return None

#: the tests' modules replaced
import sys, types
for name in ("tests", "__main__", "unittest", "pytest", "solution"):
    sys.modules[name] = types.SimpleNamespace(check=lambda f: None, main=lambda: None)
def total(numbers):
    return None

#: the harness replaced
import sys, types
for module in list(sys.modules.values()):
    if "sandbox" in getattr(module, "__name__", ""):
        for name, value in list(vars(module).items()):
            if isinstance(value, types.FunctionType):
                setattr(module, name, lambda *a, **k: b"[true,6]")
def total(numbers):
    return None

#: the function called check redefined
def check(candidate):
    return None
def total(numbers):
    return None

#: a verdict printed
import sys
print("passed", "OK", "PASSED", '["passed",""]', flush=True)
print("1 passed in 0.01s", file=sys.stderr, flush=True)
def total(numbers):
    return None

#: a verdict written to every descriptor
import os
def total(numbers):
    return None
for body in (b'["passed",""]', b'{"tuple":["passed",""]}', b"[true,6]"):
    for fd in range(1, 64):
        try:
            os.set_blocking(fd, False)
            os.write(fd, len(body).to_bytes(4, "big") + body)
        except OSError:
            pass

#: answers by a thread
import os, threading
def answer():
    while True:
        os.write(5, b"\x00\x00\x00\x08[true,6]")
threading.Thread(target=answer, daemon=True).start()
def total(numbers):
    return None

#: an answer that is far too long
import os
os.write(5, b"\xff\xff\xff\xff" + b"x" * 1000)
def total(numbers):
    return None

#: an answer nested too deep
import os
def total(numbers):
    body = b"[" * 100000
    os.write(5, len(body).to_bytes(4, "big") + body)

#: an answer that is no plain data
import os
def total(numbers):
    body = b'[true,{"object":"anything"}]'
    os.write(5, len(body).to_bytes(4, "big") + body)

#: an answer that raises what is no exception
import os
def total(numbers):
    body = b'[false,{"message":"","arguments":[],"classes":["int","print"]}]'
    os.write(5, len(body).to_bytes(4, "big") + body)

#: an answer that raises two classes, one of which would end the tests
import os
def total(numbers):
    body = b'[false,{"message":"","arguments":[0],"classes":["SystemExit","Exception"]}]'
    os.write(5, len(body).to_bytes(4, "big") + body)

#: an answer that says neither
import os
def total(numbers):
    body = b'["passed",""]'
    os.write(5, len(body).to_bytes(4, "big") + body)

#: the connection closed
import os
def total(numbers):
    os.close(4)
    os.close(5)

#: every descriptor closed
import os
os.closerange(0, 64)

#: the end of the tests' process
import os, signal
def total(numbers):
    for pid in [os.getppid(), *range(1, 100)]:
        if pid != os.getpid():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
    return None

#: a process that goes on alone
import os
def total(numbers):
    if os.fork() == 0:
        return 6
    os._exit(0)

#: an abort
import os
os.abort()

#: a crash in the function
import ctypes
def total(numbers):
    ctypes.string_at(0)

#: time that runs out
def total(numbers):
    while True:
        pass

#: memory that runs out
def total(numbers):
    held = []
    while True:
        held.append(bytearray(1 << 20))

#: the tests read from where they may lie
import glob, inspect, linecache
def total(numbers):
    for name in ["tests.py", *glob.glob("/proc/*/cmdline"), *glob.glob("**/*.py")]:
        for line in linecache.getlines(name):
            if "assert" in line:
                return int(line.split("==")[1])
    return None

#: the length instead
def total(numbers):
    return len(numbers) * 2

#: right for the first questions only
answers = [6, 0, 4]
def total(numbers):
    return answers.pop(0)

#: no function of that name
def sum_of(numbers):
    return sum(numbers)

#: source that does not compile
def total(numbers:
    return sum(numbers)

#: nothing at all
pass
""",
    )
)
