"""Progress of a run in a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape

from sharpen.system.notebook import Display
from sharpen.system.printable import printable

REDRAWN_EVERY_S = 0.2


class NotebookProgress:
    """A bar with the numbers of the latest step, redrawn in place at most five times a second."""

    def __init__(
        self, stage: str, total: int | None, *, display: Display | None = None, clock: Callable[[], float] | None = None
    ) -> None:
        self._stage, self._total = stage, total
        self._display, self._clock = display or Display(), clock or time.monotonic
        self._drawn_s = -REDRAWN_EVERY_S
        self._latest: tuple[int, str, str] | None = None

    def update(self, step: int, numbers: str, timing: str) -> None:
        """``numbers`` and ``timing`` are shown after the bar."""
        self._latest = (step, numbers, timing)
        if self._clock() - self._drawn_s >= REDRAWN_EVERY_S or step == self._total:
            self.draw()

    def draw(self) -> None:
        """Draw what has not been drawn yet."""
        if self._latest is None:
            return
        step, numbers, timing = self._latest
        self._latest, self._drawn_s = None, self._clock()
        of = f"/{self._total}" if self._total else ""
        text = printable("  ".join(part for part in (self._stage, f"step {step}{of}", numbers, timing) if part))
        bar = f'<progress value="{step}" max="{self._total}"></progress> ' if self._total else ""
        self._display.show(f'<div style="white-space: pre-wrap">{bar}{escape(text)}</div>', text)
