"""The samples of a run's recent steps, read from its folder."""

from __future__ import annotations

from sharpen.report.diagnosis.samples import StepSamples, columns_read
from sharpen.runs.folder import RunFolder

STEPS = 10
"""How many steps with samples are looked at together."""
MOST_ROWS = 20_000
"""Beyond these, fewer."""


def recent_samples(folder: RunFolder) -> list[StepSamples]:
    """Those of the last steps that drew any, in their order. Raises DataError if a file is damaged."""
    found: list[StepSamples] = []
    rows = 0
    for step in reversed(folder.sample_files.steps()):
        if step == 0 or len(found) == STEPS or rows >= MOST_ROWS:
            break
        table = folder.sample_files.of_step(step)
        if table is not None:
            found.append(StepSamples.of_columns(step, table.select(columns_read(table.column_names)).to_pydict()))
            rows += len(table)
    return found[::-1]
