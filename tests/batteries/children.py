"""Work in forked processes, which have everything imported already and may be killed."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from sharpen.errors import SharpenError

TIMEOUT_S = 120.0
REFUSED = 2
"""The exit status of work that ends with an error for which sharpen has a name."""


@dataclass(frozen=True)
class Sent:
    """A signal, and when it is sent: seconds after the process began."""

    signum: int
    after_s: float


def in_child(work: Callable[[], None], sent: Sent | None = None) -> int:
    """The exit status of ``work`` in a forked process: 0, 1 if it raised, `REFUSED`, or minus the signal that ended it.

    Raises TimeoutError if it does not end within two minutes.
    """
    child = start_child(work)
    began = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        passed_s = time.monotonic() - began
        if sent is not None and passed_s >= sent.after_s:
            os.kill(child, sent.signum)
            sent = None
        if passed_s > TIMEOUT_S:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"a run did not end within {TIMEOUT_S:g} s")
        time.sleep(0.002)


def start_child(work: Callable[[], None]) -> int:
    """The number of a forked process that does ``work`` and ends; see `in_child` for its exit status."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except SharpenError as error:
            print(f"  refused: {error}", file=sys.stderr)
            status = REFUSED
        except BaseException:  # noqa: BLE001 - said here; nothing of it may go on in the parent's name
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return child
