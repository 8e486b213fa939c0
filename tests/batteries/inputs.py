"""Bad recipes, data, models, rewards, folders and disks, from the command line."""

from __future__ import annotations

import tempfile
from pathlib import Path

from batteries.bad_inputs import cases, check
from batteries.part import Outcome

SHORT = 40
"""Of so many, the short form tries one."""


def inputs(short: bool) -> Outcome:
    """Each ends with the exit code and the words that it must give, without a traceback, and leaves nothing."""
    outcome = Outcome()
    for case in cases()[:: SHORT if short else 1]:
        outcome.cases += 1
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(case, Path(folder))
            except AssertionError as error:
                outcome.failed(str(error))
    return outcome
