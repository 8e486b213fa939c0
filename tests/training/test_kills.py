"""Law 5, at every operation on a file; ``tests/batteries/kills.py`` does it for every method and case."""

import subprocess
import sys
from pathlib import Path

BATTERY = Path(__file__).parents[1] / "batteries" / "kills.py"


def test_killed_before_any_file_operation_a_run_ends_as_if_it_had_not_been() -> None:
    """In the last step: a reward model whose best checkpoint is the one to go on from, GRPO with a lag of two, and GRPO
    with several turns. RFT from its beginning."""
    # In a process of its own, which then forks: what other tests began there would not survive that.
    ended = subprocess.run(
        [sys.executable, str(BATTERY), "--short"], capture_output=True, text=True, check=False, timeout=900
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    *cases, total = ended.stdout.splitlines()
    assert len(cases) == 4
    kills, *rest = total.split()
    assert int(kills) >= 50
    assert " ".join(rest) == "kills, 0 of them not as never stopped"
