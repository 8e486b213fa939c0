"""What the tests need to know of the machine, and how to act as an ordinary user on it."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import sharpen.sandbox

NOBODY = 65534


def children(pid: int) -> set[int]:
    """All descendants of a process."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found: set[int] = set()
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level} - found
        found |= level
    return found


def interpreter_for_nobody() -> str | None:
    """A Python that a user without any rights can start; None if there is none."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        probe = "import sys; sys.exit(sys.version_info < (3, 11))"
        try:
            if (
                subprocess.run([python, "-c", probe], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/").returncode
                == 0
            ):
                return python
        except OSError:
            continue
    return None


def copy_alone(folder: Path) -> Path:
    """The sandbox with nothing of the rest of the package, where anyone may read it."""
    home = Path(sharpen.sandbox.__file__).parent
    shutil.copytree(home, folder / "sharpen" / "sandbox", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "sharpen" / "__init__.py").write_text("")
    make_readable(folder)
    return folder


def make_readable(folder: Path) -> None:
    """Let every user read a folder and all that is in it."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def run_as_nobody(python: str, folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a user without any rights, with the copy of the sandbox to import."""
    return subprocess.run(
        [python, "-B", "-c", textwrap.dedent(source)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env={"PYTHONPATH": str(folder), "PATH": os.environ["PATH"]},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
    )
