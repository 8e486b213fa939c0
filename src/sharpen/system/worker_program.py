"""The worker side of `sharpen.system.workers`: the loop of a program that serves requests.

For third-party scorers, which may print, use unbounded memory, or hang.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, TextIO

MEMORY_LIMIT_BYTES = 4 << 30

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def serve(prepare: Callable[[], Answer]) -> None:
    """Reply to each JSON line of standard input, a request with its ``timeout_s``, with one JSON line.

    ``prepare`` returns the function that serves requests; both may print.
    """
    answers = redirected_output()
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):  # not every system lets the address space be limited
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    # By default SIGALRM ends the process: a scorer that hangs must not outlive a killed trainer.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answer = prepare()
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        question = json.loads(line)
        signal.alarm(math.ceil(question["timeout_s"]) + 1)
        result = answer(question)
        signal.alarm(0)
        print(json.dumps(result), file=answers)


def redirected_output() -> TextIO:
    """A duplicate of standard output for the replies. All other output goes to standard error from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers
