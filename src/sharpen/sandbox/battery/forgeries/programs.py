"""Programs whose output is compared."""

from sharpen.sandbox.battery.attack import attacks

FORGED = tuple(
    attacks(
        "forged programs",
        r"""
#: no output and success
import os
os._exit(0)

#: a printed verdict
print("PASSED")

#: part of the output
print("-")

#: the answer and more
print("-1")
print("-1")

#: every number
print(*range(-10, 10))

#: the answer in the errors
import sys
print("-1", file=sys.stderr)

#: the answer and a failure
print("-1", flush=True)
raise ValueError

#: the answer, then no end
print("-1", flush=True)
while True:
    pass

#: the answer as a result
import os
os.write(3, b"\x00\x00\x00\x02-1")
""",
    )
)
