"""The short form of ``python tests/batteries``, which has the whole; `tests/training/test_kills.py` has the kills."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BATTERY = Path(__file__).with_name("batteries")


@pytest.mark.parametrize(
    ("part", "at_least"),
    [("random-kills", 12), ("signals", 12), ("failing-disks", 60), ("small-disks", 0), ("processes", 11)],
)
def test_a_run_survives_what_is_promised(part: str, at_least: int) -> None:
    # In a process of its own, which then forks: what other tests began there would not survive that.
    ended = subprocess.run(
        [sys.executable, str(BATTERY), part, "--short"], capture_output=True, text=True, check=False, timeout=900
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    row = re.search(rf"^\| `{part}` \| .* \| (\d+) \| (\d+) \| [\d.]+ \|$", ended.stdout, re.MULTILINE)
    assert row is not None, ended.stdout
    assert int(row[1]) >= at_least
    assert int(row[2]) == 0
    # Only root can mount a small disk.
    assert int(row[1]) > 0 or "not tried: only root" in ended.stdout


def test_a_part_that_fails_ends_with_1(tmp_path: Path) -> None:
    """What is wrong in any case of a part is said, and is the exit code."""
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from batteries import __main__ as battery\n"
        "from batteries.part import Outcome, Part\n"
        "def run(short):\n    outcome = Outcome(3)\n    outcome.failed('grpo: lost a step')\n    return outcome\n"
        "battery.PARTS['own'] = Part('own', 'a test', run)\nsys.exit(battery.main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(BATTERY.parent), "own", "--table", str(tmp_path / "table.md")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 1, ended.stderr
    assert "WRONG: grpo: lost a step" in ended.stdout
    assert "| `own` | a test | 3 | 1 | 0.0 |" in (tmp_path / "table.md").read_text()
