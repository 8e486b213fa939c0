"""One piece of work, done with a means to save some of it and without."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from cases import Case

THREADS = 2
Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Pair:
    """Both do the same ``case``."""

    means: str
    case: Case
    with_it: Run
    without: Run


def on_one_thread(run: Run) -> Run:
    def alone() -> None:
        torch.set_num_threads(1)
        try:
            run()
        finally:
            torch.set_num_threads(THREADS)

    return alone


def under(change: Callable[[], AbstractContextManager[object]], run: Run) -> Run:
    """The same work while something of sharpen is changed."""

    def changed() -> None:
        with change():
            run()

    return changed
