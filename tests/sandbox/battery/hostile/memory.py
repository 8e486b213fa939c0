"""Programs that want all memory."""

from sharpen.sandbox.battery import attacks

ATTACKS = tuple(
    attacks(
        "memory",
        r"""
#: one large allocation
data = bytearray(64 << 30)
through(len(data))

#: text that doubles
text = "x"
while True:
    text += text

#: a dictionary of long texts
data = {}
while True:
    data[len(data)] = "y" * 1000000

#: mapped memory, page by page
import mmap
held = []
while True:
    area = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, len(area), 4096):
        area[page] = 1
    held.append(area)

#: shared memory by a device (harmless)
import mmap
with open("/dev/zero", "r+b") as file:
    mmap.mmap(file.fileno(), 1 << 20)
through("mapped")

#: swallowed memory errors
held = []
while True:
    try:
        held.append(bytearray(1 << 20))
    except MemoryError:
        pass

#: memory by eight threads
import threading
held = []
def grow():
    while True:
        try:
            held.append(b"z" * (1 << 20))
        except MemoryError:
            pass
for _ in range(8):
    threading.Thread(target=grow, daemon=True).start()
grow()

#: a bomb in a zip stream
import zlib
packed = zlib.compress(bytes(50 << 20), 9)
for _ in range(100):
    packed += packed[:0]
held = [zlib.decompress(packed) for _ in range(1000)]
through(len(held))

#: a bomb in a zip stream, packed twice, as a file
import gzip, io
inner = gzip.compress(bytes(20 << 20))
held = []
while True:
    held.append(gzip.open(io.BytesIO(inner)).read())

#: pipes filled with data
held = []
while True:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    held.append((reading, writing))
    if len(held) > 2000:
        through("thousands of pipes")
        break
    while True:
        try:
            os.write(writing, bytes(65536))
        except BlockingIOError:
            break

#: pipes enlarged
import fcntl
reading, writing = os.pipe()
try:
    fcntl.fcntl(writing, 1031, 1 << 20)
    through("a larger pipe")
except OSError:
    pass

#: memory locked
refused("mlockall", 1)

#: a regular expression of a billion states
import re
re.compile("(a{0,60000}){0,60000}" * 1000)
held = [re.compile("a" * 1000000 + str(n)) for n in range(100000)]

#: a value of a billion laughs
data = ["lol"] * 10
for _ in range(12):
    data = [list(data) for _ in range(10)]
""",
    )
)
