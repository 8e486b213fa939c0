"""Progress of a run in a terminal, a notebook or a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sharpen.report.console import safe_console
from sharpen.report.notebook import NotebookProgress
from sharpen.system.note import Note
from sharpen.system.notebook import in_notebook
from sharpen.system.printable import printable
from sharpen.system.streams import lasting

PLAIN_EVERY_S = 10.0

NEAR_ZERO_LOSS = (
    "a loss near 0 is normal here: while the policy is the one that sampled (ratio 1), the surrogate's value is the "
    "mean advantage, which is 0 by construction. Its gradient is not 0. Watch the reward and the held-out measures"
)


class Console:
    """Metric logger: a progress bar on a terminal or in a notebook, otherwise a line every ten seconds.

    A terminal can show one bar at a time: without ``bar`` it gets the lines too. If ``quiet``, it shows what warns and
    nothing else.
    """

    def __init__(self, stage: str, *, total: int | None = None, quiet: bool = False, bar: bool = True) -> None:
        self.stage = printable(stage)
        # The stream is kept, because a reward may replace sys.stderr.
        # In a notebook rich would show each line as an output of its own, and standard error is shown in red.
        stream = lasting(sys.stdout if in_notebook() else sys.stderr)
        self._console = safe_console(file=stream, force_jupyter=False)
        self._quiet = quiet
        self._notebook = NotebookProgress(self.stage, total) if in_notebook() and not quiet else None
        self._live = bar and self._console.is_terminal and self._notebook is None and not quiet
        self._progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._progress.add_task(self.stage, total=total, numbers="")
        self._total = total
        self._started = time.monotonic()
        # A resumed run starts at a later step, so time per step is measured from the first logged step.
        self._first: tuple[int, float] | None = None
        self._last_line = -PLAIN_EVERY_S
        self._held_out = ""
        self._explained = False

    def __enter__(self) -> Console:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def say(self, text: str) -> None:
        """Print a sentence; see `Note`."""
        if self._quiet and isinstance(text, Note):
            return
        self._console.print(text, highlight=False, soft_wrap=True)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._quiet:
            return
        if "held_out/pass@1" in metrics:
            self._held_out = f"  held-out pass@1 {metrics['held_out/pass@1']:.1%}"
        numbers = self._numbers(metrics)
        self._progress.update(self._task, completed=step, numbers=numbers)
        if not self._explained and "ratio/mean" in metrics and abs(metrics["loss"]) < 1e-2:
            self._explained = True
            self.say(NEAR_ZERO_LOSS)
        now = time.monotonic() - self._started
        self._first = self._first or (step - 1 if "loss" in metrics else step, now)
        last = step == self._total
        timing = f"{now:.0f} s{self._left(step, now)}"
        if self._notebook is not None:
            self._notebook.update(step, numbers, timing)
        elif not self._live and (now - self._last_line >= PLAIN_EVERY_S or last):
            self._last_line = now
            of = f"/{self._total}" if self._total else ""
            self.say(f"{self.stage}  step {step}{of}  {numbers}  {timing}")

    def close(self) -> None:
        self._progress.stop()
        if self._notebook is not None:
            self._notebook.draw()

    def _numbers(self, metrics: Mapping[str, float]) -> str:
        if "reward/mean" in metrics:
            return f"reward {metrics['reward/mean']:.3f}{self._held_out}"
        loss = f"loss {metrics['loss']:.3f}" if "loss" in metrics else ""
        return f"{loss}{self._held_out}".strip()

    def _left(self, step: int, elapsed_s: float) -> str:
        if (
            self._first is None
            or self._total is None
            or not self._first[0] < step < self._total
            or elapsed_s == self._first[1]
        ):
            return ""
        first_step, first_s = self._first
        return f", about {(elapsed_s - first_s) / (step - first_step) * (self._total - step):.0f} s left"
