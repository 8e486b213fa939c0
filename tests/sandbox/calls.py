"""Which system calls ordinary programs make under the filter.

    python tests/sandbox/calls.py

runs those of `everyday.py` under the filter and `strace`. Of every call that is allowed it says which programs make it,
then which calls were refused to them.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from everyday import COMPUTING, PACKAGES, WRITING, WRITING_PACKAGES, printed

import sharpen.sandbox
from sharpen.sandbox.inside.syscalls import ALLOWED, CHECKED, DONE, METADATA, numbers

_UNDER_THE_FILTER = """
import os, sys
from sharpen.sandbox.inside import linux, seccomp
own_files, source = sys.argv[1] == "own", sys.argv[2]
linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
seccomp.install(seccomp.program(os.getpid(), own_files=own_files))
exec(compile(source, "program.py", "exec"), {"__name__": "__main__"})
"""


def run_under_the_filter(
    program: str, folder: Path, *, own_files: bool, tracer: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program with the machine's files, and the filter of a level that does or does not let it write its own."""
    command = [*tracer, sys.executable, "-B", "-c", _UNDER_THE_FILTER, "own" if own_files else "no", program]
    home = Path(sharpen.sandbox.__file__).parents[2]
    environment = {"PYTHONPATH": str(home), "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def made(program: str, own_files: bool) -> Iterator[tuple[str, bool]]:
    """The calls that a program makes once it is under the filter, each with whether it was refused."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        (Path(folder) / "work").mkdir()
        tracer = ("strace", "-f", "-qq", "-e", "signal=none", "-o", str(trace))
        done = run_under_the_filter(program, Path(folder) / "work", own_files=own_files, tracer=tracer)
        if done.stdout != printed(program):
            sys.exit(f"{done.stdout}{done.stderr}")
        _, _, after = trace.read_text().partition("SECCOMP_SET_MODE_FILTER")
        for name, rest in re.findall(r"^\d+ +(\w+)\((.*)", after, re.MULTILINE):
            yield name, "EPERM" in rest


def main() -> None:
    by: dict[str, set[str]] = {}
    refused: dict[str, set[str]] = {}
    programs = {**COMPUTING, **WRITING, **PACKAGES, **WRITING_PACKAGES}
    for title, program in programs.items():
        for name, was_refused in made(program, own_files=True):
            (refused if was_refused else by).setdefault(name, set()).add(title)
    known = numbers()
    allowed = [name for name in (*ALLOWED, *METADATA, *CHECKED, *DONE) if name in known]
    lines = [f"{name:24} {', '.join(sorted(by.get(name, ()))) or '-'}" for name in allowed]
    lines += [f"refused: {name:15} {', '.join(sorted(titles))}" for name, titles in refused.items()]
    used = sum(name in by for name in allowed)
    lines.append(f"{len(allowed)} calls are allowed; {len(programs)} programs make {used} of them")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
