"""What a sandboxed run costs, beside a bare interpreter in the same minute; and whether many runs leave anything over.

python benchmarks/sandbox.py
python benchmarks/sandbox.py --leftovers 10000
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sharpen.sandbox import Limits, Sandbox, SandboxError, Status

PROGRAM = "print(6 * 7)"
FUNCTION = "def f(n):\n    return n * n\n"
ASSERTS = "assert f(3) == 9\nassert f(-2) == 4\n"
MIXED = (
    ("print(1)", Status.OK),
    ("1 / 0", Status.ERROR),
    ("import os; os._exit(7)", Status.ERROR),
    ("import ctypes; ctypes.string_at(0)", Status.KILLED),
    ("print('x' * 10**6)", Status.OUTPUT),
    ("x = bytearray(1 << 40)", Status.MEMORY),
    ("import time; time.sleep(9)", Status.TIMEOUT),
    ("import threading, time; threading.Thread(target=time.sleep, args=(9,), daemon=True).start()", Status.OK),
    ("import json, sys; sys.stdin.read(); print(json.dumps([1]))", Status.OK),
    ("import os\ntry:\n    os.fork()\nexcept OSError:\n    pass", Status.OK),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="runs of each kind")
    parser.add_argument("--leftovers", type=int, metavar="N", help="instead: N mixed runs, then what is left of them")
    given = parser.parse_args()
    for level in ("namespaces", "landlock"):
        with Sandbox(level) as sandbox:
            try:
                sandbox.run("")
            except SandboxError as error:
                print(f"{level}: {error}")
                continue
            if given.leftovers:
                leftovers(sandbox, given.leftovers)
            else:
                times(sandbox, given.runs)


def times(sandbox: Sandbox, runs: int) -> None:
    """One after the other in turn with the bare interpreter, so that both meet the same load; then two at a time."""

    def bare() -> None:
        subprocess.run([sys.executable, "-I", "-S", "-c", PROGRAM], check=True, capture_output=True)

    kinds: dict[str, Callable[[], object]] = {
        "bare python -I -S": bare,
        "run": lambda: sandbox.run(PROGRAM),
        "call, 10 calls": lambda: sandbox.call(FUNCTION, "f", [[n] for n in range(10)]),
        "check, 2 asserts": lambda: sandbox.check(ASSERTS, FUNCTION, entry_point="f"),
    }
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(runs):
        for kind, work in kinds.items():
            started = time.perf_counter()
            work()
            taken[kind].append(time.perf_counter() - started)
    print(f"\n{sandbox.isolation}, {os.cpu_count()} processors, {runs} runs of each, one at a time and in turn")
    base = statistics.median(taken["bare python -I -S"])
    for kind, seconds in taken.items():
        ordered = sorted(seconds)
        median, high = statistics.median(ordered), ordered[int(0.95 * len(ordered))]
        print(f"  {kind:20} median {median * 1e3:6.1f} ms   95 % {high * 1e3:6.1f} ms   × bare {median / base:.2f}")
    for kind in kinds:
        print(f"  {kind:20} two at a time {per_second(kinds[kind], runs):6.0f} runs/s")


def per_second(work: Callable[[], object], runs: int) -> float:
    with ThreadPoolExecutor(2) as pool:
        started = time.perf_counter()
        for future in [pool.submit(work) for _ in range(runs)]:
            future.result()
        return runs / (time.perf_counter() - started)


def leftovers(sandbox: Sandbox, runs: int) -> None:
    """Programs that end in every way, two at a time. Exits with 1 if anything is left, or one ended in another way."""
    limits = Limits(wall_s=0.2, output_bytes=1000, memory_bytes=256 << 20)
    patient = Limits(output_bytes=1000, memory_bytes=256 << 20)

    def work(n: int) -> tuple[str, Status, Status]:
        if n % 25 == 24:
            passed = sandbox.check(ASSERTS, FUNCTION, entry_point="f").passed
            return "check", Status.OK, Status.OK if passed else Status.ERROR
        source, expected = MIXED[n % len(MIXED)]
        return source, expected, sandbox.run(source, limits=limits if expected is Status.TIMEOUT else patient).status

    def state() -> tuple[set[int], set[str], set[str]]:
        return descendants(), set(os.listdir("/proc/self/fd")), set(Path("/proc/self/mounts").read_text().splitlines())

    before = state()
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(work, range(runs)))
    took_s = time.perf_counter() - started
    time.sleep(2)
    left = [sorted(map(str, now - then)) for now, then in zip(state(), before, strict=True)]
    other = [line for line in ended if line[1] is not line[2]]
    print(f"{sandbox.isolation}: {runs} mixed runs in {took_s:.0f} s ({runs / took_s:.0f} runs/s)")
    print(f"  left over: processes {left[0]}, descriptors {left[1]}, mounts {left[2]}")
    print(f"  ended in another way than expected: {len(other)} {other[:3]}")
    if any(left) or other:
        sys.exit(1)


def descendants() -> set[int]:
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found: set[int] = set()
    level = {os.getpid()}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level} - found
        found |= level
    return found


if __name__ == "__main__":
    main()
