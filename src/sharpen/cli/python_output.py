"""What Python itself writes to a terminal: warnings, log messages and tracebacks, without anything to be obeyed."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from types import TracebackType
from typing import Any

import typer
from rich.text import Text
from rich.traceback import Traceback

from sharpen.report.console import safe_console
from sharpen.system.printable import printable


def make_python_output_printable() -> None:
    """For the rest of this process. Warnings are a line each."""
    warnings.showwarning = _show_warning
    logging.setLogRecordFactory(_Record)
    sys.excepthook = _show_exception
    threading.excepthook = lambda raised: _show_exception(raised.exc_type, raised.exc_value, raised.exc_traceback)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # What libraries will change one day is for those who write programs with them.
    if not issubclass(category, FutureWarning | DeprecationWarning | PendingDeprecationWarning):
        safe_console(stderr=True, soft_wrap=True).print(Text(f"warning: {message}", style="yellow"))


class _Record(logging.LogRecord):
    def getMessage(self) -> str:
        return printable(super().getMessage())


def _show_exception(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    shown = Traceback.from_exception(kind, error or kind(), trace, suppress=[typer], word_wrap=True)
    safe_console(stderr=True).print(shown)
