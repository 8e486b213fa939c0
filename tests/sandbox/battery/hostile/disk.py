"""Programs that want all of the disk, or flood whoever reads them."""

from sharpen.sandbox.battery import attacks

ATTACKS = tuple(
    attacks(
        "disk and output",
        r"""
#: a large file in the system's folder for temporary files
import tempfile
with tempfile.TemporaryFile() as file:
    total = 0
    while total < 1 << 30:
        total += file.write(bytes(1 << 20))
through("a file of a gigabyte")

#: many middling files
total = 0
for n in range(10000):
    with open(f"file{n}", "wb") as file:
        total += file.write(bytes(100000))
through(f"{total} bytes")

#: a deleted file that is still open
file = open("gone", "wb")
os.unlink("gone")
total = 0
while total < 1 << 30:
    total += os.write(file.fileno(), bytes(1 << 16))
through(total)

#: space reserved
file = open("reserved", "wb")
os.posix_fallocate(file.fileno(), 0, 1 << 30)
through("a gigabyte reserved")

#: a sparse file of a terabyte
file = open("sparse", "wb")
file.truncate(1 << 40)
through("a file of a terabyte")

#: folders in folders
for n in range(100000):
    os.mkdir("d")
    os.chdir("d")
through("100000 folders")

#: links without number
open("one", "w").close()
for n in range(100000):
    os.link("one", f"link{n}")
through("100000 links")

#: symbolic links without number
for n in range(100000):
    os.symlink("x" * 200, f"link{n}")
through("100000 links")

#: a shared memory file
from multiprocessing import shared_memory
shared_memory.SharedMemory(create=True, size=1 << 20)
through("shared memory")

#: output without end
while True:
    print("x" * 10000)

#: errors without end
while True:
    sys.stderr.write("z" * 10000)

#: one very long line
sys.stdout.write("a" * (1 << 28))

#: a large exception
raise ValueError("b" * (1 << 26))

#: results without end
while True:
    os.write(3, b"c" * 65536)

#: both outputs by threads
import threading
def flood(fd):
    while True:
        os.write(fd, b"d" * 65536)
threading.Thread(target=flood, args=(2,), daemon=True).start()
flood(1)

#: byte after byte
while True:
    os.write(1, b"e")
""",
    )
)
