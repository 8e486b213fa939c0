"""Runs what is tested by Triton's interpreter, in a process in which Triton is told so before it is imported."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton has no build for this system")
def test_the_kernel_as_the_interpreter_runs_it() -> None:
    without = ["-p", "no:cacheprovider", "-p", "no:xdist"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *without, HERE / "interpreted_kernel.py"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # A point for each test that passed.
    assert "....." in ended.stdout
