"""Ordinary programs, with what each prints under ``#>``: what the filter of system calls must let pass."""

COMPUTING = {
    "numbers and text": """
import decimal, fractions, hashlib, hmac, json, math, pickle, re, statistics, unicodedata, zlib
print(math.comb(10, 3), fractions.Fraction(1, 3) + fractions.Fraction(1, 6), decimal.Decimal("0.1") * 3)
print(statistics.median([5, 1, 3]), re.sub(r"(\\w)(\\d)", r"\\2\\1", "a1b2"), unicodedata.name("é"))
print(hashlib.sha256(b"abc").hexdigest()[:8], hmac.new(b"k", b"m", "md5").hexdigest()[:4], zlib.crc32(b"abc"))
print(pickle.loads(pickle.dumps(json.loads('{"a": [1, 2.5, null]}'))))
#> 120 1/2 0.3
#> 3 1a2b LATIN SMALL LETTER E WITH ACUTE
#> ba7816bf ed7e 891568578
#> {'a': [1, 2.5, None]}
""",
    "time": """
import datetime, random, secrets, time, timeit, uuid, zoneinfo
time.sleep(0.01)
clocks = [time.time, time.monotonic, time.perf_counter, time.process_time, time.thread_time]
print(all(clock() >= 0 for clock in clocks), len(secrets.token_hex(8)), len(str(uuid.uuid4())))
print(datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")).utcoffset())
print(random.Random(1).randrange(1) + len(str(timeit.timeit("1", number=10))) * 0, time.gmtime(0).tm_year)
#> True 16 36
#> 2:00:00
#> 0 1970
""",
    "memory": """
import array, gc, mmap, resource, tracemalloc
tracemalloc.start()
grown = bytearray()
for _ in range(64):
    grown += bytes(1 << 20)
numbers = array.array("q", range(1 << 20))
del grown
gc.collect()
area = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_DONTNEED)
print(sum(numbers), area[5], tracemalloc.get_traced_memory()[1] >> 26, resource.getrlimit(resource.RLIMIT_CORE)[0])
#> 549755289600 0 1 0
""",
    "the C library": """
import ctypes
libc = ctypes.CDLL(None)
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
numbers = (ctypes.c_int * 4)(3, 1, 4, 2)
libc.qsort(numbers, 4, 4, compare(lambda a, b: a[0] - b[0]))
print(list(numbers))
#> [1, 2, 3, 4]
""",
    "threads": """
import concurrent.futures, queue, threading
threading.stack_size(1 << 20)
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(lambda n: n * n, range(100))))
jobs, out, barrier = queue.Queue(), [], threading.Barrier(2)
def work():
    barrier.wait(10)
    out.append(jobs.get(timeout=10))
threading.Thread(target=work).start()
barrier.wait(10)
jobs.put(5)
condition = threading.Condition()
with condition:
    print(condition.wait(0.01), threading.Semaphore(0).acquire(timeout=0.01))
threading.Timer(0.01, lambda: print("late", out)).start()
#> 328350
#> False False
#> late [5]
""",
    "asyncio": """
import asyncio, socket
async def talk():
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    loop = asyncio.get_running_loop()
    writer.write(b"ping\\n")
    await writer.drain()
    theirs.setblocking(False)
    heard = await loop.sock_recv(theirs, 100)
    await loop.sock_sendall(theirs, heard.upper())
    return await reader.readline()
async def main():
    numbers = await asyncio.gather(*(asyncio.sleep(0.01, n) for n in range(3)), asyncio.to_thread(pow, 2, 10))
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)
    except asyncio.TimeoutError:
        print(numbers, await talk())
asyncio.run(main())
#> [0, 1, 2, 1024] b'PING\\n'
""",
    "signals": """
import signal
got = []
for number in (signal.SIGALRM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: got.append(signal.Signals(number).name))
signal.setitimer(signal.ITIMER_REAL, 0.01)
signal.pause()
signal.raise_signal(signal.SIGUSR1)
signal.alarm(1)
print(got, signal.alarm(0), signal.getitimer(signal.ITIMER_REAL))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
signal.raise_signal(signal.SIGUSR2)
print(signal.sigpending(), signal.sigtimedwait([signal.SIGUSR2], 1).si_signo == signal.SIGUSR2)
#> ['SIGALRM', 'SIGUSR1'] 1 (0.0, 0.0)
#> {<Signals.SIGUSR2: 12>} True
""",
    "pipes and waiting": """
import os, select, selectors, socket
reading, writing = os.pipe()
os.set_blocking(reading, False)
poll = select.poll()
poll.register(reading)
chooser = selectors.DefaultSelector()
chooser.register(reading, selectors.EVENT_READ)
print(select.select([reading], [writing], [], 0)[1] == [writing], poll.poll(0), chooser.select(0))
os.writev(writing, [b"ab", b"c"])
print(len(chooser.select(1)), os.read(reading, 10), os.isatty(reading), os.get_inheritable(reading))
ours, theirs = socket.socketpair()
ours.settimeout(5)
theirs.send(b"x" * 10)
print(ours.recv(100), ours.getsockname(), os.dup2(reading, 20), os.closerange(20, 30))
#> True [] []
#> 1 b'abc' False False
#> b'xxxxxxxxxx'  20 None
""",
    "the process": """
import importlib, inspect, logging, multiprocessing, os, platform, sys, traceback, unittest
print(os.getpid() > 0, os.getpgid(0) == os.getpgrp(), len(os.sched_getaffinity(0)) > 0, os.cpu_count() > 0)
print(multiprocessing.cpu_count() > 0, os.times().user >= 0, platform.system(), os.umask(0o22) >= 0)
print(inspect.signature(importlib.import_module("textwrap").fill).parameters["width"].default)
class Case(unittest.TestCase):
    def test(self):
        self.assertEqual(1 + 1, 2)
print(unittest.TextTestRunner(stream=open(os.devnull, "w")).run(Case("test")).wasSuccessful())
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    logging.getLogger().warning("no children")
    print("no children")
#> True True True True
#> True True Linux True
#> 70
#> True
#> no children
""",
}
"""Programs that write no file."""

WRITING = {
    "files": """
import glob, os, pathlib, shutil, tempfile
os.makedirs("a/b", exist_ok=True)
with open("a/b/one", "w+") as file:
    file.write("hello\\n")
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    file.truncate(4)
os.link("a/b/one", "two")
os.symlink("two", "three")
os.replace("two", "four")
print(os.stat("four").st_nlink, os.readlink("three"), os.path.exists("three"), open("four").read())
shutil.copytree("a", "c")
shutil.copy2("four", "c")
shutil.move("c", "d")
os.chmod("four", 0o600)
os.utime("four", (1, 2))
print(sorted(glob.glob("**/*", recursive=True)), int(os.stat("four").st_mtime), pathlib.Path("four").is_file())
with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir=folder) as file:
    print(file.write(b"12345"), os.statvfs(folder).f_bsize)
fd = os.open("five", os.O_RDWR | os.O_CREAT)
print(os.pwritev(fd, [b"ab", b"cd"], 2), os.preadv(fd, [bytearray(3)], 1), os.pread(fd, 3, 3))
os.posix_fallocate(fd, 0, 10)
other = os.open("six", os.O_WRONLY | os.O_CREAT)
print(os.copy_file_range(fd, other, 4, 0), os.path.getsize("five"), os.access("six", os.W_OK))
shutil.rmtree("d")
os.remove("four")
print(sorted(os.listdir()))
#> 2 two False hell
#> ['a', 'a/b', 'a/b/one', 'd', 'd/b', 'd/b/one', 'd/four', 'four', 'three'] 2 True
#> 5 4096
#> 4 3 b'bcd'
#> 4 10 True
#> ['a', 'five', 'six', 'three']
""",
    "formats of files": """
import bz2, configparser, csv, gzip, io, json, lzma, pickle, shelve, tarfile, xml.etree.ElementTree as tree, zipfile
for module in (gzip, bz2, lzma):
    with module.open("packed", "wt") as file:
        file.write("text" * 100)
    with module.open("packed", "rt") as file:
        assert file.read() == "text" * 100
with zipfile.ZipFile("z.zip", "w", zipfile.ZIP_DEFLATED) as file:
    file.writestr("inside", "zip")
with tarfile.open("t.tar.gz", "w:gz") as file:
    file.add("z.zip")
with tarfile.open("t.tar.gz") as file:
    file.extractall("out")
with shelve.open("shelf") as shelf:
    shelf["key"] = [1, 2]
with shelve.open("shelf") as shelf, zipfile.ZipFile("out/z.zip") as file:
    print(shelf["key"], file.read("inside"))
with open("table.csv", "w", newline="") as file:
    csv.writer(file).writerows([["a", 1], ["b", 2]])
print(list(csv.reader(open("table.csv"))), tree.fromstring("<a><b>c</b></a>").find("b").text)
#> [1, 2] b'zip'
#> [['a', '1'], ['b', '2']] c
""",
    "memory that is a file": """
import mmap
open("area", "wb").truncate(8192)
with open("area", "r+b") as file, mmap.mmap(file.fileno(), 0) as area:
    area[4096:4101] = b"hello"
    area.flush()
print(open("area", "rb").read()[4096:4102])
#> b'hello\\x00'
""",
    "locks": """
import fcntl, mailbox
with open("lock", "w") as file:
    print(fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB), fcntl.lockf(file, fcntl.LOCK_UN, 1))
box = mailbox.mbox("box")
box.lock()
box.add("From: a\\n\\ntext")
box.flush()
box.unlock()
print(len(mailbox.mbox("box")))
#> None None
#> 1
""",
    "sqlite": """
import shutil, sqlite3
for level in ("DEFERRED", "IMMEDIATE", "EXCLUSIVE", None):
    with sqlite3.connect(f"{level}.db", isolation_level=level) as base:
        base.execute("create table numbers(n)")
        base.executemany("insert into numbers values (?)", [(n,) for n in range(10)])
    base.close()
    print(level, sqlite3.connect(f"{level}.db").execute("select sum(n) from numbers").fetchone())
one, two = (sqlite3.connect("two.db", timeout=0.01) for _ in range(2))
one.execute("create table numbers(n)")
one.execute("insert into numbers values (1)")
try:
    two.execute("insert into numbers values (2)")
except sqlite3.OperationalError as error:
    print(error)
one.commit()
print(two.execute("select * from numbers").fetchall())
base = sqlite3.connect("log.db")
print(base.execute("pragma journal_mode = wal").fetchone())
base.execute("create table numbers(n)")
base.execute("insert into numbers values (7)")
base.commit()
print(sqlite3.connect("log.db").execute("select * from numbers").fetchall())
# A copy of a base in the middle of a change, as a crash leaves it: its journal says what was there before.
base = sqlite3.connect("DEFERRED.db")
base.execute("pragma cache_size = 1")
base.executemany("insert into numbers values (?)", [("x" * 1000,)] * 100)
for end in ("", "-journal"):
    shutil.copy("DEFERRED.db" + end, "crashed.db" + end)
print(sqlite3.connect("crashed.db").execute("select count(*) from numbers").fetchone())
#> DEFERRED (45,)
#> IMMEDIATE (45,)
#> EXCLUSIVE (45,)
#> None (45,)
#> database is locked
#> [(1,)]
#> ('wal',)
#> [(7,)]
#> (10,)
""",
}
"""Programs that write files, for the level that lets them."""

PACKAGES = {
    "numpy": """
import numpy
a = numpy.arange(12, dtype=float).reshape(3, 4)
print((a @ a.T).tolist(), numpy.linalg.det(numpy.diag([1.0, 2.0, 3.0])))
large = numpy.ones(4 << 20)  # of 32 MiB, for which numpy asks for huge pages
large = numpy.concatenate([large, large])
print(int(large.sum()), int((numpy.ones((600, 600)) @ numpy.ones((600, 600)))[0, 0]))
print(abs(numpy.fft.fft([1, 0, 0, 0])).tolist(), numpy.linalg.solve([[2.0, 0], [0, 4]], [2, 2]).tolist())
print(numpy.sort(numpy.random.default_rng(0).permutation(5)).tolist(), numpy.einsum("ii", numpy.eye(3)))
#> [[14.0, 38.0, 62.0], [38.0, 126.0, 214.0], [62.0, 214.0, 366.0]] 6.0
#> 8388608 600
#> [1.0, 1.0, 1.0, 1.0] [1.0, 0.5]
#> [0, 1, 2, 3, 4] 3.0
""",
    "sympy": """
import sympy
x = sympy.Symbol("x")
print(sympy.solve(x**2 - 5 * x + 6, x), sympy.integrate(x * sympy.cos(x), x), sympy.factor(x**3 - 1))
print(sympy.Matrix([[1, 2], [3, 4]]).inv(), sympy.N(sympy.pi, 20), sympy.lambdify(x, x**2)(3))
#> [2, 3] x*sin(x) + cos(x) (x - 1)*(x**2 + x + 1)
#> Matrix([[-2, 1], [3/2, -1/2]]) 3.1415926535897932385 9
""",
}
WRITING_PACKAGES = {
    "numpy's files": """
import numpy
numpy.save("a.npy", numpy.arange(5))
numpy.savez_compressed("b.npz", x=numpy.eye(2))
written = numpy.memmap("c", dtype="f8", mode="w+", shape=(1000,))
written[:] = 2
written.flush()
print(numpy.load("a.npy", mmap_mode="r").sum(), numpy.load("b.npz")["x"].trace(), numpy.memmap("c", dtype="f8").sum())
#> 10 2.0 2000.0
""",
}
"""The packages are not there in the sandbox; they are run under its filter alone."""


def printed(program: str) -> str:
    """What the program prints, as it says itself."""
    return "".join(line.removeprefix("#> ") + "\n" for line in program.splitlines() if line.startswith("#> "))
