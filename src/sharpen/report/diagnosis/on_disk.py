"""The samples of a run's recent steps, read from its folder."""

from __future__ import annotations

from sharpen.errors import DataError
from sharpen.report.diagnosis.samples import StepSamples, columns_read
from sharpen.runs.folder import RunFolder

STEPS = 10
"""How many steps with samples are looked at together."""
MOST_ROWS = 20_000
"""Beyond these, fewer."""


def recent_samples(folder: RunFolder) -> tuple[list[StepSamples], list[str]]:
    """Those of the last steps that drew any, in their order, and which files are damaged, in sentences."""
    found: list[StepSamples] = []
    rows = 0
    try:
        steps = folder.sample_files.steps()
    except DataError as error:
        return [], [str(error)]
    problems: list[str] = []
    for step in reversed(steps):
        if step == 0 or len(found) == STEPS or rows >= MOST_ROWS:
            break
        try:
            files = folder.sample_files
            table = files.of_step(step, columns_read(files.columns_of_step(step)))
        except DataError as error:
            problems.append(str(error))
            continue
        if table is not None:
            found.append(StepSamples.of_columns(step, table.to_pydict()))
            rows += len(table)
    return found[::-1], problems
