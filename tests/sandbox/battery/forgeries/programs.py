"""Programs whose output is compared."""

from sharpen.sandbox.battery import attacks

FORGED = tuple(
    attacks(
        "forged programs",
        r"""
#: part of the output
print("-")

#: the answer and more
print("-1")
print("-1")

#: the answer in the errors
import sys
print("-1", file=sys.stderr)

#: the answer as a result
import os
os.write(3, b"\x00\x00\x00\x02-1")
""",
    )
)
