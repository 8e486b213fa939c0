"""The diagnosis of a run while it trains, each finding said once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from traceback import extract_tb

from sharpen.report.diagnosis.diagnose import diagnose
from sharpen.report.diagnosis.facts import Facts
from sharpen.report.diagnosis.finding import Finding
from sharpen.report.diagnosis.history import HELD_OUT, History, Row
from sharpen.report.diagnosis.on_disk import STEPS, recent_samples
from sharpen.report.diagnosis.samples import StepSamples
from sharpen.runs.folder import RunFolder
from sharpen.types import Group

FIRST, LAST = 20, 200
"""Rows that are kept of a long run, beside the held-out measures of all."""
REPLAYED = 500
"""Steps before a resumed one whose findings are not said again: a second at most."""


class Watch:
    """Is shown each step's metrics and groups, and says what it finds, each finding once."""

    def __init__(self, recipe: Mapping[str, object], say: Callable[[str], object]) -> None:
        """``recipe`` is the plain tree of all settings."""
        self._facts = Facts(recipe)
        self._say = say
        self._said: set[str] = set()
        self._failed = False
        self._first: list[Row] = []
        self._measured: list[Row] = []
        self._last: deque[Row] = deque(maxlen=LAST)
        self._samples: deque[StepSamples] = deque(maxlen=STEPS)

    def prime(self, folder: RunFolder) -> None:
        """Take over what the run has done so far; what was found then was said then.

        What was found in samples is known of the last steps alone, and all else of `REPLAYED` steps. Damaged samples
        are said, and not looked at.
        """
        samples, damaged = recent_samples(folder)
        for problem in damaged:
            self._say(problem)
        rows = folder.read_metrics(say=lambda text: None)
        for at, row in enumerate(rows, start=1):
            self._add(row)
            if at == len(rows):
                self._samples.extend(samples)
            if at > len(rows) - REPLAYED:
                self._said |= {finding.id for finding in self._found(row)}

    def __call__(self, step: int, metrics: Mapping[str, float], groups: Sequence[Group]) -> None:
        """Look at a step that is recorded; ``groups`` are those that it drew."""
        if self._failed:
            return
        try:
            found = self._look(step, metrics, groups)
        # Advice about a training must not end it: a resumed run would meet the same figures, and end again.
        except Exception as error:  # noqa: BLE001
            self._failed = True
            place = extract_tb(error.__traceback__)[-1]
            self._say(
                f"step {step}: the diagnosis of this run failed and is off from here on; training goes on. Please "
                f"report it: {type(error).__name__}: {error} ({place.name}, line {place.lineno})"
            )
            return
        for finding in found:
            self._say(f"step {step}: {finding.sentence()}")

    def _look(self, step: int, metrics: Mapping[str, float], groups: Sequence[Group]) -> list[Finding]:
        """What is found for the first time."""
        self._add({"step": step, **metrics})
        if groups:
            self._samples.append(StepSamples.of_groups(step, groups))
        found = [finding for finding in self._found(metrics) if finding.id not in self._said]
        self._said |= {finding.id for finding in found}
        return found

    def _add(self, row: Row) -> None:
        if len(self._first) < FIRST:
            self._first.append(row)
            return
        if len(self._last) == LAST:
            leaving = self._last[0]
            measures = {key: value for key, value in leaving.items() if key == "step" or key.startswith(HELD_OUT)}
            if len(measures) > 1:
                self._measured.append(measures)
        self._last.append(row)

    def _found(self, newest: Mapping[str, float]) -> list[Finding]:
        history = History(self._facts, [*self._first, *self._measured, *self._last], self._samples)
        # Between two measurements there is no news of them.
        return diagnose(history, measurements=any(key.startswith(HELD_OUT) for key in newest))
