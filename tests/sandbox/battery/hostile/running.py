"""Programs that want to run for ever."""

from sharpen.sandbox.battery import attacks

ATTACKS = tuple(
    attacks(
        "running on",
        r"""
#: a long sleep
import time
time.sleep(1000000)

#: a sleep that starts again after every exception
import time
while True:
    try:
        time.sleep(1000)
    except BaseException:
        pass

#: an endless loop in which every exception is swallowed
def again():
    try:
        while True:
            pass
    except BaseException:
        again()
    finally:
        again()
again()

#: a regular expression that backtracks
import re
re.match(r"(a+)+$", "a" * 64 + "b")

#: a power of powers
9 ** 9 ** 9 ** 9

#: a number written out
import sys
sys.set_int_max_str_digits(0)
len(str(7 ** (1 << 26)))

#: a sum of a trillion numbers
sum(range(10 ** 12))

#: an iterator without end
import itertools
all(itertools.count(1))

#: recursion without end
def deeper(n):
    return deeper(n + 1) + 1
deeper(0)

#: recursion without end and without a limit
import sys
sys.setrecursionlimit(10 ** 9)
def deeper(n):
    return deeper(n + 1) + 1
deeper(0)

#: recursion inside the interpreter
sys.setrecursionlimit(10 ** 9)
class Deep:
    def __repr__(self):
        return repr(self)
    __str__ = __repr__
str(Deep())

#: a comparison that calls itself
sys.setrecursionlimit(10 ** 9)
a = []
a.append(a)
b = []
b.append(b)
a == b

#: every signal blocked
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True:
    pass

#: a handler for the end of processor time
import signal
signal.signal(signal.SIGXCPU, lambda *_: None)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.signal(signal.SIGTERM, lambda *_: None)
while True:
    pass

#: threads that hold each other up
import threading
lock = threading.Lock()
lock.acquire()
lock.acquire()

#: a thread that the end waits for
import threading, time
threading.Thread(target=lambda: time.sleep(10 ** 6)).start()

#: four threads at full speed
import threading
def spin():
    while True:
        pass
for _ in range(4):
    threading.Thread(target=spin).start()

#: an exit function without end
import atexit
@atexit.register
def never():
    while True:
        pass

#: a destructor without end
class Late:
    def __del__(self):
        while True:
            pass
late = Late()
del late

#: a generator that refuses to close
def stubborn():
    while True:
        try:
            yield 1
        except GeneratorExit:
            while True:
                pass
generator = stubborn()
next(generator)
generator.close()

#: a closed output and a long life
import time
for fd in (0, 1, 2, 3):
    os.close(fd)
while True:
    time.sleep(1)

#: a little output again and again, so that it never seems to hang
import time
while True:
    os.write(1, b".")
    os.write(2, b".")
    time.sleep(0.0001)

#: a little output of its results again and again
import time
while True:
    os.write(3, b".")
    time.sleep(0.01)

#: waiting for input that does not come
sys.stdin.read()
import time
time.sleep(10 ** 6)

#: sorting with a key that never ends
sorted([1, 2], key=lambda x: [x for _ in iter(int, 1)])

#: a hash table of equal hashes
class Same:
    def __hash__(self):
        return 1
    def __eq__(self, other):
        return self is other
data = {Same(): None for _ in range(10 ** 6)}

#: its own timer, again and again
import signal, time
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while True:
    time.sleep(10)
""",
    )
)
