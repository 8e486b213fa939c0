"""The other side of `sharpen.system.workers`: the loop of a program that answers the questions it is sent.

For scorers of libraries, which may print, take memory without end, or hang.
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
    """Answer one JSON line of standard input after another, each a question with its ``timeout_s``, by one line.

    ``prepare`` makes what answers; it may print, as the answers may.
    """
    answers = redirected_output()
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):  # not every system lets the address space be limited
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    # By default SIGALRM ends the process: a scorer that hangs must not outlive a trainer that was killed.
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
    """A copy of standard output for the answers. Whatever else is printed goes to standard error from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers
