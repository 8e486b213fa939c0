"""What Python itself writes to a terminal: warnings, log messages and tracebacks, without anything to be obeyed."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
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
    # An exception where nothing can catch it, such as in a `__del__`.
    sys.unraisablehook = lambda raised: _show_exception(raised.exc_type, raised.exc_value, raised.exc_traceback)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # What libraries will change one day is for those who write programs with them.
    if not issubclass(category, FutureWarning | DeprecationWarning | PendingDeprecationWarning):
        safe_console(stderr=True, soft_wrap=True).print(Text(f"warning: {message}", style="yellow"))


class _Record(logging.LogRecord):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if self.exc_info and self.exc_info[1] is not None:
            # A formatter takes this text instead of making one.
            self.exc_text = printable("".join(traceback.format_exception(self.exc_info[1])).rstrip())
        if self.stack_info:
            self.stack_info = printable(self.stack_info)

    def getMessage(self) -> str:
        return printable(super().getMessage())


def _show_exception(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    shown = Traceback.from_exception(kind, error or kind(), trace, suppress=[typer], word_wrap=True)
    safe_console(stderr=True).print(shown)
