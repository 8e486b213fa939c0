"""Solutions that solve nothing and try to pass: each way of testing. ``tests/sandbox/battery`` has many more."""

from .attack import Attack, attacks

_TEXTS = {
    "forged tests": r"""
#: an exit in the function
import os
def total(numbers):
    os._exit(0)

#: StopIteration raised in the function, which ends a loop over map
def total(numbers):
    raise StopIteration

#: an object equal to everything
class Equal:
    def __eq__(self, other):
        return True
    def __ne__(self, other):
        return False
    __hash__ = object.__hash__
def total(numbers):
    return Equal()

#: frames walked, to find the expected value
import sys
def total(numbers):
    frame = sys._getframe()
    while frame:
        if "expected" in frame.f_locals:
            return frame.f_locals["expected"]
        frame = frame.f_back

#: builtins patched
import builtins
class Never(BaseException):
    pass
builtins.AssertionError = Never
builtins.all = lambda values: True
builtins.isinstance = lambda value, kind: True
builtins.list = builtins.zip = builtins.map = lambda *values: []
def total(numbers):
    return None

#: a verdict written to the results, then the end
import os
body = b'{"tuple":["passed",""]}'
os.write(3, len(body).to_bytes(4, "big") + body)
os._exit(0)

#: answers written ahead of the questions
import os
for _ in range(100):
    os.write(5, b"\x00\x00\x00\x08[true,6]")
def total(numbers):
    return None

#: an answer that raises the end of the tests
import os
def total(numbers):
    body = b'[false,{"message":"","arguments":[0],"classes":["SystemExit"]}]'
    os.write(5, len(body).to_bytes(4, "big") + body)

#: the first expected answer for every question
def total(numbers):
    return 6
""",
    "forged calls": r"""
#: an exit with success
import os
def total(numbers):
    os._exit(0)

#: an object equal to everything
class Equal:
    def __eq__(self, other):
        return True
def total(numbers):
    return Equal()

#: the results written as passed
import os
os.write(3, b"\x00\x00\x00\x04true" * 4)
os._exit(0)

#: more answers than questions
import os
for _ in range(1000):
    os.write(3, b"\x00\x00\x00\x08[true,6]")
def total(numbers):
    return 6
""",
    "forged programs": r"""
#: no output and success
import os
os._exit(0)

#: a printed verdict
print("PASSED")

#: every number
print(*range(-10, 10))

#: the answer and a failure
print("-1", flush=True)
raise ValueError

#: the answer, then no end
print("-1", flush=True)
while True:
    pass
""",
}

FORGED: tuple[Attack, ...] = tuple(attack for group, text in _TEXTS.items() for attack in attacks(group, text))
