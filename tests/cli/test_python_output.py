"""What Python writes by itself is shown, and obeyed by no terminal."""

import subprocess
import sys

CODE = r"""
import logging
from sharpen.cli.python_output import make_python_output_printable
make_python_output_printable()
logging.basicConfig()
try:
    raise ValueError("\x1b]52;c;bG9n\x07")
except ValueError:
    logging.exception("a\x1b[2Jb", stack_info=True)
class Dying:
    def __del__(self):
        raise ValueError("\x1b[31mdying")
made = Dying()
del made
"""


def test_exceptions_that_are_logged_and_those_that_nothing_can_catch_are_printable() -> None:
    shown = subprocess.run([sys.executable, "-c", CODE], capture_output=True, check=True, timeout=120).stderr
    assert set(shown) & {*range(9), *range(11, 32), 127} == set()
    text = shown.decode()
    assert r"ValueError: \x1b]52;c;bG9n\x07" in text
    assert r"a\x1b[2Jb" in text
    assert r"\x1b[31mdying" in text
