"""The process of one seed: the command line, stopped as by SIGTERM when the process that started it is gone."""

from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> None:
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    from sharpen.cli.app import main as command_line

    command_line()


def _stop_with_parent() -> None:
    # The parent writes nothing: the pipe ends when it closes it or dies.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
