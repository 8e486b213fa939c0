"""The allocator's settings are accepted where there is a glibc, and freed memory then serves the next tensor."""

import os
import platform
import resource
import subprocess
import sys

import pytest

from sharpen.system import memory
from sharpen.system.memory import cpu_memory

FAULTS = """
import resource, torch
from sharpen.system.memory import keep_freed_memory
assert keep_freed_memory()
torch.set_num_threads(1)
def work():
    for _ in range(20):
        torch.ones(16 * 2**20)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_a_freed_tensor_of_64_mib_is_reused_without_new_pages() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    pages_of_one_tensor = 64 * 2**20 // resource.getpagesize()
    assert int(done.stdout) < pages_of_one_tensor / 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from /proc")
def test_the_memory_of_the_machine_is_that_of_the_kernel() -> None:
    found = cpu_memory()
    assert found is not None
    assert 0 < found.available <= found.total <= resource.getpagesize() * os.sysconf("SC_PHYS_PAGES")


def test_a_control_groups_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_limit", lambda: 2**20)
    found = cpu_memory()
    assert found is None or (found.total, found.available) == (2**20, 2**20)
