"""What other processes feel of a program is measured, and counts if it is too much."""

import mmap
import os
import sys
import time

import pytest

from sharpen.sandbox import Sandbox
from sharpen.sandbox.battery import PROGRAMS, Attack, Bystander, Felt, check_sandbox
from sharpen.sandbox.battery.bystander import MOST_LEFT_BYTES, MOST_LEFT_FILES, MOST_SLOWDOWN

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

QUIET = Felt(opening=1.0, starting=1.0, taken_bytes=0, left_bytes=0, cached_bytes=0, left_files=0)
# While a process holds a write lease on a file, others wait to open it. To take it, nobody may have the file open.
LEASE = """
import fcntl, signal, time
# Whoever opens the file is announced by a signal, which ends a program that does not ignore it.
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(os.__file__, os.O_RDWR)
until = time.monotonic() + 1
while True:
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        break
    except BlockingIOError:
        if time.monotonic() > until:
            raise
time.sleep(1.4)
"""


def test_whoever_holds_others_up_is_found() -> None:
    if os.getuid() != 0:
        pytest.skip("needs a file of the standard library that it may lease")
    with Sandbox("none", unsafe=True) as sandbox:
        (finding,) = check_sandbox(sandbox, [Attack("g", "lease", LEASE, is_harmless=True)]).findings
    assert finding.felt is not None
    assert finding.felt.opening is not None
    assert finding.felt.opening > MOST_SLOWDOWN, finding
    assert any("times as long to open a file" in words for words in finding.through)


def test_a_sleeping_program_is_not_felt() -> None:
    with Bystander() as bystander:
        _, felt = bystander.during(lambda: time.sleep(1))
        for _ in range(2):
            if felt.breaches:
                _, again = bystander.during(lambda: time.sleep(1))
                felt = felt.milder(again)
    assert felt.breaches == ()
    assert felt.opening is not None
    assert 0 < felt.opening < MOST_SLOWDOWN


def test_kernel_memory_and_open_files_that_stay_are_counted() -> None:
    # A page table of 4 KiB for each page in a range of 2 MiB of its own.
    pages, files = 24_000, MOST_LEFT_FILES + 1000
    area = mmap.mmap(-1, pages << 21, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=mmap.PROT_READ)
    kept: list[mmap.mmap] = []

    def keep() -> None:
        with open(os.__file__, "rb") as file:
            for at in range(0, pages << 21, 1 << 21):
                area[at]
        for _ in range(files):
            with open(os.__file__, "rb") as file:
                kept.append(mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ))

    with Bystander() as bystander:
        _, felt = bystander.during(keep)
    area.close()
    for mapping in kept:
        mapping.close()
    assert felt.left_bytes > max(MOST_LEFT_BYTES, 0.9 * pages * 4096)
    assert felt.left_files > MOST_LEFT_FILES
    assert [words.split()[:2] for words in felt.breaches if words.startswith("it left")] == [["it", "left"]] * 2


def test_only_what_each_trial_shows_counts() -> None:
    one = Felt(opening=9.0, starting=None, taken_bytes=5, left_bytes=100 << 20, cached_bytes=1, left_files=0)
    other = Felt(opening=1.5, starting=8.0, taken_bytes=7, left_bytes=70 << 20, cached_bytes=0, left_files=9000)
    assert one.milder(other) == Felt(
        opening=1.5, starting=None, taken_bytes=5, left_bytes=70 << 20, cached_bytes=0, left_files=0
    )
    assert one.milder(other).breaches == ("it left 70 MiB of kernel memory",)
    assert one.breaches == ("others needed 9 times as long to open a file", "it left 100 MiB of kernel memory")
    assert QUIET.breaches == ()


def test_of_what_all_share_nothing_is_felt(sandbox: Sandbox) -> None:
    chosen = [attack for attack in PROGRAMS if attack.group == "what others feel"]
    report = check_sandbox(sandbox, chosen)
    assert len(report.findings) == 5
    assert [(finding.attack.name, finding.through) for finding in report.got_through] == []
    worst = report.worst_felt("opening")
    assert worst is not None
    assert worst.felt is not None
    assert worst.felt.opening == max(f.felt.opening for f in report.findings if f.felt and f.felt.opening)
