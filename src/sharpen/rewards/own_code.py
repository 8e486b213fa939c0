"""What a user's own code may do to the process that calls it: end it, leave its folder, take its signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sharpen.system.signals import ENDING


def ends_program(error: BaseException) -> bool:
    """Whether this, if nobody catches it, ends a command without a traceback and with an exit code of its own choice.

    That is ``sys.exit``, and what click and typer turn into an end: ``Exit``, ``Abort``, usage errors, end of input.
    """
    ends = isinstance(error, (SystemExit, EOFError)) or hasattr(error, "exit_code")
    return ends or type(error).__name__ == "Abort"


@contextmanager
def undisturbed() -> Iterator[None]:
    """Puts back the working directory, which a run's paths are relative to, and the handlers of signals."""
    folder = _folder()
    # Only the main thread can change handlers.
    main = threading.current_thread() is threading.main_thread()
    before = {s: signal.getsignal(s) for s in (*ENDING, signal.SIGALRM)} if main else {}
    try:
        yield
    finally:
        if folder is not None and _folder() != folder:
            os.chdir(folder)
        for signum, handler in before.items():
            if handler is not None and signal.getsignal(signum) != handler:
                signal.signal(signum, handler)


def _folder() -> str | None:
    """The working directory; None where it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None
