"""Functions that are called with arguments, and their values compared."""

from sharpen.sandbox.battery import attacks

FORGED = tuple(
    attacks(
        "forged calls",
        r"""
#: an exit after the first answers
import os
count = 0
def total(numbers):
    global count
    count += 1
    if count > 3:
        os._exit(0)
    return sum(numbers)

#: a number equal to everything
class Equal(int):
    def __eq__(self, other):
        return True
def total(numbers):
    return Equal(5)

#: numbers of another type
def total(numbers):
    return float(sum(numbers))

#: all answers at once
def total(numbers):
    return [6, 0, 4, 7]

#: an exception with the answer in it
def total(numbers):
    raise ValueError(sum(numbers))

#: hashes that collide
import os
body = ('[true,{"set":[' + ",".join(str(n * (2**61 - 1)) for n in range(1, 3)) + "]}]").encode()
big = ",".join('{"int":"%x"}' % (n * (2**61 - 1)) for n in range(1, 20000))
body = ('[true,{"set":[' + big + "]}]").encode()
os.write(3, len(body).to_bytes(4, "big"))
while body:
    body = body[os.write(3, body):]
os._exit(0)
""",
    )
)
