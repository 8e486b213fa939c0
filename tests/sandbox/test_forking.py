"""A process that is born in a cgroup is as `os.fork` would have made it."""

import subprocess
import sys
from pathlib import Path

import pytest

from sharpen.sandbox.cgroups.delegated import NoCgroup, _cgroup_of_process

SOURCE = """
import ctypes, os, random, signal, sys
from sharpen.sandbox.inside import forking

folder = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
random.seed(7)
parent = os.getpid()
address = forking._tid_address()
read, write = os.pipe()
try:
    pid = forking._fork_into(folder)
except OSError as error:
    sys.exit(f"refused: {error}")
if pid == 0:
    kept = ctypes.c_int.from_address(address).value if address else os.getpid()
    os.write(write, f"{os.getppid() == parent} {kept == os.getpid()} {random.random()}".encode())
    os._exit(23)
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status), os.read(read, 100).decode(), random.random())
"""


def test_its_parent_its_ids_and_its_random_numbers_are_its_own() -> None:
    try:
        folder = _cgroup_of_process(Path("/proc")).path
    except NoCgroup as error:
        pytest.skip(str(error))
    done = subprocess.run([sys.executable, "-c", SOURCE, str(folder)], capture_output=True, text=True, timeout=60)
    if done.stderr.startswith("refused: "):
        pytest.skip(done.stderr)
    code, is_child, is_renewed, childs, ours = done.stdout.split()
    assert (code, is_child, is_renewed) == ("23", "True", "True"), done.stderr
    assert float(ours) == 0.32383276483316237  # the first of seed 7: random seeds a child anew, and not its parent
    assert childs != ours


def test_a_folder_that_is_no_cgroup_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SOURCE, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert "refused: [Errno" in done.stderr
    assert "clone3: " in done.stderr
