"""The page of a run that ends: nothing of the run is lost with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sharpen.errors import RecipeError, RunInUseError, SharpenError
from sharpen.report.page.found import runs_of
from sharpen.report.page.html import write_report
from sharpen.report.page.run_data import Say
from sharpen.runs.folder import REPORT, RunFolder
from sharpen.system.user_code import describe

Made = TypeVar("Made")


def report_at_end(path: Path, say: Say) -> Path | None:
    """Write the page of a run, or of the runs in a folder, into that folder.

    None if none of them did a step, or if it cannot be written: then ``say`` is told why.
    """
    try:
        found = runs_of([path])
    except RecipeError:
        return None  # no run in it has begun
    if not any(_did_a_step(run) for run in found.runs):
        return None
    return made_at_end(
        "the report",
        lambda: write_report(found.runs, path / REPORT, say=say, title=found.title, seeds=found.seeds),
        say,
    )


def made_at_end(what: str, make: Callable[[], Made], say: Say) -> Made | None:
    """What ``make`` returns; None if it fails, and ``say`` is told why.

    The run is done, so a picture of it that fails changes neither its outcome nor its exit code.
    """
    try:
        return make()
    except SharpenError as error:
        say(str(error))
    # Whatever it is: weights of days must not look lost because of what shows them.
    except Exception as error:  # noqa: BLE001
        say(f"{what} cannot be made: {describe(error)}")
    return None


@contextmanager
def report_after_error(run: Path, say: Say) -> Iterator[None]:
    """If what is done inside fails after it began to train, the page of the steps until then is written first."""
    before = _begun_ns(run)
    try:
        yield
    except RunInUseError:
        raise
    except Exception:
        if _begun_ns(run) != before and (file := report_at_end(run, say)) is not None:
            say(f"the steps until then: {file}")
        raise


def _did_a_step(run: Path) -> bool:
    # What is damaged in them, the page says.
    return any(row["step"] > 0 for row in RunFolder(run).read_metrics(say=lambda text: None))


def _begun_ns(run: Path) -> int | None:
    """When training was begun or resumed last; None if it never was."""
    starts = RunFolder(run).starts.path
    return starts.stat().st_mtime_ns if starts.exists() else None
