"""What the kernel does with a run's cgroup. Needs a delegated one, as from

systemd-run --user --scope -p Delegate=yes python -m pytest tests/sandbox/test_cgroup_kernel.py
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import sharpen.sandbox
from sharpen.sandbox import Limits, Sandbox, SandboxError, Status

LIMITS = Limits(memory_bytes=64 << 20, files_bytes=1 << 20, wall_s=60, cpu_s=60)

PAGE_TABLES = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
failed = ctypes.c_void_p(-1).value
first, apart = 1 << 40, 2 << 20  # so each page needs a page table: 8 KiB for 4 KiB of address space
for n in range(20000):
    at = libc.mmap(first + n * apart, 4096, 3, 0x22 | 0x100000, -1, 0)
    if at == failed:
        break
    ctypes.memset(at, 1, 1)
print("mapped", flush=True)
"""

SOCKETS = """
import select, socket, threading, time
threading.stack_size(65536)
for _ in range(16):
    pairs = [socket.socketpair() for _ in range(25)]
    poll = select.poll()
    for end in (end for pair in pairs for end in pair):
        end.setblocking(False)
        try:
            while True:
                end.send(bytes(4096))
        except BlockingIOError:
            pass
        poll.register(end, select.POLLPRI)
    # The thread's wait keeps the sockets and what is in them, about 200 KiB each, after their descriptors are closed.
    threading.Thread(target=poll.poll, daemon=True).start()
    time.sleep(0.2)
    for pair in pairs:
        for end in pair:
            end.close()
print("filled", flush=True)
"""


@pytest.fixture(scope="module", params=["namespaces", "landlock"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(request.param) as made:
        try:
            if made.cgroup is None:
                pytest.skip(f"no delegated cgroup: {made.why_no_cgroup}")
        except SandboxError as error:
            pytest.skip(str(error))
        yield made


def cgroup_of(sandbox: Sandbox) -> Path:
    assert sandbox.cgroup is not None
    return sandbox.cgroup


def runs(sandbox: Sandbox) -> list[Path]:
    return list(cgroup_of(sandbox).glob("sharpen-runs-*/[0-9]*/"))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # killed, and not yet reaped
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_run_has_the_limits_in_the_kernel(sandbox: Sandbox) -> None:
    seen: list[dict[str, str]] = []

    def look() -> None:
        until = time.monotonic() + 30
        while not seen and time.monotonic() < until:
            for run in runs(sandbox):
                if (run / "cgroup.procs").read_text().strip():
                    names = ("memory.max", "memory.oom.group", "pids.max", "pids.current")
                    seen.append({name: (run / name).read_text().strip() for name in names})
            time.sleep(0.001)

    watcher = threading.Thread(target=look)
    watcher.start()
    result = sandbox.run("import time; time.sleep(2)", limits=LIMITS)
    watcher.join()
    assert result.status is Status.OK, result.stderr
    expected = {"memory.max": str(65 << 20), "memory.oom.group": "1", "pids.max": "17", "pids.current": "1"}
    assert seen == [expected]
    assert runs(sandbox) == []


@pytest.mark.parametrize(("source", "said"), [(PAGE_TABLES, b"mapped\n"), (SOCKETS, b"filled\n")])
def test_memory_of_the_kernel_counts(sandbox: Sandbox, source: str, said: bytes) -> None:
    assert sandbox.run(source, limits=LIMITS).status is Status.MEMORY
    assert runs(sandbox) == []
    roomy = Limits(memory_bytes=512 << 20, wall_s=60, cpu_s=60)
    result = sandbox.run(source, limits=roomy)
    assert (result.status, result.stdout) == (Status.OK, said), result.stderr


def test_every_kind_of_run_can_end_by_it(sandbox: Sandbox) -> None:
    hungry = f"def f():\n    exec({PAGE_TABLES!r})"
    called = sandbox.call(hungry, "f", [[], []], limits=LIMITS)
    assert (called.result.status, called.outcomes) == (Status.MEMORY, ())
    verdict = sandbox.check("assert f() is None", hungry, entry_point="f", limits=LIMITS)
    assert not verdict.passed
    assert verdict.candidate.status is Status.MEMORY
    assert runs(sandbox) == []


def test_ordinary_programs_end_as_without_a_cgroup(sandbox: Sandbox) -> None:
    limits = Limits(memory_bytes=128 << 20, wall_s=60, cpu_s=60, threads=5)
    result = sandbox.run("data = bytearray(60 << 20)\nprint(len(data))", limits=limits)
    assert (result.status, result.stdout) == (Status.OK, b"62914560\n"), result.stderr
    result = sandbox.run("data = []\nwhile True:\n    data.append(bytearray(1 << 20))", limits=limits)
    assert result.status is Status.MEMORY
    assert b"MemoryError" in result.stderr  # an ordinary exception of the program, not the kernel's kill
    source = """
import threading, time
count = 0
try:
    for _ in range(20):
        threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
        count += 1
except RuntimeError:
    pass
print(count)
"""
    assert sandbox.run(source, limits=limits).stdout == b"5\n"
    assert sandbox.run("import ctypes; ctypes.string_at(0)").status is Status.KILLED


def test_without_isolation_processes_are_limited_and_none_outlives_the_run() -> None:
    with Sandbox("none", unsafe=True) as sandbox:
        if sandbox.cgroup is None:
            pytest.skip(f"no delegated cgroup: {sandbox.why_no_cgroup}")
        source = """
import os, time
pids = []
try:
    while len(pids) < 100:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            time.sleep(600)
        pids.append(pid)
except OSError as error:
    print(len(pids), error.errno)
print(*pids, flush=True)
os._exit(0)
"""
        result = sandbox.run(source, limits=Limits(threads=7, wall_s=60))
        said, pids = result.stdout.decode().splitlines()
        assert said == "7 11"  # EAGAIN; the first process is the eighth
        assert [pid for pid in pids.split() if is_running(int(pid))] == []
        assert runs(sandbox) == []


def test_what_a_killed_trainer_left_is_gone_after_the_next_start(sandbox: Sandbox) -> None:
    source = (
        "import sys\nfrom sharpen.sandbox import Sandbox\nsandbox = Sandbox('namespaces')\n"
        "print(sandbox.cgroup, flush=True)\nsandbox.run('import time; time.sleep(600)')\n"
    )
    home = Path(sharpen.sandbox.__file__).parents[2]
    killed = subprocess.Popen([sys.executable, "-c", source], env={"PYTHONPATH": str(home)}, stdout=subprocess.PIPE)
    assert killed.stdout is not None
    assert killed.stdout.readline().decode().strip() == str(cgroup_of(sandbox))
    until = time.monotonic() + 30
    mine = f"sharpen-runs-{killed.pid}-*"
    while not list(cgroup_of(sandbox).glob(f"{mine}/[0-9]*/")) and time.monotonic() < until:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    assert list(cgroup_of(sandbox).glob(mine))
    with Sandbox("namespaces") as following:
        following.run("")
        assert not list(cgroup_of(sandbox).glob(mine))


def test_a_hundred_runs_leave_nothing(sandbox: Sandbox) -> None:
    before = set(cgroup_of(sandbox).glob("*/"))
    for _ in range(100):
        assert sandbox.run("print(1)").stdout == b"1\n"
    assert runs(sandbox) == []
    assert set(cgroup_of(sandbox).glob("*/")) == before
